//! How languages with a heap of their own are told what a handler may have: without that they see
//! the machine's memory and are killed before they collect.

use crate::FunctionSpec;

/// What a process takes beside its heap, at least: code, stacks, buffers.
const BESIDE_HEAP_BYTES_MIN: u64 = 56 << 20;
const MIB: u64 = 1 << 20;

impl FunctionSpec {
    /// The variables that a handler's process is given: those that tell its memory, then the
    /// function's own, which win.
    #[must_use]
    pub fn process_envs(&self) -> Vec<(String, String)> {
        let bytes = self.limits.memory_bytes_max;
        let told = [
            ("TINYFAAS_MEMORY_BYTES", bytes.to_string()),
            // A goal, not a wall: what is not Go's heap needs room, too.
            ("GOMEMLIMIT", format!("{}B", bytes - bytes / 10)),
            ("JAVA_TOOL_OPTIONS", format!("-XX:MaxRAM={bytes}")),
            ("NODE_OPTIONS", old_space(bytes)),
        ];
        let is_own = |name: &str| self.envs.iter().any(|(own, _)| own == name);
        let mut envs: Vec<(String, String)> = told
            .into_iter()
            .filter(|(name, _)| !is_own(name))
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let own = self.envs.iter().cloned();
        envs.extend(own.map(|(name, value)| match name.as_str() {
            "NODE_OPTIONS" if !names_heap(&value) => {
                let value = format!("{value} {}", old_space(bytes));
                (name, value)
            }
            _ => (name, value),
        }));
        envs
    }
}

/// V8's bound for what lives long.
fn old_space(bytes: u64) -> String {
    let beside = (bytes / 8).max(BESIDE_HEAP_BYTES_MIN);
    let heap = bytes.saturating_sub(beside).max(bytes / 2);
    format!("--max-old-space-size={}", heap / MIB)
}

fn names_heap(options: &str) -> bool {
    let options = options.replace('_', "-");
    options.contains("--max-old-space-size") || options.contains("--max-heap-size")
}

#[cfg(test)]
mod tests {
    use crate::{Entry, FunctionLimits, FunctionSpec, Runtime};

    fn told(mib: u64, own: &[(&str, &str)], name: &str) -> Vec<String> {
        let own = own.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let spec = FunctionSpec {
            name: "f".parse().unwrap(),
            runtime: Runtime::Nodejs,
            entry: Entry::Convention,
            handlers: 1,
            envs: own.collect(),
            network: crate::Network::None,
            allow_scripts: false,
            cors: None,
            allow_hosts: Vec::new(),
            limits: FunctionLimits {
                memory_bytes_max: mib << 20,
                ..FunctionLimits::default()
            },
        };
        let envs = spec.process_envs().into_iter();
        envs.filter_map(|(key, value)| (key == name).then_some(value))
            .collect()
    }

    #[test]
    fn every_language_is_told_what_its_handler_may_have() {
        for (mib, name, expected) in [
            (256, "NODE_OPTIONS", "--max-old-space-size=200"),
            (64, "NODE_OPTIONS", "--max-old-space-size=32"),
            (1024, "NODE_OPTIONS", "--max-old-space-size=896"),
            (256, "GOMEMLIMIT", "241591911B"),
            (256, "JAVA_TOOL_OPTIONS", "-XX:MaxRAM=268435456"),
            (256, "TINYFAAS_MEMORY_BYTES", "268435456"),
        ] {
            assert_eq!(told(mib, &[], name), [expected], "{mib} MiB");
        }
    }

    #[test]
    fn what_the_function_sets_wins() {
        for (name, own, expected) in [
            ("GOMEMLIMIT", "off", "off"),
            ("JAVA_TOOL_OPTIONS", "", ""),
            (
                "NODE_OPTIONS",
                "--max_old_space_size=9",
                "--max_old_space_size=9",
            ),
            (
                "NODE_OPTIONS",
                "--enable-source-maps",
                "--enable-source-maps --max-old-space-size=200",
            ),
        ] {
            assert_eq!(told(256, &[(name, own)], name), [expected]);
        }
        assert_eq!(told(256, &[("A", "b")], "A"), ["b"]);
    }
}
