//! What of a function is decided by its code.

use crate::bad_field::BadField;
use faas::{FunctionSpec, Limits, Runtime};
use std::path::Path;

/// What is decided when the code is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// The runtime is told by the files.
    pub(crate) has_no_runtime: bool,
    /// The number of handlers is what suits the runtime.
    pub(crate) has_no_handlers: bool,
    /// The memory is what suits the runtime.
    pub(crate) has_no_memory: bool,
    /// The runtime that the function has had; handlers and memory are kept with it.
    pub(crate) known_runtime: Option<Runtime>,
    /// The memory of a function whose runtime is another now.
    pub(crate) default_memory_bytes: u64,
}

impl Undecided {
    /// Whether the function may have that runtime, as far as that is known.
    pub(crate) fn may_be(self, runtime: Runtime, spec: &FunctionSpec) -> bool {
        self.has_no_runtime || spec.runtime == runtime
    }

    /// Decides, with the function's folder, and checks what depends on it.
    pub(crate) fn decide(
        self,
        spec: &mut FunctionSpec,
        code: &Path,
        limits: &Limits,
    ) -> Result<(), BadField> {
        if self.has_no_runtime {
            // What was ambiguous before is still told by the function.
            let detected = detect_runtime(code);
            spec.runtime = match self.known_runtime {
                Some(known) => detected.unwrap_or(known),
                None => detected?,
            };
        }
        let is_another = self.known_runtime != Some(spec.runtime);
        if self.has_no_handlers && is_another {
            spec.handlers = spec.runtime.default_handlers(limits);
        }
        if self.has_no_memory && is_another {
            let memory = &mut spec.limits.memory_bytes_max;
            if self.known_runtime.is_some() {
                *memory = self.default_memory_bytes;
            }
            *memory = spec.runtime.default_memory(*memory, limits);
        }
        check_network(spec, limits)
    }
}

fn check_network(spec: &FunctionSpec, limits: &Limits) -> Result<(), BadField> {
    let ports = spec.network.host_ports().len();
    let max = limits.host_ports_max;
    if ports > max {
        let reason = format!("a function may name {max} ports, got {ports}");
        let fix = "name only those that it connects to";
        return Err(BadField::new("host_ports", reason, fix));
    }
    Ok(())
}

/// Tells the runtime by the files that its convention names.
fn detect_runtime(code: &Path) -> Result<Runtime, BadField> {
    let signs = |runtime| match runtime {
        Runtime::Nodejs => &["package.json", "index.js", "index.mjs", "index.cjs"][..],
        Runtime::Python3 => &["fn.py"],
        Runtime::Go => &["fn.go"],
        Runtime::Binary => &["fn.sh", "fn.cgi"],
        Runtime::Wasm => &["fn.wasm"],
    };
    let has = |runtime: &Runtime| signs(*runtime).iter().any(|sign| code.join(sign).is_file());
    let found: Vec<Runtime> = Runtime::ALL.into_iter().filter(has).collect();
    let fix = "set it to one of nodejs, python3, go, binary, wasm";
    match found[..] {
        [runtime] => Ok(runtime),
        [] if has_one_module(code) => Ok(Runtime::Wasm),
        [] => {
            let reason = "there is no package.json, index.js, fn.py, fn.go, fn.sh, fn.cgi, fn.wasm or \
                          single .wasm file to tell it by";
            let (reason, fix) = match likely(code) {
                Some((file, fix)) => (format!("{reason}; found {file}"), fix),
                None => (reason.to_owned(), fix.to_owned()),
            };
            Err(BadField::new("runtime", reason, fix))
        }
        _ => {
            let words: Vec<&str> = found.iter().map(|runtime| runtime.as_str()).collect();
            let reason = format!("the files fit each of {}", words.join(", "));
            Err(BadField::new("runtime", reason, fix))
        }
    }
}

/// A file that most likely is the function, in a name that other platforms use, and what to do.
fn likely(code: &Path) -> Option<(String, String)> {
    let names = std::fs::read_dir(code).ok()?.flatten();
    let mut names: Vec<String> = names
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let ending = |name: &str| name.rsplit_once('.').map(|(_, ending)| ending.to_owned());
    names.into_iter().find_map(|name| {
        let fix = match ending(&name)?.as_str() {
            "py" => format!("rename {name} to fn.py and its function to fn(input, headers)"),
            "js" | "mjs" | "cjs" => format!(
                "rename {name} to index.js, or name it in package.json as main; its export is (req, res)"
            ),
            "ts" => format!("compile {name} to JavaScript (tsc, esbuild) and send index.js"),
            "go" => format!(
                "rename {name} to fn.go, with func fn(data string, headers map[string]string) (string, error)"
            ),
            "sh" => format!("rename {name} to fn.sh"),
            "zip" | "gz" | "tgz" => format!("unpack {name}, or send it alone"),
            _ => return None,
        };
        Some((name, fix))
    })
}

/// Whether exactly one file beside the others is a WebAssembly module.
fn has_one_module(code: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(code) else {
        return false;
    };
    let is_module = |entry: &std::fs::DirEntry| {
        let path = entry.path();
        path.extension()
            .is_some_and(|extension| extension == "wasm")
            && path.is_file()
    };
    entries.flatten().filter(is_module).count() == 1
}
