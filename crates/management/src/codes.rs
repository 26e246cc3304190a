//! The folders of code: each named by its digest, kept as long as someone refers to it.

use crate::archive::{self, Unpacked};
use crate::space;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::TaskTracker;

/// The folders of code below the data directory.
#[derive(Debug)]
pub(crate) struct Codes {
    folder: PathBuf,
    tmp: PathBuf,
    /// How many refer to each folder. Held while a folder appears or goes.
    references: Mutex<HashMap<String, usize>>,
    removals: TaskTracker,
    removed: AtomicU64,
}

/// Removes what is in a folder; the folder stays, as a full disk has no room for another.
fn empty(folder: &Path) -> io::Result<()> {
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir());
    if !is_folder {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Refers to a folder of code. Dropping the last reference removes the folder, except where the
/// store refers to it: that outlives this process.
#[derive(Debug)]
pub(crate) struct Code {
    codes: Arc<Codes>,
    digest: String,
    is_stored: AtomicBool,
}

impl Codes {
    /// Makes the folders and empties the one for temporary files. Removals run in `removals`.
    pub(crate) fn open(data_dir: &Path, removals: TaskTracker) -> io::Result<Arc<Self>> {
        let (folder, tmp) = (data_dir.join("code"), data_dir.join("tmp"));
        if let Err(error) = empty(&tmp) {
            tracing::warn!(%error, "could not empty the folder for temporary files");
        }
        for path in [&folder, &tmp] {
            let mut builder = fs::DirBuilder::new();
            match builder.recursive(true).mode(0o700).create(path) {
                // What is served now lies elsewhere, or nothing is.
                Err(error) if space::lacks_space(&error) => {}
                made => made?,
            }
        }
        Ok(Arc::new(Self {
            folder,
            tmp,
            references: Mutex::default(),
            removals,
            removed: AtomicU64::new(0),
        }))
    }

    /// Where temporary files go, on the same file system.
    pub(crate) fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// Refers to a folder that the store refers to.
    pub(crate) fn refer(self: &Arc<Self>, digest: &str) -> Code {
        let mut references = self.lock();
        *references.entry(digest.to_owned()).or_default() += 1;
        Code {
            codes: Arc::clone(self),
            digest: digest.to_owned(),
            is_stored: AtomicBool::new(true),
        }
    }

    /// Moves unpacked code to its place, unless the same is there and unharmed. Blocks on the disk.
    pub(crate) fn adopt(self: &Arc<Self>, unpacked: &Unpacked) -> io::Result<Code> {
        // Referred to first, so that nobody removes what is looked at without the lock.
        let code = self.refer(&unpacked.digest);
        code.set_forgotten();
        let place = code.path();
        let was_there = place.exists();
        if was_there && code.is_unharmed() {
            return Ok(code);
        }
        let moving = self.lock();
        if was_there {
            tracing::warn!(digest = code.digest, "replaces damaged code");
            replace(&unpacked.root, &place)?;
        } else if !place.exists() {
            fs::rename(&unpacked.root, &place)?;
        }
        File::open(&self.folder)?.sync_all()?;
        drop(moving);
        Ok(code)
    }

    /// Whether there is a folder of that digest.
    pub(crate) fn has(&self, digest: &str) -> bool {
        self.folder.join(digest).is_dir()
    }

    /// Removes the folders that nobody refers to, which a crash may have left. Blocks.
    pub(crate) fn remove_unreferenced(&self) {
        for path in self.unreferenced() {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(%error, path = %path.display(), "could not remove unused code");
            }
        }
    }

    /// Moves the folders that nobody refers to aside: they may be all that is left of functions
    /// which the store has lost. Blocks.
    pub(crate) fn set_unreferenced_aside(&self, aside: &Path) {
        let lost = self.unreferenced();
        if lost.is_empty() {
            return;
        }
        let count = lost.len();
        let moved = fs::create_dir_all(aside).and_then(|()| {
            lost.iter().try_for_each(|path| {
                let name = path.file_name().unwrap_or_default();
                fs::rename(path, aside.join(name))
            })
        });
        match moved {
            Ok(()) => tracing::error!(
                folders = count,
                path = %aside.display(),
                "the store tells nothing of code that is here; it was set aside: deploy it again \
                 from there, or remove it"
            ),
            Err(error) => tracing::warn!(%error, "code of unknown functions stays where it is"),
        }
    }

    fn unreferenced(&self) -> Vec<PathBuf> {
        let references = self.lock();
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let is_unknown = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            !name
                .to_str()
                .is_some_and(|name| references.contains_key(name))
        };
        let unknown = entries.flatten().filter(is_unknown);
        unknown.map(|entry| entry.path()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.references
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, digest: &str) {
        let mut references = self.lock();
        let Some(count) = references.get_mut(digest) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        references.remove(digest);
        // Out of its place at once, so that the same code can come again; the work comes after.
        let number = self.removed.fetch_add(1, Ordering::Relaxed);
        let removed = self.tmp.join(format!("removed-{number}"));
        if let Err(error) = fs::rename(self.folder.join(digest), &removed) {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, digest, "could not remove code that is no longer used");
            }
            return;
        }
        drop(references);
        let remove = move || {
            if let Err(error) = fs::remove_dir_all(&removed) {
                tracing::warn!(%error, "could not remove code that is no longer used");
            }
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            // The tracker is what waits for it.
            drop(self.removals.spawn_blocking(remove));
        } else {
            remove();
        }
    }
}

impl Code {
    /// The folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.codes.folder.join(&self.digest)
    }

    /// The digest, which is the folder's name.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether the folder is there and is what its digest says. Reads all of it: not for the event
    /// loop.
    pub(crate) fn is_unharmed(&self) -> bool {
        archive::summarize(&self.path()).is_ok_and(|summary| summary.digest == self.digest)
    }

    /// Says that the store refers to the folder from now on, or may.
    pub(crate) fn set_stored(&self) {
        self.is_stored.store(true, Ordering::SeqCst);
    }

    /// Says that the store surely does not refer to the folder any more.
    pub(crate) fn set_forgotten(&self) {
        self.is_stored.store(false, Ordering::SeqCst);
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if !self.is_stored.load(Ordering::SeqCst) {
            self.codes.release(&self.digest);
        }
    }
}

/// Puts `new` where `old` is, which goes where `new` was; whoever looks finds one of them.
fn replace(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let swapped = renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE);
    if swapped.is_ok() {
        return Ok(());
    }
    // Not every file system can swap.
    let aside = new.with_extension("damaged");
    fs::rename(old, aside)?;
    fs::rename(new, old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_folder_for_temporary_files_is_emptied_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Codes::open(dir.path(), TaskTracker::new()).unwrap();
        let tmp = open().tmp().to_owned();
        let inode = || fs::metadata(&tmp).unwrap().ino();
        let before = inode();
        fs::create_dir_all(tmp.join("removed-1/deep")).unwrap();
        fs::write(tmp.join("probe"), "x").unwrap();
        drop(open());
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
        // On a full disk another could not be made.
        assert_eq!(inode(), before);
    }
}
