//! What a node leaves behind when it ends: there must be nothing.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// A process, told from a later one with the same id by when it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// The name of its program.
    pub name: String,
    started: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may itself have some.
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let is_zombie = fields.first() == Some(&"Z");
        let process = Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            started: fields.get(19)?.parse().ok()?,
        };
        (!is_zombie).then_some(process)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// If it can't be.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Tells it something with SIGUSR1.
    ///
    /// # Panics
    /// If it has gone.
    pub fn tell(&self) {
        self.signal(Signal::USR1);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process(pid, signal));
        assert_eq!(sent, Some(Ok(())), "{self:?}");
    }

    /// Whether it lives still.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// Every process that the process started, and those that they started.
#[must_use]
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = every_process();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        for child in children {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

fn every_process() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// What is left of the node with that id: living processes of `known` or in its cgroups, cgroups,
/// mounts, and files for a moment in its data directory.
pub(crate) fn of(pid: u32, data_dir: &Path, known: &[Process]) -> Vec<String> {
    let mut left = Vec::new();
    let living = known.iter().filter(|process| process.is_alive());
    left.extend(living.map(|process| format!("process {} ({})", process.pid, process.name)));
    left.extend(cgroups_of(pid));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = data_dir.display().to_string();
    let mounts = mounts.lines().filter(|line| line.contains(&below));
    left.extend(mounts.map(|line| format!("mount {line}")));
    left.extend(temporary_files(data_dir));
    left
}

/// The cgroups of the node with that id and the processes in them, as texts.
#[must_use]
pub fn cgroups_of(pid: u32) -> Vec<String> {
    let prefix = format!("tinyfaas-{pid}-");
    let mut left = in_cgroups(&prefix);
    let folders = cgroups(&prefix);
    left.extend(
        folders
            .iter()
            .map(|dir| format!("cgroup {}", dir.display())),
    );
    left
}

/// What lies in the folders of a data directory that are for a moment only.
pub(crate) fn temporary_files(data_dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for name in ["scratch", "tmp", "builds/staging"] {
        let Ok(entries) = fs::read_dir(data_dir.join(name)) else {
            continue;
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        left.extend(paths.map(|path| format!("file {}", path.display())));
    }
    left
}

fn in_cgroups(prefix: &str) -> Vec<String> {
    let inside = every_process().into_iter().filter(|process| {
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid));
        cgroups.is_ok_and(|text| text.contains(prefix))
    });
    inside
        .map(|process| format!("process {} ({}) in a cgroup", process.pid, process.name))
        .collect()
}

fn cgroups(prefix: &str) -> Vec<PathBuf> {
    let all = WalkDir::new("/sys/fs/cgroup").into_iter();
    let folders = all.filter_map(Result::ok).filter(|entry| {
        entry.file_type().is_dir()
            && entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(prefix))
    });
    folders.map(walkdir::DirEntry::into_path).collect()
}
