//! Space that is kept for the changes that make room on a full disk.

use crate::data_dir;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// A file that takes space until it is needed.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_filled: bool,
}

impl Reserve {
    /// Reserves space, where there is some.
    pub(super) fn open(path: PathBuf, bytes: u64) -> Self {
        let mut reserve = Self {
            path,
            bytes,
            is_filled: false,
        };
        reserve.refill();
        reserve
    }

    /// Takes the space where it was given away.
    pub(super) fn refill(&mut self) {
        if self.is_filled {
            return;
        }
        self.is_filled = self.take().is_ok();
        if !self.is_filled {
            // A part of it would be missing elsewhere and help nobody.
            self.release();
        }
    }

    /// Gives the space away.
    pub(super) fn release(&mut self) {
        self.is_filled = false;
        // What is not there takes no space.
        drop(fs::remove_file(&self.path));
    }

    fn take(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes) {
            return Ok(());
        }
        let mut file = data_dir::open_private(&self.path)?;
        file.set_len(0)?;
        let flags = rustix::fs::FallocateFlags::empty();
        if rustix::fs::fallocate(&file, flags, 0, self.bytes).is_ok() {
            return Ok(());
        }
        // Not every file system can set space aside.
        let zeros = [0; 4096];
        let mut left = self.bytes;
        while left > 0 {
            let piece = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all(&zeros[..piece])?;
            left -= piece as u64;
        }
        file.sync_all()
    }
}
