//! A copy of everything that is deployed, as one file, and its way back.
//!
//! It has the manifest of each function and its code, in the layout of the data directory: from
//! these a node that starts there makes its store (see [`crate::store`]).

use crate::deployer::Deployer;
use crate::functions::Function;
use crate::store::Manifests;
use bytes::Bytes;
use faas::{FunctionName, PIECE_BYTES, Pieces};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// What a backup holds, below the data directory.
const FOLDERS: [&str; 2] = ["manifests", "code"];

/// Why a backup could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory has functions already, or a node uses it.
    #[error("{0} has functions already")]
    NotEmpty(PathBuf),
    /// The file is not what `tinyfaas backup` writes.
    #[error("the file is not a whole backup of tinyFaaS ({0})")]
    NotABackup(String),
    /// The system refused.
    #[error("the backup could not be written to the data directory")]
    Io(#[from] io::Error),
}

impl RestoreError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NotEmpty(_) => "restore into an empty data directory (--data-dir)",
            Self::NotABackup(_) => "make another one with tinyfaas backup",
            Self::Io(_) => {
                "check the owner, the mode and the space of the data directory (--data-dir)"
            }
        }
    }
}

/// A backup that is being written.
#[derive(Debug)]
pub(crate) struct Backup {
    /// A gzipped tar, piece by piece.
    pub(crate) pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Functions that are not in it, as their records or code are damaged.
    pub(crate) left_out: Vec<FunctionName>,
}

/// Writes every function as it is now. One that is deleted meanwhile is in it whole: its code is
/// held. One that is damaged does not keep the others from being copied. The turn ends when the last
/// piece was taken.
pub(crate) async fn write(deployer: &Arc<Deployer>, turn: OwnedSemaphorePermit) -> Backup {
    let ahead = deployer.options.limits.backup_ahead_bytes_max / PIECE_BYTES;
    let functions = deployer.functions.all();
    let looking = move || {
        functions
            .into_iter()
            .partition(|function| is_whole(function))
    };
    let looked = tokio::task::spawn_blocking(looking).await;
    let (whole, damaged): (Vec<_>, Vec<Arc<Function>>) = looked.unwrap_or_default();
    let left_out = damaged.iter().map(|function| {
        let name = &function.record.spec.name;
        tracing::warn!(function = %name, "left out of the backup: its record or code is damaged");
        name.clone()
    });
    Backup {
        left_out: left_out.collect(),
        pieces: stream(whole, ahead.max(1), turn),
    }
}

/// Whether what a node that starts from the backup would check is right. Reads all of the code.
fn is_whole(function: &Function) -> bool {
    function.record.fault.is_none() && function.code.is_unharmed()
}

fn stream(
    functions: Vec<Arc<Function>>,
    pieces_ahead: usize,
    turn: OwnedSemaphorePermit,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(pieces_ahead);
    let packing = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if let Err(error) = pack(&functions, &sender) {
            // The client sees that its file ends too early; one that has gone needs no word.
            drop(sender.blocking_send(Err(error)));
        }
    });
    // The receiver tells how it goes.
    drop(packing);
    receiver
}

fn pack(functions: &[Arc<Function>], sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let pieces = Pieces::new(|piece| {
        let sent = sender.blocking_send(Ok(piece));
        sent.map_err(|_closed| io::Error::other("the client has gone"))
    });
    let mut tar = tar::Builder::new(GzEncoder::new(pieces, Compression::fast()));
    tar.follow_symlinks(false);
    let mut packed = std::collections::HashSet::new();
    for function in functions {
        let digest = function.code.digest();
        if packed.insert(digest.to_owned()) {
            tar.append_dir_all(Path::new("code").join(digest), function.code.path())?;
        }
    }
    // Last: a backup that was cut short has code of which nothing tells.
    for function in functions {
        let (name, text) = Manifests::text(&function.record)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, Path::new("manifests").join(name), &text[..])?;
    }
    tar.into_inner()?.finish()?.flush()
}

/// Brings a backup back into a data directory that has no functions and no node. Everything is on
/// the disk when it returns; where it fails, the directory has no function.
///
/// # Errors
/// If the directory is in use, or the file is not a whole backup.
pub fn restore(backup: impl Read, data_dir: &Path) -> Result<usize, RestoreError> {
    let lock = crate::data_dir::claim(data_dir)
        .map_err(|error| RestoreError::Io(io::Error::other(error)))?;
    let restored = restore_into(backup, data_dir);
    crate::data_dir::leave(data_dir);
    drop(lock);
    restored
}

fn restore_into(backup: impl Read, data_dir: &Path) -> Result<usize, RestoreError> {
    let has_any = |folder: &str| {
        let entries = fs::read_dir(data_dir.join(folder));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    };
    if data_dir.join("tinyfaas.db").exists() || FOLDERS.iter().any(|folder| has_any(folder)) {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let staged = tempfile::Builder::new()
        .prefix("restore-")
        .tempdir_in(data_dir)?;
    let count = unpack(backup, staged.path())?;
    rustix::fs::syncfs(File::open(staged.path())?).map_err(io::Error::from)?;
    // The manifests last: what they tell of is there.
    for folder in FOLDERS.iter().rev() {
        let to = data_dir.join(folder);
        if to.exists() {
            fs::remove_dir(&to)?;
        }
        fs::rename(staged.path().join(folder), to)?;
    }
    File::open(data_dir)?.sync_all()?;
    Ok(count)
}

/// Unpacks into an empty folder; returns how many functions there are.
fn unpack(backup: impl Read, to: &Path) -> Result<usize, RestoreError> {
    let bad = |error: io::Error| RestoreError::NotABackup(error.to_string());
    for folder in FOLDERS {
        DirBuilder::new().mode(0o700).create(to.join(folder))?;
    }
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(backup));
    archive.set_preserve_permissions(true);
    let mut manifests = 0;
    for entry in archive.entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let path = entry.path().map_err(bad)?.into_owned();
        let mut parts = path.components();
        let folder = parts.next();
        let is_ours = FOLDERS
            .iter()
            .any(|ours| folder == Some(Component::Normal(ours.as_ref())));
        if !is_ours {
            let text = format!("it has {}", path.display());
            return Err(RestoreError::NotABackup(text));
        }
        // It refuses what would leave the folder.
        if !entry.unpack_in(to).map_err(bad)? {
            return Err(RestoreError::NotABackup("a path leaves it".to_owned()));
        }
        manifests += usize::from(path.starts_with("manifests"));
    }
    for folder in FOLDERS {
        fs::set_permissions(to.join(folder), fs::Permissions::from_mode(0o700))?;
    }
    Ok(manifests)
}
