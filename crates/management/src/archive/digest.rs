//! The digest of a folder of code, by which it is known, and whether a folder still has it.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use walkdir::WalkDir;

/// What a folder of code amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The digest of paths, modes and contents, in hexadecimal.
    pub(crate) digest: String,
    /// How many files and links there are.
    pub(crate) files: u64,
    /// What the files take, in bytes.
    pub(crate) bytes: u64,
}

/// Reads a folder, in the order of paths. Takes long: not for the event loop.
///
/// # Errors
/// If something in it can't be read.
pub(crate) fn summarize(root: &Path) -> io::Result<Summary> {
    let (mut hash, mut files, mut bytes) = (Sha256::new(), 0, 0);
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let name = path.as_os_str().as_bytes();
        if entry.file_type().is_dir() {
            head(&mut hash, b'd', name, 0);
        } else if entry.file_type().is_symlink() {
            let target = fs::read_link(entry.path())?;
            head(&mut hash, b'l', name, target.as_os_str().len() as u64);
            hash.update(target.as_os_str().as_bytes());
            files += 1;
        } else {
            let mut file = File::open(entry.path())?;
            let metadata = file.metadata()?;
            let is_executable = metadata.permissions().mode() & 0o111 != 0;
            let kind = if is_executable { b'x' } else { b'f' };
            head(&mut hash, kind, name, metadata.len());
            io::copy(&mut file, &mut Hashing(&mut hash))?;
            files += 1;
            bytes += metadata.len();
        }
    }
    let mut digest = String::new();
    for byte in hash.finalize() {
        // Writing to a string can't fail.
        let _infallible = write!(digest, "{byte:02x}").is_ok();
    }
    Ok(Summary {
        digest,
        files,
        bytes,
    })
}

fn head(hash: &mut Sha256, kind: u8, name: &[u8], bytes: u64) {
    hash.update([kind]);
    hash.update((name.len() as u64).to_be_bytes());
    hash.update(name);
    hash.update(bytes.to_be_bytes());
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
