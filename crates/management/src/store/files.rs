//! The files of a SQLite database: their modes, and setting a damaged one aside.

use crate::data_dir;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::macros::format_description;

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

/// Gives another name to what can't be used where it lies, such as a folder in the place of a file.
/// Where that fails, as on a read-only disk, whoever opens the path says why it can't.
pub(super) fn clear_the_way(path: &Path, is_usable: fn(&Metadata) -> bool) {
    let is_in_the_way = fs::metadata(path).is_ok_and(|found| !is_usable(&found));
    if !is_in_the_way {
        return;
    }
    match set_aside(path) {
        Ok(aside) => tracing::error!(
            path = %path.display(),
            set_aside = %aside.display(),
            "something else lay in its place and was set aside"
        ),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "something else lies in its place")
        }
    }
}

/// As [`clear_the_way`], for the file and what SQLite keeps beside it.
pub(super) fn clear_the_way_of_database(path: &Path) {
    clear_the_way(path, Metadata::is_file);
    for beside in BESIDE.map(|suffix| with_suffix(path, suffix)) {
        clear_the_way(&beside, Metadata::is_file);
    }
}

/// Renames the file and what lies beside it. Returns the new name of the file.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = OffsetDateTime::now_utc();
    let format = format_description!("[year][month][day]T[hour][minute][second]");
    let stamp = now.format(format).unwrap_or_default();
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
