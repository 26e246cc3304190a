//! The files of a SQLite database: their modes, and setting a damaged one aside.

use crate::data_dir;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What SQLite keeps beside the file.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Makes the file where it is missing. What SQLite keeps beside it gets the same mode; what an
/// earlier version left is changed.
pub(super) fn close_to_others(path: &Path) -> io::Result<()> {
    data_dir::open_private(path)?;
    for beside in BESIDE.map(|suffix| with_suffix(path, suffix)) {
        if beside.exists() {
            data_dir::open_private(&beside)?;
        }
    }
    Ok(())
}

/// Renames the file and what lies beside it. Returns the new name of the file.
pub(super) fn set_aside(path: &Path, stamp: &str) -> io::Result<PathBuf> {
    let aside = with_suffix(path, &format!(".damaged-{stamp}"));
    fs::rename(path, &aside)?;
    for suffix in BESIDE {
        let beside = with_suffix(path, suffix);
        if beside.exists() {
            fs::rename(beside, with_suffix(&aside, suffix))?;
        }
    }
    Ok(aside)
}

/// Copies the file, and its journal, to a folder that can be written.
pub(super) fn copy(path: &Path, folder: &Path) -> io::Result<PathBuf> {
    let copied = folder.join("store.db");
    fs::copy(path, &copied)?;
    let journal = with_suffix(path, "-wal");
    if journal.exists() {
        fs::copy(journal, with_suffix(&copied, "-wal"))?;
    }
    Ok(copied)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
