//! Gives up rights: resource limits, capabilities, Landlock.

use super::step::{Failure, Step};
use super::{Plan, SandboxMode};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// How a launcher that could not wall off files names the step.
pub(crate) const LANDLOCK_STEP: &str = "Landlock";

/// The newest Landlock whose rights are used; older kernels give what they have.
const LANDLOCK_ABI: ABI = ABI::V6;

/// What functions see of the host in reduced isolation.
const USR_AND_COMPANIONS: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];

/// Files and folders of `/etc` that interpreters and package managers read; none holds a secret.
const PUBLIC_ETC: [&str; 18] = [
    "/etc/alternatives",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// When memory runs out, a function goes before tinyFaaS.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// Asks the kernel to end this process rather than tinyFaaS when the host's memory runs out.
pub(crate) fn prefer_for_out_of_memory() {
    // A refusal leaves the score that tinyFaaS has.
    drop(std::fs::write(
        "/proc/self/oom_score_adj",
        OUT_OF_MEMORY_SCORE,
    ));
}

/// The limit of core dumps at which the kernel makes none. To 0 it would still start the program that
/// `core_pattern` may name, on the host and outside every sandbox; 1 stops that, and is less than
/// any file takes (core(5)). Functions can't lower it: the filter of system calls refuses that.
const NO_CORE: u64 = 1;

/// Sets the limits of the process itself, which children inherit.
pub(crate) fn limit_resources(plan: &Plan) -> Result<(), Failure> {
    let limit = |resource, max: u64| {
        // A sandbox can't raise what tinyFaaS itself was started with.
        let granted = getrlimit(resource).maximum;
        let max = granted.map_or(max, |granted| max.min(granted));
        setrlimit(
            resource,
            Rlimit {
                current: Some(max),
                maximum: Some(max),
            },
        )
    };
    limit(Resource::Core, NO_CORE).step("limit of core dumps")?;
    limit(Resource::Nofile, plan.open_files_max).step("limit of open files")?;
    if let Some(max) = plan.data_bytes_max {
        limit(Resource::Data, max).step("limit of data")?;
    }
    if let Some(max) = plan.processes_max {
        limit(Resource::Nproc, max).step("limit of processes")?;
    }
    Ok(())
}

/// Drops every capability, from the bounding set too.
pub(crate) fn drop_capabilities() -> Result<(), Failure> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)
        .map_err(failed)
        .step("capabilities")?
    {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(failed)
                .step("capabilities")?;
        }
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set)
            .map_err(failed)
            .step("capabilities")?;
    }
    Ok(())
}

/// What a confined process found out about its own walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walls {
    /// The version of Landlock that is enforced; none where this kernel enforces nothing.
    pub(crate) landlock: Option<u32>,
}

/// Restricts what paths, TCP ports, abstract sockets and signals are in reach, as far as this
/// kernel's Landlock goes: a right that it does not know leaves the others as they are. Where there
/// are namespaces, it is a second wall behind them; where there are none, it must at least wall off
/// files, unless `may_lack_landlock`.
pub(crate) fn restrict_paths(plan: &Plan, may_lack_landlock: bool) -> Result<Walls, Failure> {
    let rules = || -> Result<Walls, RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
        if plan.reach.is_nothing() {
            ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
        }
        let mut created = ruleset.create()?;
        for (path, access) in allowed_paths(plan) {
            // A path that isn't there needs no rule.
            if let Ok(fd) = PathFd::new(path) {
                created = created.add_rule(PathBeneath::new(fd, access))?;
            }
        }
        let status = created.restrict_self()?;
        let landlock = match (status.ruleset, status.landlock) {
            (RulesetStatus::NotEnforced, _)
            | (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
            // Files are what its first version has.
            (_, LandlockStatus::Available { effective_abi, .. }) => {
                u32::try_from(effective_abi as i32).ok()
            }
        };
        Ok(Walls { landlock })
    };
    let walls = rules().map_err(io::Error::other).step(LANDLOCK_STEP)?;
    if plan.mode == SandboxMode::Reduced && walls.landlock.is_none() && !may_lack_landlock {
        return Err(io::Error::from(io::ErrorKind::Unsupported)).step(LANDLOCK_STEP);
    }
    Ok(walls)
}

fn allowed_paths(plan: &Plan) -> Vec<(&Path, BitFlags<AccessFs>)> {
    let read = AccessFs::from_read(LANDLOCK_ABI);
    let all = AccessFs::from_all(LANDLOCK_ABI);
    let writable = plan.binds.iter().filter(|bind| bind.is_writable);
    match plan.mode {
        SandboxMode::Full => {
            let mut paths = vec![(Path::new("/"), read)];
            paths.extend(["/tmp", "/dev/shm"].map(|path| (Path::new(path), all)));
            paths.push((Path::new("/dev"), AccessFs::from_file(LANDLOCK_ABI)));
            paths.push((Path::new("/proc"), read | AccessFs::WriteFile));
            paths.extend(writable.map(|bind| (bind.target.as_path(), all)));
            paths
        }
        SandboxMode::Reduced => {
            let shared = USR_AND_COMPANIONS.into_iter().chain(PUBLIC_ETC);
            let readable = shared.map(|path| (Path::new(path), read));
            let mut paths: Vec<_> = readable.collect();
            paths.extend(
                plan.binds
                    .iter()
                    .filter(|b| !b.is_writable)
                    .map(|b| (b.source.as_path(), read)),
            );
            paths.extend(writable.map(|bind| (bind.source.as_path(), all)));
            let device = AccessFs::from_file(LANDLOCK_ABI);
            let devices = [
                "/dev/null",
                "/dev/zero",
                "/dev/full",
                "/dev/random",
                "/dev/urandom",
            ];
            paths.extend(devices.iter().map(|path| (Path::new(*path), device)));
            paths.push((Path::new("/proc/self"), read));
            paths
        }
    }
}
