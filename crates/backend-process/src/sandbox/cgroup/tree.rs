//! A cgroup and those below it: ending what is in them, removing them.

use rustix::event::poll;
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How often and for how long the end of killed processes is waited for.
const END_TRIES: u32 = 400;
const END_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Kills everything in a cgroup and below it, and removes them. Waits, within a bound, until the
/// kernel has let go; what is left then is found by the next start.
pub(crate) fn end(folder: &Path) {
    for _ in 0..END_TRIES {
        remove(folder);
        if !folder.exists() {
            return;
        }
        kill(folder);
        // A pause: there is nothing to poll, and no event loop in a launcher.
        let _passed = poll(&mut [], Some(&END_PAUSE));
    }
}

/// Kills everything in a cgroup and below it. What is killed may need a moment to be gone.
pub(crate) fn kill(folder: &Path) {
    // Version 2 from Linux 5.14 on: the kernel itself, so that no fork gets away.
    let mut by_kernel = fs::File::options();
    let by_kernel = by_kernel.write(true).open(folder.join("cgroup.kill"));
    if by_kernel.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    for child in children(folder) {
        kill(&child);
    }
    let opened = members(folder).into_iter().filter_map(|pid| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some((pid, pidfd))
    });
    let opened: Vec<_> = opened.collect();
    // One that is in the list still is the one that was opened, not a later one of the same id.
    let still = members(folder);
    for (_, pidfd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        // It fails only where the process has ended.
        let _ended = pidfd_send_signal(pidfd, Signal::KILL);
    }
}

/// Removes a cgroup and those below it, as far as nothing is in them.
pub(crate) fn remove(folder: &Path) {
    for child in children(folder) {
        remove(&child);
    }
    drop(fs::remove_dir(folder));
}

/// Moves every process from one cgroup into another, as far as that goes.
pub(super) fn move_all(from: &Path, to: &Path) {
    for pid in members(from) {
        let moved = fs::write(to.join("cgroup.procs"), pid.as_raw_pid().to_string());
        // It has ended, or is the kernel's.
        drop(moved);
    }
}

/// Whether any process is in a cgroup of version 2 or below it.
pub(super) fn is_populated(folder: &Path) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn members(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process that this pid namespace does not see.
    let pids = text
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?));
    pids.collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let folders = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
