//! Keeps the results of builds under the data directory, within bounds.
//!
//! A result is a folder `kept/KEY` with what was built (`tree`) and what is known of it
//! (`entry.json`). It gets its name when all of it is on the disk, so that a power cut leaves a
//! whole result or none.

use crate::tree;
use faas::Limits;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Instant, SystemTime};

/// What earlier versions kept, with less care: what is in there may have been changed by a build.
const OF_EARLIER_VERSIONS: [&str; 2] = ["results", "go-build"];

/// The name of a result's folder within its entry.
const TREE: &str = "tree";
/// What is known of a result.
const ENTRY: &str = "entry.json";

/// A kept result, which is not removed while something holds this.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What was built.
    pub(crate) folder: PathBuf,
    /// What whoever deploys the function should know of the build.
    pub(crate) notes: Vec<String>,
}

/// What is known of a kept result.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// See [`tree::digest_of`].
    digest: String,
    /// What it takes on the disk.
    bytes: u64,
    notes: Vec<String>,
}

/// The results of builds, each in a folder by its key.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: PathBuf,
    staging: PathBuf,
    go: PathBuf,
    limits: Arc<Limits>,
    state: Arc<Mutex<State>>,
    /// Held while a kept result is read.
    verifying: Mutex<()>,
    next: AtomicU64,
    opened: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Results that were there at the start, and that nothing has asked for since.
    unclaimed: HashSet<String>,
    in_use: HashMap<String, Weak<Kept>>,
    /// Results that were looked at since the start and are whole.
    checked: HashSet<String>,
    /// Results that were built since the start, or that a handler has loaded since.
    proven: HashSet<String>,
    /// Folders of builds that have not ended.
    staged: HashSet<PathBuf>,
}

/// A folder for a build, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What a process that is just ending still writes is swept with the next build.
        let _removed = tree::remove(&self.path).is_ok();
        lock(&self.state).staged.remove(&self.path);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a result comes from and what is kept with it.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) key: &'a str,
    /// The folder within the build's.
    pub(crate) folder: &'a Path,
    pub(crate) notes: Vec<String>,
}

impl Cache {
    /// Opens the cache below `folder`; what an earlier version kept and what is not a kept result is
    /// removed, and what unfinished builds left is removed in the background.
    pub(crate) fn open(folder: &Path, limits: &Arc<Limits>) -> io::Result<Self> {
        let cache = Self {
            kept: folder.join("kept"),
            staging: folder.join("staging"),
            go: folder.join("go"),
            limits: Arc::clone(limits),
            state: Arc::default(),
            verifying: Mutex::default(),
            next: AtomicU64::new(1),
            opened: Instant::now(),
        };
        for earlier in OF_EARLIER_VERSIONS {
            clear(&folder.join(earlier));
        }
        for path in [&cache.kept, &cache.staging, &cache.go] {
            if !is_folder(path) {
                clear(path);
                fs::create_dir_all(path)?;
            }
        }
        cache.sweep_in_the_background()?;
        for entry in fs::read_dir(&cache.kept)? {
            let path = entry?.path();
            if !is_folder(&path.join(TREE)) || !is_folder(&path) {
                clear(&path);
            } else if let Some(key) = path.file_name().and_then(|name| name.to_str()) {
                lock(&cache.state).unclaimed.insert(key.to_owned());
            }
        }
        Ok(cache)
    }

