//! Works on folders that untrusted code wrote: by descriptors, and never through a link.
//!
//! A path that such code could write is no path any more: each of its parts may have become a link
//! to a place of the host. So a folder is opened once, without following, and everything below it
//! is reached from its descriptor, name by name.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, fstatvfs,
    openat, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Folders within folders that are walked; a descriptor is open for each.
const DEPTH_MAX: usize = 128;

/// What an empty file counts, in bytes: it takes an inode and its place in a folder.
const ENTRY_BYTES_MIN: u64 = 4096;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a file is opened for reading: never through a link, and without waiting where it is a pipe.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// How much of a file is read at once for its digest.
const CHUNK_BYTES: usize = 128 << 10;

/// What a copy is called until it takes the place of a file with several names.
const COPY: &CStr = c".tinyfaas-copy";

/// Something in a folder.
struct Entry<'a> {
    folder: BorrowedFd<'a>,
    name: &'a CStr,
    stat: Stat,
    /// The path below the folder where the walk began.
    path: &'a [u8],
}

impl Entry<'_> {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Opens a real folder; one that a link stands for is refused.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    openat(CWD, path, FOLDER, Mode::empty()).map_err(refusal)
}

/// What opening a folder without following said, in words that name the reason.
fn refusal(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::other("it is a link or a file, not a folder"),
        error => error.into(),
    }
}

fn open_in(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    openat(folder, name, FOLDER, Mode::empty()).map_err(refusal)
}

/// The names in a folder, sorted.
fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Shows every entry below a folder, a folder before what is in it.
fn walk(
    folder: BorrowedFd<'_>,
    visit: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
) -> io::Result<()> {
    walk_below(folder, &mut Vec::new(), 0, visit)
}

fn walk_below(
    folder: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    visit: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        let text = format!("there are more than {DEPTH_MAX} folders within each other");
        return Err(io::Error::other(text));
    }
    let length = path.len();
    for name in names(folder)? {
        let stat = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away while we looked.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        path.truncate(length);
        path.push(b'/');
        path.extend(name.to_bytes());
        let entry = Entry {
            folder,
            name: &name,
            stat,
            path,
        };
        visit(&entry)?;
        if entry.kind() == FileType::Directory {
            let below = open_in(folder, &name)?;
            walk_below(below.as_fd(), path, depth + 1, visit)?;
        }
    }
    path.truncate(length);
    Ok(())
}

/// What a folder takes on the disk, in bytes. It may be written to meanwhile: what can't be read
/// counts nothing.
pub(crate) fn size_of(folder: &Path) -> u64 {
    open(folder).map_or(0, |folder| size_below(folder.as_fd(), 0))
}

fn size_below(folder: BorrowedFd<'_>, depth: usize) -> u64 {
    let names = names(folder).unwrap_or_default();
    let sizes = names.iter().filter_map(|name| {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let below = (is_folder && depth < DEPTH_MAX).then(|| open_in(folder, name).ok());
        let below = below.flatten();
        let below = below.map_or(0, |below| size_below(below.as_fd(), depth + 1));
        Some(size(&stat) + below)
    });
    sizes.sum()
}

/// What an entry takes: a block at least, so that a bound of bytes is one of empty files too.
fn size(stat: &Stat) -> u64 {
    (stat.st_blocks.cast_unsigned() * 512).max(ENTRY_BYTES_MIN)
}

