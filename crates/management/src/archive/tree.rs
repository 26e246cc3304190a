//! The folder that code is written into.

use super::ArchiveError;
use super::digest;
use super::kind::Kind;
use super::link::{self, Astray};
use super::path::{self, Named};
use faas::Limits;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use walkdir::WalkDir;

/// From how many unpacked bytes on the ratio counts.
const RATIO_FROM_BYTES: u64 = 1 << 20;

/// Up to how many files each is synced alone; above, the file system is synced once.
const SYNCED_ALONE_MAX: usize = 64;

/// Code that was unpacked and checked and is on the disk; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The function's folder, inside `folder`.
    pub(crate) root: PathBuf,
    /// The digest of paths, modes and contents, in hexadecimal.
    pub(crate) digest: String,
    /// How many files and links there are.
    pub(crate) files: u64,
    /// What the files take, in bytes.
    pub(crate) unpacked_bytes: u64,
    /// Removes everything when dropped.
    _folder: TempDir,
}

/// A folder that is being filled.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    folder: TempDir,
    root: PathBuf,
    limits: &'a Limits,
    packed_bytes: Option<u64>,
    unpacked_bytes: u64,
    entries_counted: usize,
    entries: BTreeMap<String, Kind>,
    keeps_top_folder: bool,
}

impl<'a> Tree<'a> {
    /// An empty folder below `tmp`. `packed_bytes` is what the code took as an archive.
    pub(crate) fn new(
        tmp: &Path,
        limits: &'a Limits,
        packed_bytes: Option<u64>,
    ) -> Result<Self, ArchiveError> {
        let folder = tempfile::Builder::new().prefix("code-").tempdir_in(tmp)?;
        let root = folder.path().join("unpacked");
        fs::create_dir(&root)?;
        Ok(Self {
            folder,
            root,
            limits,
            packed_bytes,
            unpacked_bytes: 0,
            entries_counted: 0,
            entries: BTreeMap::new(),
            keeps_top_folder: false,
        })
    }

    /// The bounds that hold here.
    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Lets a folder that holds everything be a folder of the function.
    pub(crate) fn keep_top_folder(&mut self) {
        self.keeps_top_folder = true;
    }

    /// How many bytes may come out before the ratio is over its bound.
    pub(crate) fn ratio_bytes_max(&self) -> u64 {
        let packed = self.packed_bytes.unwrap_or(u64::MAX);
        let by_ratio = packed.saturating_mul(self.limits.archive_ratio_max);
        by_ratio.max(RATIO_FROM_BYTES)
    }

    /// Counts an entry of an archive, also one that is passed over.
    pub(crate) fn count_entry(&mut self) -> Result<(), ArchiveError> {
        self.entries_counted += 1;
        self.check_count(self.entries_counted)
    }

    /// Adds a folder; one that is there already is fine.
    pub(crate) fn add_folder(&mut self, path: &str) -> Result<(), ArchiveError> {
        self.add_parents(path)?;
        match self.entries.insert(path.to_owned(), Kind::Folder) {
            None => {
                fs::create_dir(self.root.join(path))?;
                self.check_count(self.entries.len())
            }
            Some(Kind::Folder) => Ok(()),
            Some(Kind::File { .. } | Kind::Link { .. }) => {
                Err(ArchiveError::Conflict(path.to_owned()))
            }
        }
    }

