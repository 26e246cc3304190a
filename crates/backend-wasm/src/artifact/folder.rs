//! The folder of compiled code, each file beside its checksum.

use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use tempfile::NamedTempFile;

/// The extension of the file beside compiled code that has its SHA-256.
const SUM: &str = "sha256";

/// What may lie in the folder, and what of it is spared where space is short.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    bounds: Bounds,
    /// What tells this engine's code from that of another version or processor.
    compatibility: String,
    opened: Instant,
    claims: Mutex<Claims>,
}

/// How much is kept, and for how long after a start what nothing has asked for yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes_max: u64,
    pub(super) free_bytes_min: u64,
    pub(super) spared_after_start: Duration,
}

#[derive(Debug, Default)]
struct Claims {
    /// Files that were there at the start and that nothing has asked for since.
    unclaimed: HashSet<String>,
    in_use: HashMap<String, Weak<Kept>>,
}

/// A file of the folder by its name, which is not dropped while something holds this.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
}

impl Folder {
    /// Opens the folder and drops what another version of the engine left there. Where it can't be
    /// used, as on a read-only disk, nothing is kept.
    pub(super) fn open(path: PathBuf, compatibility: String, bounds: Bounds) -> Self {
        let folder = Self {
            path,
            bounds,
            compatibility,
            opened: Instant::now(),
            claims: Mutex::default(),
        };
        if let Err(error) = folder.look_through() {
            let path = folder.path.display();
            tracing::warn!(
                %error, %path, fix = "make it a writable folder",
                "the folder for compiled WebAssembly can't be used"
            );
        }
        folder
    }

    fn look_through(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if !self.is_ours(&path) {
                remove(&path);
            } else if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                self.claims().unclaimed.insert(name.to_owned());
            }
        }
        Ok(())
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of what is compiled from a module of this digest.
    pub(super) fn name(&self, module: &[u8], extension: &str) -> String {
        let digest = faas::hex(&Sha256::digest(module));
        format!("{digest}-{}.{extension}", self.compatibility)
    }

    /// Claims a name, whether there is such a file or not: what has it is spared from now on.
    pub(super) fn claim(&self, name: &str) -> Arc<Kept> {
        let mut claims = self.claims();
        claims.unclaimed.remove(name);
        if let Some(kept) = claims.in_use.get(name).and_then(Weak::upgrade) {
            return kept;
        }
        claims.in_use.retain(|_, kept| kept.strong_count() > 0);
        let path = self.path.join(name);
        let kept = Arc::new(Kept { path });
        claims.in_use.insert(name.to_owned(), Arc::downgrade(&kept));
        kept
    }

    fn is_spared(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        let claims = self.claims();
        let is_new = self.opened.elapsed() < self.bounds.spared_after_start;
        let in_use = claims.in_use.get(name);
        in_use.is_some_and(|kept| kept.strong_count() > 0)
            || (is_new && claims.unclaimed.contains(name))
    }

    /// Whether it is a file that this engine compiled, or the checksum of one.
    fn is_ours(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.split('.').next());
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        is_file && stem.is_some_and(|stem| stem.ends_with(&self.compatibility))
    }

    /// A file in the folder without a name that lasts.
    pub(super) fn temporary(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(&self.path)
    }

    /// Keeps a compiled file and its checksum, both whole and on the disk before they have their
    /// names.
    pub(super) fn keep(&self, path: &Path, compiled: NamedTempFile) -> io::Result<()> {
        let sum = checksum(compiled.path())?;
        compiled.as_file().sync_all()?;
        let sum_file = self.temporary()?;
        fs::write(sum_file.path(), sum)?;
        sum_file.as_file().sync_all()?;
        // The file that is there now differs from its checksum, or is not a regular file.
        remove(&sum_path(path));
        remove(path);
        compiled.persist(path)?;
        sum_file.persist(sum_path(path))?;
        File::open(&self.path)?.sync_all()
    }

    /// Drops the oldest files where there are too many bytes, or too few are left on the disk, but
    /// none that a function uses. Tells whether there is room for another.
    pub(super) fn make_room(&self) -> io::Result<bool> {
        let mut files = self.files()?;
        files.sort_by_key(|(_, metadata)| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        let mut bytes: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
        for (old, metadata) in files {
            if bytes <= self.bounds.bytes_max && self.has_room()? {
                break;
            }
            if !self.is_spared(&old) {
                remove(&sum_path(&old));
                remove(&old);
                bytes = bytes.saturating_sub(metadata.len());
            }
        }
        self.has_room()
    }

    fn has_room(&self) -> io::Result<bool> {
        let disk = rustix::fs::statvfs(&self.path)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(free_bytes >= self.bounds.free_bytes_min)
    }

    /// The compiled files, without their checksums.
    fn files(&self) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let path = entry.path();
            let is_sum = path.extension().is_some_and(|extension| extension == SUM);
            if metadata.is_file() && !is_sum {
                files.push((path, metadata));
            }
        }
        Ok(files)
    }
}

