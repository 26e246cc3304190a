//! What this host allows, for `doctor` and `status`, and what to do where it allows too little.

use crate::backend::Node;
use crate::output::Target;
use crate::process::Order;
use crate::sandbox::{Plan, Program, SandboxMode};
use faas::{
    BackendReport, FunctionLimits, FunctionLog, Isolation, PrepareError, Runtime, RuntimeReport,
};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;

/// What to do on a host that forbids user namespaces.
pub(crate) fn fix() -> String {
    let read = |file: &str| {
        fs::read_to_string(file)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let mut fixes = Vec::new();
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        fixes.push("sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        fixes.push("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }
    if read("/proc/sys/user/max_user_namespaces") == "0" {
        fixes.push("sysctl -w user.max_user_namespaces=15000");
    }
    if fixes.is_empty() {
        fixes.push("run it outside a container, or in one with --privileged");
    }
    format!(
        "To mend it: {}, or run tinyfaas as root. With --sandbox reduced it goes on with Landlock, \
         seccomp and resource limits alone",
        fixes.join(" and ")
    )
}

/// Makes a sandbox and runs `true` in it.
pub(crate) async fn try_sandbox(node: &Node) -> io::Result<()> {
    let limits = FunctionLimits::default();
    let order = Order {
        plan: Plan {
            mode: node.mode,
            binds: Vec::new(),
            has_network: false,
            tmp_bytes_max: 1 << 20,
            tmp_files_max: 16,
            open_files_max: 64,
            data_bytes_max: None,
            processes_max: None,
            envs: Vec::new(),
            working_dir: "/".into(),
            program: Program::Execute {
                path: "/bin/true".into(),
                args: Vec::new(),
            },
        },
        limits: &limits,
        host_id: node.build_id(),
        scratch: None,
        protocol: File::open("/dev/null")?.into(),
        output: Target {
            log: Arc::new(FunctionLog::new(&node.limits)),
            handler: "check".into(),
        },
    };
    let exit = node.sandbox.start(order).await?.ended().await;
    if exit.is_success {
        Ok(())
    } else {
        Err(io::Error::other(exit.text))
    }
}

/// What this host allows and which runtimes it has.
pub(crate) async fn of(node: &Node) -> BackendReport {
    let mut runtimes = Vec::new();
    for runtime in Runtime::ALL {
        runtimes.push(report_runtime(node, runtime).await);
    }
    BackendReport {
        backend: "process",
        isolation: isolation(node),
        runtimes,
    }
}

async fn report_runtime(node: &Node, runtime: Runtime) -> RuntimeReport {
    match node.finder.find(runtime).await {
        Ok(Some(found)) => RuntimeReport {
            runtime,
            version: Some(found.version),
            detail: found.executable.display().to_string(),
        },
        Ok(None) => RuntimeReport {
            runtime,
            version: Some("built in".into()),
            detail: "runs fn.sh for every call".into(),
        },
        Err(PrepareError::Runtime(detail)) => RuntimeReport {
            runtime,
            version: None,
            detail,
        },
        Err(error) => RuntimeReport {
            runtime,
            version: None,
            detail: error.to_string(),
        },
    }
}

fn isolation(node: &Node) -> Vec<Isolation> {
    let is_full = node.mode == SandboxMode::Full;
    let namespaces = if is_full {
        "user, mount, pid, net, ipc, uts and cgroup namespaces, a file system of its own".into()
    } else {
        "off by --sandbox reduced: functions see the host's processes; leave it out to have them"
            .into()
    };
    let is_root = rustix::process::geteuid().is_root();
    let own_user = if is_root && is_full {
        "a user of the host for each function".to_owned()
    } else {
        "functions share the user of tinyfaas on the host; run it as root to give each its own"
            .into()
    };
    let landlock = landlock_version();
    let landlock_detail = match landlock {
        Some(version) => format!("version {version}"),
        None => "not in this kernel; start it with lsm=landlock,… (Linux 5.13 or newer)".into(),
    };
    let cgroups = &node.sandbox.cgroups;
    vec![
        Isolation {
            name: "namespaces",
            is_on: is_full,
            detail: namespaces,
        },
        Isolation {
            name: "own user",
            is_on: is_root && is_full,
            detail: own_user,
        },
        Isolation {
            name: "cgroup limits",
            is_on: cgroups.is_on(),
            detail: cgroups.detail.clone(),
        },
        Isolation {
            name: "landlock",
            is_on: landlock.is_some(),
            detail: landlock_detail,
        },
        Isolation {
            name: "seccomp",
            is_on: true,
            detail: "an allow-list of system calls".into(),
        },
    ]
}

fn landlock_version() -> Option<i32> {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let versions = [ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1];
    let works = |abi: &ABI| {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset
            .handle_access(AccessFs::from_all(*abi))
            .and_then(landlock::Ruleset::create)
            .is_ok()
    };
    versions.into_iter().find(works).map(|abi| abi as i32)
}
