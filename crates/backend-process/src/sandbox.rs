//! The sandbox around a process: what it is told to be, and the parts that make it so.
//!
//! The parent clones a launcher into fresh namespaces and a cgroup ([`spawner`]); the launcher is
//! this same program, executed again, so that it has one thread and none of the parent's memory.
//! It reads a [`Plan`], builds the file system ([`root`]), gives up every right ([`confine`],
//! [`syscalls`]) and executes the program of the plan ([`launcher`]).

pub(crate) mod cgroup;
mod confine;
pub(crate) mod launcher;
pub(crate) mod netlink;
pub(crate) mod network;
mod root;
pub(crate) mod spawner;
mod step;
mod sys;
pub(crate) mod syscalls;
pub(crate) mod warden;

pub(crate) use confine::{LANDLOCK_STEP, Walls};
pub(crate) use network::Reach;
pub(crate) use sys::{LAUNCHER_ARG0, WARDEN_ARG0, watch};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The user and group that a sandboxed process is, as it sees itself.
pub(crate) const INNER_ID: u32 = 1000;

/// How far handlers are isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxMode {
    /// Namespaces, a file system of its own, cgroup, Landlock, seccomp, no capabilities.
    Full,
    /// Landlock, seccomp and resource limits only, for hosts that forbid user namespaces.
    Reduced,
}

/// What a launcher is told: what to do, and by whose rights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) plan: Plan,
    /// Whom to become, where no user namespace has a user of its own.
    pub(crate) host_user: Option<HostUser>,
    /// Whether reduced isolation may go on where the kernel has no Landlock.
    pub(crate) may_lack_landlock: bool,
    /// Whether to print its walls before the program is executed.
    pub(crate) tells_walls: bool,
}

/// A user of the host that only one function is, and the group of those who may enter the folders
/// of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostUser {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

/// Everything that a launcher is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) mode: SandboxMode,
    /// What of the host is seen, and where. `/usr` and its links are always there.
    pub(crate) binds: Vec<Bind>,
    /// What is reached of the network.
    pub(crate) reach: Reach,
    /// Bounds of `/tmp`.
    pub(crate) tmp_bytes_max: u64,
    pub(crate) tmp_files_max: u64,
    pub(crate) open_files_max: u64,
    /// Where no cgroup bounds the data segment, in bytes.
    pub(crate) data_bytes_max: Option<u64>,
    /// Where no cgroup bounds the number of processes.
    pub(crate) processes_max: Option<u64>,
    /// Whether it may take space on a disk without writing it.
    pub(crate) may_reserve: bool,
    /// The whole environment.
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) working_dir: PathBuf,
    pub(crate) program: Program,
}

/// A folder or file of the host that is seen in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) is_writable: bool,
    /// Whether the source may be a link. A folder that tinyFaaS made is none, unless untrusted
    /// code has put one into its place.
    pub(crate) may_be_link: bool,
}

/// What runs in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Program {
    /// A program, by its path in the sandbox.
    Execute { path: PathBuf, args: Vec<String> },
    /// The shim of the binary runtime, which is part of this program.
    BinaryShim,
}
