//! Keeps the results of builds under the data directory, within a bound.

use faas::Limits;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

/// A kept result, which is not removed while something holds this.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) folder: PathBuf,
}

/// The results of builds, each in a folder by its key.
#[derive(Debug)]
pub(crate) struct Cache {
    results: PathBuf,
    staging: PathBuf,
    go_build: PathBuf,
    bytes_max: u64,
    in_use: Mutex<HashMap<String, Weak<Kept>>>,
}

impl Cache {
    /// Opens the cache below `folder`; what an unfinished build left is removed.
    pub(crate) fn open(folder: &Path, build_id: Option<u32>, limits: &Limits) -> io::Result<Self> {
        let (results, staging) = (folder.join("results"), folder.join("staging"));
        let go_build = folder.join("go-build");
        let has_left = fs::read_dir(&staging).is_ok_and(|mut left| left.next().is_some());
        if has_left && let Err(error) = fs::remove_dir_all(&staging) {
            // A read-only disk does not keep functions that are built from being served.
            tracing::warn!(%error, "what an unfinished build left could not be removed");
        }
        for path in [&results, &staging, &go_build] {
            fs::create_dir_all(path)?;
        }
        if let Some(id) = build_id
            && fs::metadata(&go_build)?.uid() != id
        {
            chownat(
                CWD,
                &go_build,
                Some(Uid::from_raw(id)),
                Some(Gid::from_raw(id)),
                AtFlags::empty(),
            )?;
        }
        let bytes_max = limits.build_cache_bytes_max;
        Ok(Self {
            results,
            staging,
            go_build,
            bytes_max,
            in_use: Mutex::default(),
        })
    }

    /// A kept result.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Kept>> {
        let folder = self.results.join(key);
        let is_here = folder.is_dir();
        is_here.then(|| {
            // The time of the folder says when it was last used; failing to set it costs order only.
            drop(fs::File::open(&folder).and_then(|f| f.set_modified(SystemTime::now())));
            self.hold(key, folder)
        })
    }

    /// A folder for a build.
    pub(crate) fn staging(&self) -> io::Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(&self.staging)?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// What the Go compiler keeps for itself from build to build.
    pub(crate) fn go_build(&self) -> PathBuf {
        self.go_build.clone()
    }

    /// Keeps the folder `result` of a finished build, read-only for everyone.
    pub(crate) fn keep(
        &self,
        key: &str,
        staging: tempfile::TempDir,
        result: &str,
    ) -> io::Result<Arc<Kept>> {
        let built = staging.path().join(result);
        take_back(&built)?;
        let folder = self.results.join(key);
        match fs::rename(&built, &folder) {
            // Another build of the same was quicker.
            Err(_) if folder.is_dir() => {}
            renamed => renamed?,
        }
        staging.close()?;
        let kept = self.hold(key, folder);
        self.evict()?;
        Ok(kept)
    }

    fn hold(&self, key: &str, folder: PathBuf) -> Arc<Kept> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|_, kept| kept.strong_count() > 0);
        if let Some(kept) = in_use.get(key).and_then(Weak::upgrade) {
            return kept;
        }
        let kept = Arc::new(Kept { folder });
        in_use.insert(key.to_owned(), Arc::downgrade(&kept));
        kept
    }

    /// Removes the least recently used results that nothing holds until the bound is kept.
    fn evict(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.results)? {
            let entry = entry?;
            entries.push((
                entry.metadata()?.modified()?,
                entry.path(),
                size_of(&entry.path()),
            ));
        }
        let mut total: u64 = entries.iter().map(|(_, _, size)| size).sum();
        entries.sort();
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, path, size) in entries {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let is_held = in_use.get(name).is_some_and(|kept| kept.strong_count() > 0);
            if total > self.bytes_max && !is_held {
                fs::remove_dir_all(&path)?;
                total -= size;
            }
        }
        Ok(())
    }
}

/// What a folder takes on the disk, in bytes; what can't be read counts nothing.
pub(crate) fn size_of(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512))
        .sum()
}

/// Gives a folder and all in it to a user of the host.
pub(crate) fn give_to(folder: &Path, owner: u32) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry?;
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        chownat(
            CWD,
            entry.path(),
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

/// Makes what a build wrote ours, readable for everyone, with no set-user-id bits. The build has
/// ended, so nothing changes below our feet.
fn take_back(folder: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        give_to(folder, 0)?;
    }
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry?;
        if entry.file_type().is_symlink() {
            continue;
        }
        let mode = entry.metadata()?.mode();
        let is_runnable = entry.file_type().is_dir() || mode & 0o100 != 0;
        let mode = if is_runnable { 0o755 } else { 0o644 };
        chmodat(
            CWD,
            entry.path(),
            Mode::from_bits_truncate(mode),
            AtFlags::empty(),
        )?;
    }
    Ok(())
}
