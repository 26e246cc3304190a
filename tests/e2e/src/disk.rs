//! A disk of a test's own, whose power can be cut.

use crate::wait::until;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The request that shuts an ext4 file system down, `EXT4_IOC_SHUTDOWN`, without writing what it has
/// in memory: not even its journal.
const CUT: &str = "import fcntl, os, struct, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(folder, 0x8004587D, struct.pack('I', 2))";

/// The size of the disk; of the file that is its medium only what was written takes space.
const BYTES: u64 = 2 << 30;

/// An ext4 file system in a file, mounted.
#[derive(Debug)]
pub struct Disk {
    medium: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// Makes a file system in the file `medium` and mounts it at the folder `mounted`, for its owner
    /// only.
    ///
    /// # Errors
    /// If this machine allows no such mounts, with the reason.
    ///
    /// # Panics
    /// If the file can't be made.
    pub fn new(medium: &Path, mounted: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(medium).expect("a file for the disk");
        file.set_len(BYTES).expect("a file may be sparse");
        // No blocks are reserved for root: a full disk is full for everybody.
        let words = ["-q", "-F", "-m", "0"];
        run(Command::new("mkfs.ext4").args(words).arg(medium))?;
        std::fs::create_dir_all(mounted).expect("a folder for the disk");
        let disk = Self {
            medium: medium.to_owned(),
            mounted: mounted.to_owned(),
        };
        disk.mount()?;
        run(Command::new("chmod").arg("700").arg(mounted))?;
        Ok(disk)
    }

    /// Loses everything that is not on the medium. Whatever uses the disk gets errors from now on.
    ///
    /// # Panics
    /// If the file system can't be shut down.
    pub fn cut_power(&self) {
        let cut = run(Command::new("python3").args(["-c", CUT]).arg(&self.mounted));
        cut.expect("ext4 can be shut down");
    }

    /// Mounts the disk again as after a start of the machine.
    ///
    /// Sandboxes of other programs on this machine may hold the file system that was shut down for
    /// as long as they live, and while one does, mounting its medium gives the same one. So it is
    /// a copy of the medium that is mounted: what was shut down writes no more.
    ///
    /// # Panics
    /// If it can't be mounted.
    pub fn start_again(&self) {
        let unmounted = run(Command::new("umount").arg("-l").arg(&self.mounted));
        unmounted.expect("it is mounted");
        let copy = self.medium.with_extension("copy");
        let mut copying = Command::new("cp");
        let copied = run(copying.arg("--sparse=always").arg(&self.medium).arg(&copy));
        copied.expect("the medium can be copied");
        std::fs::rename(&copy, &self.medium).expect("the copy takes its place");
        self.mount().expect("it was mounted before");
    }

    /// Makes it read-only, as Linux does with a disk that fails, or writable again. Waits until
    /// nothing has a file open for writing.
    pub fn set_read_only(&self, is_read_only: bool) {
        let option = if is_read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        until("the disk can be mounted otherwise", || {
            let mut mount = Command::new("mount");
            run(mount.args(["-o", option]).arg(&self.mounted)).ok()
        });
    }

    /// The space that is left.
    ///
    /// # Panics
    /// If the disk can't be looked at.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let free = rustix::fs::statvfs(&self.mounted).expect("it is mounted");
        free.f_bavail * free.f_frsize
    }

    /// Takes all space but so much. Removing the file that is returned gives it back.
    ///
    /// # Panics
    /// If the disk can't be looked at.
    #[must_use]
    pub fn fill_but(&self, left_bytes: u64) -> PathBuf {
        let path = self.mounted.join("filler");
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).open(&path);
        let file = file.expect("a file can be made");
        let free = || self.free_bytes();
        // It may be called again: the file system gives back only in a while what was removed.
        let mut taken = file.metadata().expect("it is open").len();
        for piece in [64 << 20, 1 << 20, 64 << 10, 4 << 10] {
            // What the file system itself needs may end it before.
            while free() >= left_bytes + piece {
                let flags = rustix::fs::FallocateFlags::empty();
                if rustix::fs::fallocate(&file, flags, taken, piece).is_err() {
                    break;
                }
                taken += piece;
            }
        }
        path
    }

    /// Without the file system's own rescue of files that are renamed before they are synced.
    fn mount(&self) -> Result<(), String> {
        let options = ["-t", "ext4", "-o", "loop,noauto_da_alloc"];
        let mut mount = Command::new("mount");
        run(mount.args(options).arg(&self.medium).arg(&self.mounted))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed may have left users of it.
        let unmounted = run(Command::new("umount").arg("-l").arg(&self.mounted));
        drop(unmounted);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", errors.trim()))
}