/// Whether there is a file at the path whose content is what was compiled. One that was damaged
/// since is passed over.
pub(super) fn is_whole(path: &Path) -> bool {
    let Ok(expected) = fs::read_to_string(sum_path(path)) else {
        return false;
    };
    let is_whole = checksum(path).is_ok_and(|found| found == expected);
    if !is_whole {
        tracing::warn!(path = %path.display(), "kept code is damaged; it is compiled again");
    }
    is_whole
}

/// Notes that a file was used now: its time says when that was last. Failing to set it costs order
/// only.
pub(super) fn touch(path: &Path) {
    drop(File::open(path).and_then(|file| file.set_modified(SystemTime::now())));
}

fn sum_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUM);
    name.into()
}

fn checksum(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut chunk)? {
            0 => return Ok(faas::hex(&digest.finalize())),
            len => digest.update(&chunk[..len]),
        }
    }
}

/// Removes what is in the way, whatever it is. Where that fails, it stays and is passed over.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_gone) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "could not be removed from the folder of compiled WebAssembly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Bounds = Bounds {
        bytes_max: u64::MAX,
        free_bytes_min: 0,
        spared_after_start: Duration::ZERO,
    };

    fn open(path: &Path, bounds: Bounds) -> Folder {
        Folder::open(path.to_owned(), "0".to_owned(), bounds)
    }

    fn keep(folder: &Folder, name: &str) {
        let compiled = folder.temporary().unwrap();
        fs::write(compiled.path(), b"12345").unwrap();
        folder.keep(&folder.path.join(name), compiled).unwrap();
    }

    fn names(folder: &Folder) -> Vec<String> {
        let files = folder.files().unwrap().into_iter();
        let name = |(path, _): (PathBuf, _)| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = files.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_code_goes_where_there_is_too_much() {
        let place = tempfile::tempdir().unwrap();
        let bytes_max = 10;
        let folder = open(place.path(), Bounds { bytes_max, ..ROOMY });
        for name in ["a-0.module", "b-0.module", "c-0.module"] {
            keep(&folder, name);
            assert!(folder.make_room().unwrap());
        }
        assert_eq!(names(&folder), ["b-0.module", "c-0.module"]);
        let count = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(count, 4, "a checksum each");
    }

    #[test]
    fn code_that_a_function_uses_stays_where_the_disk_is_full() {
        let place = tempfile::tempdir().unwrap();
        let free_bytes_min = u64::MAX;
        let bounds = Bounds {
            free_bytes_min,
            ..ROOMY
        };
        let folder = open(place.path(), bounds);
        let used = folder.claim("used-0.module");
        for name in ["used-0.module", "unused-0.module"] {
            keep(&folder, name);
        }
        assert!(!folder.make_room().unwrap(), "the disk counts as full");
        assert_eq!(names(&folder), ["used-0.module"]);
        drop(used);
        assert!(!folder.make_room().unwrap());
        assert!(names(&folder).is_empty(), "nothing uses it any more");
    }

    #[test]
    fn code_of_functions_that_are_not_yet_back_is_spared_after_a_start() {
        let place = tempfile::tempdir().unwrap();
        keep(&open(place.path(), ROOMY), "a-0.module");
        let full = |spared_after_start| Bounds {
            free_bytes_min: u64::MAX,
            spared_after_start,
            ..ROOMY
        };
        let folder = open(place.path(), full(Duration::from_secs(3600)));
        folder.make_room().unwrap();
        assert_eq!(names(&folder), ["a-0.module"]);
        let folder = open(place.path(), full(Duration::ZERO));
        folder.make_room().unwrap();
        assert!(names(&folder).is_empty());
    }
}
