//! From what a client sent to a folder of code: unpack, validate, digest.
//!
//! A bare WebAssembly module counts as an archive of one file.
//!
//! Nothing is believed: paths are parsed, bytes are counted as they come out, links are made last,
//! each once it was followed through what the archive has.

mod digest;
mod error;
mod kind;
mod link;
mod path;
mod tarball;
mod tree;
mod zipped;

pub(crate) use digest::summarize;
pub use error::ArchiveError;
pub(crate) use tree::Unpacked;

use bytes::Bytes;
use faas::Limits;
use path::Named;
use std::borrow::Cow;
use std::path::Path;
use tree::Tree;
use walkdir::WalkDir;

/// A file of a function's code.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path below the function's folder, with `/` between segments.
    pub path: String,
    /// What is in it.
    pub contents: Cow<'static, [u8]>,
    /// Whether it can be run.
    pub is_executable: bool,
}

/// What a bare WebAssembly module is called in the function's folder.
const MODULE_FILE: &str = "fn.wasm";

/// Unpacks a zip, a tar.gz or a bare WebAssembly module, told apart by its first bytes, into a new folder below `tmp`.
///
/// `subfolder` picks a folder inside the archive as the function's; the folder that holds all
/// others, if there is one, need not be named. Takes long: not for the event loop.
pub(crate) fn unpack(
    archive: &Bytes,
    subfolder: Option<&str>,
    tmp: &Path,
    limits: &Limits,
) -> Result<Unpacked, ArchiveError> {
    if archive.len() as u64 > limits.archive_packed_bytes_max {
        let bytes_max = limits.archive_packed_bytes_max;
        return Err(ArchiveError::PackedTooLarge { bytes_max });
    }
    let mut tree = Tree::new(tmp, limits, Some(archive.len() as u64))?;
    match archive.as_ref() {
        [] => return Err(ArchiveError::Empty),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => zipped::unpack(archive, &mut tree)?,
        [0x1f, 0x8b, ..] => tarball::unpack(archive, &mut tree)?,
        [0, b'a', b's', b'm', ..] => {
            if let Named::Entry(path) = path::parse(MODULE_FILE, limits)? {
                tree.add_file(&path, false, &mut archive.as_ref())?;
            }
        }
        other if other.get(257..262) == Some(b"ustar") => return Err(ArchiveError::PlainTar),
        _ => return Err(ArchiveError::NotAnArchive),
    }
    tree.finish(subfolder)
}

/// Writes files that are in memory into a new folder below `tmp`.
pub(crate) fn write(
    files: &[SourceFile],
    tmp: &Path,
    limits: &Limits,
) -> Result<Unpacked, ArchiveError> {
    let mut tree = Tree::new(tmp, limits, None)?;
    for file in files {
        if let Named::Entry(path) = path::parse(&file.path, limits)? {
            tree.add_file(&path, file.is_executable, &mut &*file.contents)?;
        }
    }
    tree.finish(None)
}

/// Copies a folder of this host, with what is in it, into a new folder below `tmp`.
pub(crate) fn copy(folder: &Path, tmp: &Path, limits: &Limits) -> Result<Unpacked, ArchiveError> {
    use std::os::unix::fs::PermissionsExt;

    let mut tree = Tree::new(tmp, limits, None)?;
    tree.keep_top_folder();
    for entry in WalkDir::new(folder).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| ArchiveError::Disk(error.into()))?;
        let below = entry.path().strip_prefix(folder);
        let name = below.ok().and_then(Path::to_str);
        let name =
            name.ok_or_else(|| ArchiveError::NameNotText(entry.path().display().to_string()));
        let Named::Entry(path) = path::parse(name?, limits)? else {
            continue;
        };
        if entry.file_type().is_dir() {
            tree.add_folder(&path)?;
        } else if entry.file_type().is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            tree.add_link(&path, &target.to_string_lossy())?;
        } else if entry.file_type().is_file() {
            let mut file = std::fs::File::open(entry.path())?;
            let mode = file.metadata()?.permissions().mode();
            tree.add_file(&path, mode & 0o111 != 0, &mut file)?;
        } else {
            return Err(ArchiveError::Special(path));
        }
    }
    tree.finish(None)
}
