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
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(medium))?;
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

    /// Mounts the disk again as after a start of the machine, once nothing uses it any more.
    ///
    /// # Panics
    /// If it stays in use, or can't be mounted.
    pub fn start_again(&self) {
        until("the disk is not used any more", || {
            run(Command::new("umount").arg(&self.mounted)).ok()?;
            self.mount().expect("it was mounted before");
            // The sandboxes of other nodes on this machine hold every mount for a moment; while one
            // does, this is the file system that was shut down.
            let probe = self.mounted.join("probe");
            let is_alive = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
            is_alive.ok()
        });
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
