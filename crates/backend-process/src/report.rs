//! What this host allows, for `doctor` and `status`, and what to do where it allows too little.

use crate::node::Node;
use crate::output::Target;
use crate::process::Order;
use crate::sandbox::{Plan, Program, Reach, SandboxMode, Walls, network};
use faas::{BackendReport, FunctionLimits, FunctionLog, Isolation, Runtime, RuntimeReport};
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

/// Makes a sandbox and runs `true` in it; tells what walls it had.
pub(crate) async fn try_sandbox(node: &Node) -> io::Result<Walls> {
    let limits = FunctionLimits::default();
    let log = Arc::new(FunctionLog::new(&node.limits));
    let order = Order {
        plan: Plan {
            mode: node.mode,
            binds: Vec::new(),
            reach: Reach::Nothing,
            tmp_bytes_max: 1 << 20,
            tmp_files_max: 16,
            open_files_max: 64,
            data_bytes_max: None,
            processes_max: None,
            may_reserve: true,
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
            log: Arc::clone(&log),
            handler: "check".into(),
        },
    };
    let exit = node.sandbox.start_telling(order).await?.ended().await;
    if !exit.is_success {
        return Err(io::Error::other(exit.text));
    }
    Ok(serde_json::from_str(&log.last_text("check", 1))?)
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
        Err(error) => RuntimeReport {
            runtime,
            version: None,
            detail: error.text(),
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
    let has_users = node.build_id().is_some();
    let own_user = if has_users {
        "a user of the host for each function".to_owned()
    } else {
        "functions share the user of tinyfaas on the host; run it as root to give each its own"
            .into()
    };
    let landlock = node.walls.get().and_then(|walls| walls.landlock);
    let cgroups = &node.sandbox.cgroups;
    vec![
        Isolation {
            name: "namespaces",
            is_on: is_full,
            detail: namespaces,
        },
        Isolation {
            name: "own user",
            is_on: has_users,
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
            detail: landlock_detail(landlock, node.mode),
        },
        own_network(is_full),
        Isolation {
            name: "seccomp",
            is_on: true,
            detail: "an allow-list of system calls".into(),
        },
    ]
}

/// Whether builds and functions with network have a network of their own.
fn own_network(is_full: bool) -> Isolation {
    let reduced = || {
        let text = "off by --sandbox reduced: builds and functions with network have the host's";
        Err(text.to_owned())
    };
    let available = if is_full {
        network::availability()
    } else {
        reduced()
    };
    let is_on = available.is_ok();
    let built = "builds and functions with network reach other machines, not this one".to_owned();
    Isolation {
        name: "own network",
        is_on,
        detail: available.err().unwrap_or(built),
    }
}

/// What the Landlock that sandboxes have shown to have leaves open, where nothing else is before it.
fn landlock_detail(version: Option<u32>, mode: SandboxMode) -> String {
    let Some(version) = version else {
        return "not in this kernel; start it with lsm=landlock,… (Linux 5.13 or newer)".into();
    };
    let tcp = "TCP ports of this host (Linux 6.7 has them)";
    let sockets = "abstract Unix sockets and signals of this host (Linux 6.12 has them)";
    let open = match (mode, version) {
        (SandboxMode::Full, _) | (SandboxMode::Reduced, 6..) => {
            return format!("version {version}");
        }
        (SandboxMode::Reduced, 4..6) => sockets.to_owned(),
        (SandboxMode::Reduced, _) => format!("{tcp}, {sockets}"),
    };
    format!("version {version}, which has no rules for {open}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_landlock_leaves_open_is_told_where_nothing_else_closes_it() {
        let check = |version, mode, expected: &str| {
            let detail = landlock_detail(version, mode);
            assert!(detail.starts_with(expected), "{detail}");
        };
        check(Some(2), SandboxMode::Full, "version 2");
        check(None, SandboxMode::Full, "not in this kernel");
        check(
            Some(2),
            SandboxMode::Reduced,
            "version 2, which has no rules for TCP",
        );
        check(
            Some(5),
            SandboxMode::Reduced,
            "version 5, which has no rules for abstract",
        );
        assert_eq!(landlock_detail(Some(6), SandboxMode::Reduced), "version 6");
    }
}
