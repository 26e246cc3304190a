//! What is asked for in a deployment, what comes of it, and what can go wrong.

use crate::archive::{ArchiveError, SourceFile};
use crate::bad_field::BadField;
use crate::download::DownloadError;
use crate::named::Named;
use crate::probe::Unwritable;
use crate::store::StoreError;
use crate::undecided::Undecided;
use crate::upload::Room;
use bytes::Bytes;
use faas::{Asker, Entry, FunctionName, FunctionSpec, Limits, PrepareError, Runtime};
use std::collections::HashSet;
use std::path::PathBuf;

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
    pub(crate) room: Option<Room>,
    /// Whose share of the builds it takes.
    pub(crate) asker: Asker,
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
    #[error("{waiting_max} deployments wait already")]
    Busy {
        /// The bound.
        waiting_max: usize,
    },
    /// There are as many functions as there may be.
    #[error("there are {functions_max} functions already")]
    Full {
        /// The bound.
        functions_max: usize,
    },
    /// Its name was deleted or deployed again while it was built.
    #[error("the build was cancelled: the function was deleted or deployed again meanwhile")]
    Superseded,
    /// Whoever asked has gone while it was built.
    #[error("the build was cancelled: its client has gone")]
    Abandoned,
    /// Other builds left no place for too long.
    #[error("{error}{}", shown(.building))]
    BuildsBusy {
        /// What waited, and how long.
        error: PrepareError,
        /// The functions that are being built.
        building: Vec<FunctionName>,
    },
    /// The node is shutting down.
    #[error("this node is stopping")]
    Stopping,
    /// A bug: the deployment's task ended without a result.
    #[error("the deployment broke off")]
    Broken,
}

/// Checks sizes that were named against what this machine has: more would be no bound at all.
pub(crate) fn check_sizes(
    spec: &FunctionSpec,
    named: &Named,
    limits: &Limits,
) -> Result<(), BadField> {
    let max = limits.handler_memory_bytes_max;
    let sizes = [
        ("memory", spec.limits.memory_bytes_max),
        ("tmp", spec.limits.tmp_bytes_max),
    ];
    for (name, bytes) in sizes {
        if bytes > max && named.has(&[name]) {
            let (mib, mib_max) = (bytes >> 20, max >> 20);
            let reason = format!(
                "{name} must be at most the {mib_max}MiB that this machine has, got {mib}MiB"
            );
            let fix = format!("choose up to {mib_max}MiB");
            return Err(BadField::new(name, reason, fix));
        }
    }
    let (cpu, cpu_max) = (spec.limits.cpu_millis_max, limits.handler_cpu_millis_max);
    if cpu > cpu_max && named.has(&["cpu"]) {
        let (cpu, cpu_min, cpu_max) = (cores(cpu), cores(CPU_MILLIS_MIN), cores(cpu_max));
        let reason = format!(
            "cpu must be between {cpu_min} and the {cpu_max} cores that this machine has, got {cpu}"
        );
        let fix = format!("choose {cpu_min} to {cpu_max}");
        return Err(BadField::new("cpu", reason, fix));
    }
    Ok(())
}

/// The least CPU time that a handler can be given, in thousandths of a core.
pub(crate) const CPU_MILLIS_MIN: u32 = 10;

/// Thousandths of a core as cores.
fn cores(millis: u32) -> f64 {
    f64::from(millis) / 1000.0
}

fn shown(building: &[FunctionName]) -> String {
    if building.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = building.iter().map(FunctionName::as_str).collect();
    format!(" (being built: {})", names.join(", "))
}

impl DeployError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &str {
        match self {
            Self::Field(error) => &error.fix,
            Self::Archive(error) => error.fix(),
            Self::Download(error) => error.fix(),
            Self::Prepare(error) => &error.fix,
            Self::Store(error) => error.fix(),
            Self::Unwritable(error) => error.fix(),
            Self::Busy { .. } => "try again in a few seconds",
            Self::Full { .. } => "delete one first",
            Self::Superseded => "deploy it again if it is still wanted",
            Self::Abandoned => "deploy it again",
            Self::BuildsBusy { .. } => "try again later, or delete the function whose build hangs",
            Self::Stopping => "try again when it has started",
            Self::Broken => "see the log of tinyfaas",
        }
    }
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
    let origins = spec.cors.as_ref().map_or(0, |cors| cors.origins().len());
    if origins > limits.cors_origins_max {
        let max = limits.cors_origins_max;
        let reason = format!("a function may name {max} origins, got {origins}");
        let fix = "name fewer; * lets any page call, and with function it answers for itself";
        return Err(BadField::new("cors", reason, fix));
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