/// Gives a folder, and all in it, to a user of the host; links themselves, not what they point to.
pub(crate) fn give_to(folder: &Path, owner: u32) -> io::Result<()> {
    let folder = open(folder)?;
    let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    chownat(&folder, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    walk(folder.as_fd(), &mut |entry| {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(chownat(entry.folder, entry.name, uid, gid, flags)?)
    })
}

/// Makes what a build wrote ours: readable for everyone, without set-user-id bits, each file with
/// one name, nothing but folders, files and links. Returns what it takes on the disk; fails where
/// that is over `bytes_max`, or the folder is not a real one. The build must have ended.
pub(crate) fn take_over(folder: &Path, bytes_max: u64) -> io::Result<u64> {
    let owner = rustix::process::geteuid().is_root().then_some(0);
    let folder = open(folder)?;
    let mut bytes = 0;
    own(folder.as_fd(), owner, 0o755)?;
    walk(folder.as_fd(), &mut |entry| {
        bytes += size(&entry.stat);
        if bytes > bytes_max {
            let mib = bytes_max >> 20;
            return Err(io::Error::other(format!("it takes more than {mib} MiB")));
        }
        take_entry(entry, owner)
    })?;
    Ok(bytes)
}

fn take_entry(entry: &Entry<'_>, owner: Option<u32>) -> io::Result<()> {
    match entry.kind() {
        FileType::Symlink => {
            let (uid, gid) = (owner.map(Uid::from_raw), owner.map(Gid::from_raw));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(chownat(entry.folder, entry.name, uid, gid, flags)?)
        }
        FileType::Directory => own(handle(entry)?.as_fd(), owner, 0o755),
        FileType::RegularFile => {
            if entry.stat.st_nlink > 1 {
                copy_in_place(entry)?;
            }
            let is_runnable = entry.stat.st_mode & 0o100 != 0;
            let mode = if is_runnable { 0o755 } else { 0o644 };
            own(handle(entry)?.as_fd(), owner, mode)
        }
        // A pipe, a socket or a device is no result of a build.
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(unlinkat(entry.folder, entry.name, AtFlags::empty())?),
    }
}

/// The entry itself, for those who only name it: nothing is opened or run by that.
fn handle(entry: &Entry<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = openat(entry.folder, entry.name, flags, Mode::empty())?;
    let seen = fstat(&handle)?;
    if (seen.st_mode ^ entry.stat.st_mode) & 0o170_000 != 0 {
        return Err(io::Error::other("something still writes to it"));
    }
    Ok(handle)
}

fn own(handle: BorrowedFd<'_>, owner: Option<u32>, mode: u32) -> io::Result<()> {
    if let Some(owner) = owner {
        let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
        chownat(handle, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    // The only way to change the mode by a descriptor that was opened without rights, on kernels
    // before 6.6; it leads to the very inode.
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let mode = Mode::from_bits_truncate(mode);
    Ok(chmodat(CWD, path, mode, AtFlags::empty())?)
}

/// Puts a copy into the place of a file that has other names, some of which may lie elsewhere.
fn copy_in_place(entry: &Entry<'_>) -> io::Result<()> {
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut original = File::from(openat(entry.folder, entry.name, READ, Mode::empty())?);
    let mut copy = File::from(openat(entry.folder, COPY, write, Mode::from(0o600))?);
    io::copy(&mut original, &mut copy)?;
    Ok(renameat(entry.folder, COPY, entry.folder, entry.name)?)
}

/// Tells one tree from another by everything in it: names, kinds, modes, link targets and contents.
/// It reads every file, a chunk at a time.
pub(crate) fn digest_of(folder: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    walk(open(folder)?.as_fd(), &mut |entry| {
        digest.update((entry.path.len() as u64).to_be_bytes());
        digest.update(entry.path);
        digest.update(entry.stat.st_mode.to_be_bytes());
        match entry.kind() {
            FileType::RegularFile => {
                digest.update(entry.stat.st_size.to_be_bytes());
                digest_contents(entry, &mut digest, &mut chunk)?;
            }
            FileType::Symlink => {
                let target = readlinkat(entry.folder, entry.name, Vec::new())?;
                digest.update((target.as_bytes().len() as u64).to_be_bytes());
                digest.update(target.as_bytes());
            }
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
        Ok(())
    })?;
    Ok(faas::hex(&digest.finalize()))
}

fn digest_contents(entry: &Entry<'_>, digest: &mut Sha256, chunk: &mut [u8]) -> io::Result<()> {
    let mut file = File::from(openat(entry.folder, entry.name, READ, Mode::empty())?);
    loop {
        match file.read(chunk)? {
            0 => return Ok(()),
            length => digest.update(&chunk[..length]),
        }
    }
}

/// The start of a file below a folder, each part of its path reached without following links;
/// nothing where it is missing or longer than `bytes_max`.
pub(crate) fn read(folder: &Path, path: &[&CStr], bytes_max: u64) -> Option<Vec<u8>> {
    let (name, parents) = path.split_last()?;
    let mut folder = open(folder).ok()?;
    for parent in parents {
        folder = open_in(folder.as_fd(), parent).ok()?;
    }
    let file = File::from(openat(&folder, *name, READ, Mode::empty()).ok()?);
    let mut contents = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut contents).ok()?;
    (read as u64 <= bytes_max).then_some(contents)
}

/// Copies a tree that is ours to a new folder. Links stay what they are.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).map_err(io::Error::other)?);
        if entry.file_type().is_dir() {
            fs::create_dir(target)?;
        } else if entry.file_type().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Makes a folder that everyone can read, whatever the umask is; fine where it is there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    own(open(path)?.as_fd(), None, 0o755)
}

/// Writes a new file below a folder, in the place of a link or file that has its name.
pub(crate) fn write(folder: &Path, path: &str, contents: &[u8]) -> io::Result<()> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut folder = open(folder)?;
    for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
        folder = openat(&folder, parent, FOLDER, Mode::empty()).map_err(refusal)?;
    }
    match unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(&folder, name, flags, Mode::from(0o644))?);
    file.write_all(contents)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

/// Removes a folder or file, whatever its modes are and however deep it is; fine where it is
/// missing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match remove_plainly(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {}
        Ok(()) | Err(_) => return Ok(()),
    }
    let folder = open(path)?;
    let mut moved = 0;
    own(folder.as_fd(), None, 0o700)?;
    loop {
        let before = moved;
        flatten(folder.as_fd(), folder.as_fd(), 0, &mut moved)?;
        if moved == before {
            return remove_plainly(path);
        }
    }
}

fn remove_plainly(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Opens every folder to its owner, and moves those that lie too deep to the top.
fn flatten(
    folder: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut usize,
) -> io::Result<()> {
    for name in names(folder)? {
        let stat = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        let entry = Entry {
            folder,
            name: &name,
            stat,
            path: b"",
        };
        own(handle(&entry)?.as_fd(), None, 0o700)?;
        if depth < DEPTH_MAX / 2 {
            flatten(open_in(folder, &name)?.as_fd(), top, depth + 1, moved)?;
        } else {
            *moved += 1;
            renameat(folder, &name, top, format!(".tinyfaas-deep-{moved}"))?;
        }
    }
    Ok(())
}

/// Returns when everything on the file system of this folder is on the disk. With thousands of
/// files this is far quicker than syncing each.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(open(folder)?)?)
}

/// Returns when the names in this folder are on the disk.
pub(crate) fn sync_names(folder: &Path) -> io::Result<()> {
    File::from(open(folder)?).sync_all()
}

/// What is free on the disk of this folder, for whoever tinyFaaS is.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = fstatvfs(open(folder)?)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests;
