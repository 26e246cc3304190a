//! Whether the disk of the data directory takes writes.

use crate::space::lacks_space;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long an answer holds: asking costs a write.
const HOLDS: Duration = Duration::from_secs(2);

/// What is written to find out; a disk with less than that is full.
const BYTES: usize = 64 << 10;

/// Finds out whether the disk takes writes, not more often than needed.
#[derive(Debug)]
pub(crate) struct Probe {
    folder: PathBuf,
    last: Mutex<Option<(Instant, Option<Unwritable>)>>,
}

/// Why nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// There is no space.
    #[error("the disk of the data directory is full")]
    Full,
    /// It is mounted read-only, which Linux also does where a disk fails.
    #[error("the disk of the data directory is read-only")]
    ReadOnly,
    /// Something else.
    #[error("the disk of the data directory takes no writes ({0})")]
    Fails(String),
}

impl Unwritable {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Full => "delete functions that are not needed, or free space on it",
            Self::ReadOnly => "mount it writable, and check it with dmesg",
            Self::Fails(_) => "check it with dmesg",
        }
    }
}

impl From<&io::Error> for Unwritable {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Fails(error.kind().to_string()),
        }
    }
}

impl Unwritable {
    /// The same, where the error says that the disk is full or read-only.
    pub(crate) fn from_lack_of_space(error: &io::Error) -> Option<Self> {
        lacks_space(error).then(|| Self::from(error))
    }
}

impl Probe {
    /// A probe that writes below `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            last: Mutex::new(None),
        }
    }

    /// Why nothing can be written; none where writes go well.
    pub(crate) async fn failure(&self) -> Option<Unwritable> {
        let mut last = self.last.lock().await;
        if let Some((asked, failure)) = &*last
            && asked.elapsed() < HOLDS
        {
            return failure.clone();
        }
        let folder = self.folder.clone();
        let tried = tokio::task::spawn_blocking(move || write(&folder)).await;
        let failure = match tried {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Unwritable::from(&error)),
            Err(panicked) => Some(Unwritable::Fails(panicked.to_string())),
        };
        *last = Some((Instant::now(), failure.clone()));
        failure
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join("probe");
    let written = fs::write(&path, vec![0; BYTES]);
    // Where it was not made there is nothing to remove.
    drop(fs::remove_file(&path));
    written
}
