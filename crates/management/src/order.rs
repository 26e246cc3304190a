//! What is asked for in a deployment, what comes of it, and what can go wrong.

use crate::archive::{ArchiveError, SourceFile};
use crate::download::DownloadError;
use crate::named::Named;
use crate::probe::Unwritable;
use crate::store::StoreError;
use bytes::Bytes;
use faas::{Entry, FunctionName, FunctionSpec, Limits, PrepareError, Runtime};
use net::Held;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What to deploy.
#[derive(Debug)]
pub struct DeployRequest {
    /// The function.
    pub spec: FunctionSpec,
    /// Its code.
    pub source: Source,
}

/// Where a function's code comes from.
#[derive(Debug)]
pub enum Source {
    /// A zip or tar.gz, told apart by its first bytes.
    Archive(Bytes),
    /// Files in memory.
    Files(Vec<SourceFile>),
    /// The code that the function has.
    Kept,
    /// A folder below [`Options::handlers_dir`](crate::Options::handlers_dir), which is copied.
    Folder(PathBuf),
}

/// A deployment as the API asks for it.
#[derive(Debug)]
pub(crate) struct Order {
    /// The function, but for what is undecided.
    pub(crate) spec: FunctionSpec,
    /// What the client left out.
    pub(crate) undecided: Undecided,
    /// What the client named; the rest is kept where the function is known.
    pub(crate) named: Named,
    /// The code.
    pub(crate) source: Source,
    /// The folder in the archive that is the function's.
    pub(crate) subfolder: Option<String>,
    /// The room that the code takes in memory until it is unpacked.
    pub(crate) room: Option<Held>,
}

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
        if !spec.allow_hosts.is_empty() && spec.runtime != Runtime::Wasm {
            let reason = format!("the runtime {} can't be bound to hosts", spec.runtime);
            let fix = "leave it out; network=true allows every host";
            return Err(BadField::new("allow_hosts", reason, fix));
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
    let is_on_host = spec.network.is_host() || ports > 0;
    if is_on_host && spec.runtime == Runtime::Wasm {
        let reason = "a WebAssembly function has no network of the host".to_owned();
        let fix = "name what it may send requests to with allow_hosts";
        return Err(BadField::new("network", reason, fix));
    }
    Ok(())
}

/// What came of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The function.
    pub name: FunctionName,
    /// The runtime that was asked for or found.
    pub runtime: Runtime,
    /// The digest of its code.
    pub digest: String,
    /// Whether an earlier version was replaced.
    pub is_replacement: bool,
    /// The settings that were not named and are as they were before, not the defaults.
    pub kept: Vec<&'static str>,
}

/// A field of a request that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}; {fix}")]
pub struct BadField {
    /// Its name in the API.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to send instead.
    pub fix: String,
}

impl BadField {
    pub(crate) fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            fix: fix.into(),
        }
    }
}

/// Why a deployment failed. The version before, if any, still serves, and nothing is left.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A setting is not valid.
    #[error(transparent)]
    Field(#[from] BadField),
    /// The code was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The code could not be fetched.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The backend could not make the function ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// Too many deployments wait.
    #[error("{waiting_max} deployments wait already; try again in a few seconds")]
    Busy {
        /// The bound.
        waiting_max: usize,
    },
    /// There are as many functions as there may be.
    #[error("there are {functions_max} functions already; delete one first")]
    Full {
        /// The bound.
        functions_max: usize,
    },
    /// The node is shutting down.
    #[error("this node is stopping; try again when it has started")]
    Stopping,
    /// A bug: the deployment's task ended without a result.
    #[error("the deployment broke off; see the log of tinyfaas")]
    Broken,
}

/// Checks what a spec asks for against the bounds.
pub(crate) fn check(spec: &FunctionSpec, limits: &Limits) -> Result<(), BadField> {
    let handlers_max = limits.handlers_max;
    if spec.handlers == 0 || spec.handlers > handlers_max {
        let reason = format!(
            "threads must be between 1 and {handlers_max}, got {}",
            spec.handlers
        );
        let fix = format!("choose 1 to {handlers_max}");
        return Err(BadField::new("threads", reason, fix));
    }
    check_envs(&spec.envs, limits)?;
    if spec.limits.deadline.is_zero() || spec.limits.deadline > limits.deadline_max {
        let hours_max = limits.deadline_max.as_secs() / 3600;
        let fix = format!("choose a time up to {hours_max} hours, such as 60s or 500ms");
        return Err(BadField::new("deadline", "it is zero or too long", fix));
    }
    if spec.allow_hosts.len() > limits.allow_hosts_max {
        let reason = format!("there are more than {} hosts", limits.allow_hosts_max);
        let fix = "name a common parent as *.example.org";
        return Err(BadField::new("allow_hosts", reason, fix));
    }
    let (runtime, entry) = (spec.runtime, &spec.entry);
    match (runtime, entry) {
        (_, Entry::Convention) | (Runtime::Nodejs, Entry::EventHandler(_)) => Ok(()),
        (
            Runtime::Python3 | Runtime::Go | Runtime::Binary | Runtime::Wasm,
            Entry::EventHandler(_),
        ) => {
            let reason = format!("the runtime {runtime} has no entry file");
            Err(BadField::new("entry", reason, "leave it out"))
        }
    }
}

fn check_envs(envs: &[(String, String)], limits: &Limits) -> Result<(), BadField> {
    let bad = |reason: String, fix: &str| Err(BadField::new("envs", reason, fix));
    if envs.len() > limits.envs_max {
        let reason = format!("there are more than {} variables", limits.envs_max);
        return bad(reason, "send fewer");
    }
    let bytes: usize = envs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > limits.envs_bytes_max {
        let reason = format!(
            "the variables take more than {} bytes",
            limits.envs_bytes_max
        );
        return bad(reason, "send less, or put it into a file of the function");
    }
    let mut seen = HashSet::new();
    for (name, value) in envs {
        let mut chars = name.chars();
        let starts_well = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let reason = format!("{name:?} is no name of a variable");
            return bad(
                reason,
                "use letters, digits and _, not starting with a digit",
            );
        }
        if name.starts_with("TINYFAAS_") {
            let reason = format!("{name:?} is reserved");
            return bad(reason, "use a name that does not start with TINYFAAS_");
        }
        if value.contains('\0') {
            let reason = format!("the value of {name:?} has a NUL character");
            return bad(reason, "leave it out");
        }
        if !seen.insert(name) {
            return bad(format!("{name:?} is given twice"), "give it once");
        }
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
