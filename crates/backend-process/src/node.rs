//! What all handlers and builds of this node share.

use crate::cache::Cache;
use crate::interpreter::Finder;
use crate::process::Sandbox;
use crate::sandbox::{Reach, SandboxMode, Walls};
use crate::shims::Shims;
use crate::users::{self, HOST_ID_FIRST, HostIds};
use builds::Turns;
use faas::{Limits, Network, Package, PrepareError, Runtime};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Folders of the data directory on the way to what functions and builds read, beside that of code.
const OPEN_FOLDERS: [&str; 5] = [
    "builds/go",
    "builds/kept",
    "builds/staging",
    "scratch",
    "shims",
];

/// What all handlers and builds share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) limits: Arc<Limits>,
    pub(crate) mode: SandboxMode,
    pub(crate) sandbox: Sandbox,
    pub(crate) finder: Finder,
    pub(crate) cache: Cache,
    /// Variables that builds see.
    pub(crate) build_envs: Vec<(String, String)>,
    pub(crate) shims: Shims,
    pub(crate) build_turns: Turns,
    pub(crate) build_network: Network,
    /// Writable folders of handlers in reduced isolation.
    pub(crate) scratch: PathBuf,
    /// What a sandbox of this node has shown to have.
    pub(crate) walls: OnceLock<Walls>,
    /// Told when the backend stops.
    pub(crate) stopping: Arc<Notify>,
    pub(crate) data_dir: PathBuf,
    /// None where tinyFaaS is not root, and functions are the user that it is.
    pub(crate) host_ids: Option<HostIds>,
    pub(crate) next_handler: AtomicU64,
}

impl Node {
    /// An id for a handler or build, for logs.
    pub(crate) fn next_id(&self, what: &str) -> Arc<str> {
        let number = self.next_handler.fetch_add(1, Ordering::Relaxed);
        format!("{what}-{number}").into()
    }

    /// The host's user that builds are.
    pub(crate) fn build_id(&self) -> Option<u32> {
        self.host_ids.as_ref().map(|_| HOST_ID_FIRST)
    }

    /// What builds reach: package registries.
    pub(crate) fn build_reach(&self) -> Reach {
        self.reach(&self.build_network)
    }

    /// What the sandbox of a function reaches. Without namespaces there is no network but the
    /// host's.
    pub(crate) fn reach(&self, network: &Network) -> Reach {
        match (network, self.mode) {
            (Network::None, _) => Reach::Nothing,
            (Network::Own { host_ports }, SandboxMode::Full) => Reach::Relay {
                host_ports: host_ports.clone(),
            },
            (Network::Own { .. }, SandboxMode::Reduced) | (Network::Host, _) => Reach::Host,
        }
    }

    /// A user of the host for a function, which no other has.
    pub(crate) fn function_id(&self) -> Option<u32> {
        self.host_ids.as_ref().map(HostIds::next)
    }

    /// Lets functions, by their group, enter the folders on the way to what they read: without
    /// namespaces they get there by the host's own paths.
    pub(crate) fn let_in_everywhere(&self, code: &Path) -> io::Result<()> {
        if self.mode == SandboxMode::Full || self.host_ids.is_none() {
            return Ok(());
        }
        let ours = OPEN_FOLDERS.map(|name| self.data_dir.join(name).join("x"));
        let paths = ours.iter().map(PathBuf::as_path).chain([code]);
        paths
            .into_iter()
            .try_for_each(|path| users::let_in(&self.data_dir, path))
    }

    /// An interpreter in somebody's home is of no use to another user of the host.
    pub(crate) fn check_reach(
        &self,
        runtime: Runtime,
        executable: &Path,
    ) -> Result<(), PrepareError> {
        let is_bound = self.mode == SandboxMode::Full || self.host_ids.is_none();
        match users::closed_above(executable).filter(|_| !is_bound) {
            None => Ok(()),
            Some(closed) => Err(PrepareError::runtime(
                format!(
                    "the runtime {runtime}: {} lies in {}, which users other than root may not \
                     enter, and with --sandbox reduced each function is a user of its own",
                    executable.display(),
                    closed.display()
                ),
                format!("name another with --{runtime}"),
            )),
        }
    }

    /// Takes back what functions without namespaces were allowed.
    pub(crate) fn shut_out(&self) {
        if self.mode == SandboxMode::Reduced && self.host_ids.is_some() {
            let private = std::fs::Permissions::from_mode(0o700);
            // The next start does it too.
            drop(std::fs::set_permissions(&self.data_dir, private));
        }
    }

    /// What a failed start means and what to do about it.
    pub(crate) fn explain(&self, package: &Package, error: &io::Error) -> PrepareError {
        let name = &package.spec.name;
        PrepareError::host(
            format!("function \"{name}\": its sandbox could not be made ({error})"),
            "run tinyfaas doctor",
        )
    }
}