    /// A kept result that is whole. One that is not is removed.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Kept>> {
        lock(&self.state).unclaimed.remove(key);
        if let Some(kept) = lock(&self.state).in_use.get(key).and_then(Weak::upgrade) {
            return Some(kept);
        }
        let folder = self.kept.join(key);
        if !folder.exists() {
            return None;
        }
        let Some(entry) = self.whole(key, &folder) else {
            tracing::warn!(key, "a kept build is damaged and is built again");
            self.discard(key);
            return None;
        };
        // The time of the folder says when it was last used; failing to set it costs order only.
        drop(File::open(&folder).and_then(|f| f.set_modified(SystemTime::now())));
        Some(self.hold(key, entry.notes))
    }

    /// What is known of a result whose tree is as it was when it was kept, to the last byte. It is
    /// read once after a start, before anything is served from it.
    fn whole(&self, key: &str, folder: &Path) -> Option<Entry> {
        let entry: Entry = serde_json::from_slice(&fs::read(folder.join(ENTRY)).ok()?).ok()?;
        let is_checked = lock(&self.state).checked.contains(key);
        if !is_checked {
            // One tree is read at a time, so that a start with many functions does not have each
            // wait for all disk reads at once.
            let _turn = lock(&self.verifying);
            if lock(&self.state).checked.contains(key) {
                return Some(entry);
            }
            let digest = tree::digest_of(&folder.join(TREE)).ok()?;
            if digest != entry.digest {
                return None;
            }
            lock(&self.state).checked.insert(key.to_owned());
        }
        Some(entry)
    }

    /// Whether a result was built, or loaded by a handler, since the start.
    pub(crate) fn is_proven(&self, key: &str) -> bool {
        lock(&self.state).proven.contains(key)
    }

    /// Notes that a result was loaded, or that another attempt at it makes no sense.
    pub(crate) fn prove(&self, key: &str) {
        lock(&self.state).proven.insert(key.to_owned());
    }

    /// A folder for a build.
    pub(crate) fn staging(&self) -> io::Result<Staging> {
        let path = self.unused("build");
        lock(&self.state).staged.insert(path.clone());
        let staging = Staging {
            path,
            state: Arc::clone(&self.state),
        };
        tree::make_folder(staging.path())?;
        Ok(staging)
    }

    /// A path in the folder of builds that nothing has, nor anything of an earlier run.
    fn unused(&self, what: &str) -> PathBuf {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.staging.join(format!("{what}-{number}"));
            let is_staged = lock(&self.state).staged.contains(&path);
            if !is_staged && fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// Where the compiled standard library of a Go compiler is kept, by what it depends on.
    pub(crate) fn go(&self, key: &str) -> PathBuf {
        self.go.join(key)
    }

    /// Keeps the result of a finished build, read-only for everyone. Where one of the same key is
    /// kept, it is replaced unless a handler has loaded it since the start.
    pub(crate) fn keep(&self, staging: &Staging, result: Finished<'_>) -> io::Result<Arc<Kept>> {
        let Finished { key, folder, notes } = result;
        let bytes = tree::take_over(folder, self.limits.builds.bytes_max)?;
        let made = self.unused("kept");
        lock(&self.state).staged.insert(made.clone());
        let made = Staging {
            path: made,
            state: Arc::clone(&self.state),
        };
        tree::make_folder(made.path())?;
        fs::rename(folder, made.path().join(TREE))?;
        let digest = tree::digest_of(&made.path().join(TREE))?;
        let entry = Entry {
            digest,
            bytes,
            notes,
        };
        let text = serde_json::to_vec(&entry).map_err(io::Error::from)?;
        File::create_new(made.path().join(ENTRY))?.write_all(&text)?;
        tree::sync(staging.path())?;
        let kept = self.publish(key, made.path(), entry.notes)?;
        tree::sync_names(&self.kept)?;
        Ok(kept)
    }

    /// Gives a finished entry its name. It takes the place of one that no handler has loaded.
    fn publish(&self, key: &str, made: &Path, notes: Vec<String>) -> io::Result<Arc<Kept>> {
        if self.is_proven(key)
            && let Some(kept) = self.get(key)
        {
            // Another build of the same was quicker.
            return Ok(kept);
        }
        lock(&self.state).in_use.remove(key);
        self.discard(key);
        fs::rename(made, self.kept.join(key))?;
        let mut state = lock(&self.state);
        state.checked.insert(key.to_owned());
        state.proven.insert(key.to_owned());
        drop(state);
        Ok(self.hold(key, notes))
    }

    /// Removes a result that nothing holds; a handler that has it mounted keeps it until it ends.
    fn discard(&self, key: &str) {
        let away = self.unused("old");
        lock(&self.state).checked.remove(key);
        if fs::rename(self.kept.join(key), &away).is_ok() {
            // What can't be removed now goes with the next sweep.
            let _removed = tree::remove(&away).is_ok();
        }
    }

    fn hold(&self, key: &str, notes: Vec<String>) -> Arc<Kept> {
        let mut state = lock(&self.state);
        state.in_use.retain(|_, kept| kept.strong_count() > 0);
        if let Some(kept) = state.in_use.get(key).and_then(Weak::upgrade) {
            return kept;
        }
        let folder = self.kept.join(key).join(TREE);
        let kept = Arc::new(Kept { folder, notes });
        state.in_use.insert(key.to_owned(), Arc::downgrade(&kept));
        kept
    }

    /// Whether something has the result, or a function may ask for it that is not yet back.
    fn is_held(&self, key: &str) -> bool {
        let state = lock(&self.state);
        let is_new = self.opened.elapsed() < self.limits.builds.spared_after_start;
        let held = state.in_use.get(key);
        held.is_some_and(|kept| kept.strong_count() > 0)
            || (is_new && state.unclaimed.contains(key))
    }

    /// Removes what ended builds left, then the least recently used results that nothing holds
    /// until the bounds of size and of free space are kept, and at last what the Go compiler
    /// keeps. Tells whether there is room for a build.
    pub(crate) fn make_room(&self) -> io::Result<bool> {
        self.sweep()?;
        let entries = self.by_last_use()?;
        let mut total: u64 = entries.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, key, bytes) in entries {
            let is_over = total > self.limits.builds.cache_bytes_max;
            if !is_over && self.has_room()? {
                break;
            }
            if !self.is_held(&key) {
                self.discard(&key);
                total = total.saturating_sub(bytes);
            }
        }
        let go_bytes = tree::size_of(&self.go);
        if go_bytes > self.limits.builds.go_cache_bytes_max || (go_bytes > 0 && !self.has_room()?) {
            for entry in fs::read_dir(&self.go)? {
                tree::remove(&entry?.path())?;
            }
        }
        self.has_room()
    }

    /// Whether the disk has as much free as a build needs.
    pub(crate) fn has_room(&self) -> io::Result<bool> {
        Ok(tree::free_bytes(&self.kept)? >= self.limits.builds.free_bytes_min)
    }

    /// Removes what an earlier run's builds left beside the start: it may be hundreds of thousands
    /// of files. Nothing is made for that, as the disk may be full.
    fn sweep_in_the_background(&self) -> io::Result<()> {
        let entries = fs::read_dir(&self.staging)?;
        let left: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()?;
        if left.is_empty() {
            return Ok(());
        }
        // Until then nobody else removes it.
        lock(&self.state).staged.extend(left.iter().cloned());
        let state = Arc::clone(&self.state);
        let sweep = move || {
            for path in left {
                clear(&path);
                lock(&state).staged.remove(&path);
            }
        };
        let name = "sweep-builds".to_owned();
        thread::Builder::new().name(name).spawn(sweep).map(drop)
    }

    /// Removes what lies among the builds and belongs to none.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.staging)? {
            let path = entry?.path();
            if !lock(&self.state).staged.contains(&path) {
                tree::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Every kept result with when it was last used and what it takes, the oldest first.
    fn by_last_use(&self) -> io::Result<Vec<(SystemTime, String, u64)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.kept)? {
            let entry = entry?;
            let known = fs::read(entry.path().join(ENTRY)).ok();
            let known = known.and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
            let bytes = match known {
                Some(known) => known.bytes,
                None => tree::size_of(&entry.path()),
            };
            let key = entry.file_name().to_string_lossy().into_owned();
            entries.push((entry.metadata()?.modified()?, key, bytes));
        }
        entries.sort();
        Ok(entries)
    }
}

/// Removes what is of no use; where that fails, as on a read-only disk, it stays and is not used.
fn clear(path: &Path) {
    if let Err(error) = tree::remove(path) {
        tracing::warn!(%error, path = %path.display(), "what a build left could not be removed");
    }
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests;