    /// Adds a file with what can be read from `contents`. It may be executed where its mode says so
    /// or it starts like a program: not every system and archive has modes.
    pub(crate) fn add_file(
        &mut self,
        path: &str,
        is_executable: bool,
        contents: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        let mut start = Vec::new();
        let read = contents.take(PROGRAM_START_BYTES).read_to_end(&mut start);
        read.map_err(|error| ArchiveError::Damaged(error.to_string()))?;
        let is_executable = is_executable || starts_like_a_program(&start);
        let contents = &mut start.chain(contents);
        self.add_entry(path, Kind::File { is_executable })?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        let options = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .clone();
        let mut file = options.open(self.root.join(path))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match contents.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::Damaged(error.to_string())),
            };
            self.count_bytes(read as u64)?;
            file.write_all(&buffer[..read])?;
        }
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Adds a copy of a file that was added before: a hard link.
    pub(crate) fn add_copy(&mut self, path: &str, of: &str) -> Result<(), ArchiveError> {
        let Some(Kind::File { is_executable }) = self.entries.get(of).cloned() else {
            let (path, target) = (path.to_owned(), of.to_owned());
            return Err(ArchiveError::LinkBroken { path, target });
        };
        let mut original = File::open(self.root.join(of))?;
        self.add_file(path, is_executable, &mut original)
    }

    /// Adds a symbolic link. It is made when everything else stands, so that nothing is ever
    /// written through it.
    pub(crate) fn add_link(&mut self, path: &str, target: &str) -> Result<(), ArchiveError> {
        if target.starts_with('/') || target.is_empty() || target.contains('\0') {
            let (path, target) = (path.to_owned(), target.to_owned());
            return Err(ArchiveError::LinkOut { path, target });
        }
        let target = target.to_owned();
        self.add_entry(path, Kind::Link { target })
    }

    /// Picks the function's folder, makes and checks the links, syncs all to the disk and takes
    /// the digest.
    pub(crate) fn finish(self, subfolder: Option<&str>) -> Result<Unpacked, ArchiveError> {
        let prefix = self.pick_folder(subfolder)?;
        let root = match prefix.as_str() {
            "" => self.root.clone(),
            prefix => self.root.join(prefix),
        };
        self.make_links(&prefix)?;
        set_folder_modes(&root)?;
        let summary = digest::summarize(&root)?;
        if summary.files == 0 {
            return Err(ArchiveError::Empty);
        }
        sync(&root, summary.files)?;
        Ok(Unpacked {
            root,
            digest: summary.digest,
            files: summary.files,
            unpacked_bytes: summary.bytes,
            _folder: self.folder,
        })
    }

    fn add_entry(&mut self, path: &str, kind: Kind) -> Result<(), ArchiveError> {
        self.add_parents(path)?;
        match self.entries.insert(path.to_owned(), kind) {
            None => self.check_count(self.entries.len()),
            Some(Kind::Folder) => Err(ArchiveError::Conflict(path.to_owned())),
            Some(Kind::File { .. } | Kind::Link { .. }) => {
                Err(ArchiveError::Twice(path.to_owned()))
            }
        }
    }

    fn add_parents(&mut self, path: &str) -> Result<(), ArchiveError> {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            match self.entries.get(parent) {
                Some(Kind::Folder) => {}
                Some(Kind::File { .. } | Kind::Link { .. }) => {
                    return Err(ArchiveError::Conflict(parent.to_owned()));
                }
                None => {
                    fs::create_dir(self.root.join(parent))?;
                    self.entries.insert(parent.to_owned(), Kind::Folder);
                    self.check_count(self.entries.len())?;
                }
            }
        }
        Ok(())
    }

    fn check_count(&self, count: usize) -> Result<(), ArchiveError> {
        let files_max = self.limits.archive_files_max;
        if count > files_max {
            return Err(ArchiveError::TooManyFiles { files_max });
        }
        Ok(())
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.unpacked_bytes += bytes;
        if self.unpacked_bytes > self.ratio_bytes_max() {
            let ratio_max = self.limits.archive_ratio_max;
            return Err(ArchiveError::Ratio { ratio_max });
        }
        let bytes_max = self.limits.archive_unpacked_bytes_max;
        if self.unpacked_bytes > bytes_max {
            return Err(ArchiveError::UnpackedTooLarge { bytes_max });
        }
        Ok(())
    }

    /// The function's folder below the root: the one that was asked for, else the one that holds
    /// everything, else the root.
    fn pick_folder(&self, subfolder: Option<&str>) -> Result<String, ArchiveError> {
        let top = self.top_folder();
        let Some(asked) = subfolder else {
            let is_kept = self.keeps_top_folder;
            return Ok(top.filter(|_| !is_kept).unwrap_or_default());
        };
        let asked = asked.trim_matches('/');
        let Named::Entry(asked) = path::parse(asked, self.limits)? else {
            return Ok(top.unwrap_or_default());
        };
        let below_top = top.map(|top| format!("{top}/{asked}"));
        let mut candidates = below_top.into_iter().chain([asked.clone()]);
        let found = candidates.find(|path| self.entries.get(path) == Some(&Kind::Folder));
        found.ok_or(ArchiveError::NoSubfolder(asked))
    }

    fn top_folder(&self) -> Option<String> {
        let mut tops = self.entries.iter().filter(|(path, _)| !path.contains('/'));
        match (tops.next(), tops.next()) {
            (Some((path, Kind::Folder)), None) => Some(path.clone()),
            (Some(_) | None, _) => None,
        }
    }

    /// Checks every link of the function's folder, then makes it.
    fn make_links(&self, prefix: &str) -> Result<(), ArchiveError> {
        let inside = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        for (path, kind) in &self.entries {
            let Kind::Link { target } = kind else {
                continue;
            };
            if !path.starts_with(&inside) {
                continue;
            }
            link::follow(&self.entries, &inside, path).map_err(|astray| {
                let (path, target) = (path.clone(), target.clone());
                match astray {
                    Astray::Out => ArchiveError::LinkOut { path, target },
                    Astray::Nowhere => ArchiveError::LinkBroken { path, target },
                }
            })?;
            std::os::unix::fs::symlink(target, self.root.join(path))?;
        }
        Ok(())
    }
}

/// As much of a file as tells whether it is a program.
const PROGRAM_START_BYTES: u64 = 4;

/// Whether a file that starts so can be run: a script or an ELF binary.
fn starts_like_a_program(start: &[u8]) -> bool {
    start.starts_with(b"#!") || start.starts_with(b"\x7fELF")
}

/// Gives every folder its mode: the umask may have taken bits away.
fn set_folder_modes(root: &Path) -> Result<(), ArchiveError> {
    for entry in WalkDir::new(root) {
        let entry = entry.map_err(|error| ArchiveError::Disk(error.into()))?;
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Returns when the tree is on the disk.
fn sync(root: &Path, files: u64) -> io::Result<()> {
    if files > SYNCED_ALONE_MAX as u64 {
        return Ok(rustix::fs::syncfs(File::open(root)?)?);
    }
    for entry in WalkDir::new(root).contents_first(true) {
        let entry = entry?;
        if !entry.file_type().is_symlink() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}
