//! Compiled code in memory, where the disk has no room for it.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory that compiled code may take.
#[derive(Debug)]
pub(super) struct Room {
    bytes_max: u64,
    taken: Arc<AtomicU64>,
}

/// A file that lies in memory and is never changed again. Code that is mapped from it shares its
/// memory.
#[derive(Debug)]
pub(super) struct InMemory {
    file: File,
    bytes: u64,
    taken: Arc<AtomicU64>,
}

impl Room {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            taken: Arc::default(),
        }
    }

    /// What is free. One at a time may take of it.
    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes_max
            .saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    pub(super) fn bytes_taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Holds a file of [`file()`] whose content is whole.
    pub(super) fn hold(&self, file: File) -> io::Result<InMemory> {
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        let bytes = file.metadata()?.len();
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(InMemory {
            file,
            bytes,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl InMemory {
    /// Where it can be opened by this process.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    pub(super) fn copy_to(&self, mut file: &File) -> io::Result<()> {
        let mut own = &self.file;
        own.seek(SeekFrom::Start(0))?;
        io::copy(&mut own, &mut file).map(drop)
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A new file in memory, never to be executed as a program.
pub(super) fn file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let name = c"compiled-webassembly";
    let made = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    Ok(made?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_held_counts_until_it_is_dropped_and_never_changes() {
        let room = Room::new(100);
        let mut file = file().unwrap();
        file.write_all(&[7; 60]).unwrap();
        let held = room.hold(file.try_clone().unwrap()).unwrap();
        assert_eq!((room.bytes_left(), room.bytes_taken()), (40, 60));
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(std::fs::read(held.path()).unwrap(), [7; 60]);
        drop(held);
        assert_eq!(room.bytes_left(), 100);
    }
}
