//! A small file for each function, which says all that the store does: from these files a store
//! that was lost or damaged is rebuilt.
//!
//! A manifest takes its place only after its function is durable in the store, and goes before the
//! function goes there. So whatever a manifest says was acknowledged, and where store and manifest
//! differ the manifest is right: the store has lost something, or power was cut between the two.

use super::files;
use super::record::{self, Fault, Record};
use crate::data_dir;
use faas::FunctionName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What stands at the end of a manifest's file name.
const ENDING: &str = ".json";

/// What stands there until the manifest takes its place.
const STAGED_ENDING: &str = ".staged";

/// The folder of manifests.
#[derive(Debug)]
pub(crate) struct Manifests {
    folder: PathBuf,
}

/// A manifest that is on the disk, but not yet in its place. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    folder: PathBuf,
    from: PathBuf,
    to: PathBuf,
}

/// The stored shape. The settings are those of the store, as text, so that one version of them
/// holds for both.
#[derive(Debug, Serialize, Deserialize)]
struct Shape {
    name: String,
    digest: String,
    files: u64,
    packed_bytes: u64,
    unpacked_bytes: u64,
    deployed_at_ms: i64,
    settings: String,
}

impl Manifests {
    /// Makes the folder, where the disk allows.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("manifests");
        files::clear_the_way(&folder, Metadata::is_dir);
        if !folder.is_dir() {
            let mut builder = DirBuilder::new();
            match builder.mode(0o700).create(&folder) {
                Err(error) if crate::space::lacks_space(&error) => {}
                made => made?,
            }
        }
        Ok(Self { folder })
    }

    /// Every manifest that can be read. What an unfinished deployment left is removed.
    pub(crate) fn read(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        if !self.folder.is_dir() {
            return Ok(records);
        }
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            files::clear_the_way(&path, Metadata::is_file);
            if !path.is_file() {
                continue;
            }
            if path.to_string_lossy().ends_with(STAGED_ENDING) {
                // On a read-only disk it stays, and does no harm.
                drop(fs::remove_file(&path));
                continue;
            }
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| parse(&text))
            {
                Ok(record) => records.push(record),
                Err(reason) => {
                    tracing::warn!(path = %path.display(), reason, "a manifest can't be read");
                }
            }
        }
        Ok(records)
    }

    /// Brings the function's manifest to the disk; [`Staged::publish`] lets it count. Blocks.
    pub(crate) fn stage(&self, record: &Record) -> io::Result<Staged> {
        let (staged, file) = self.write(record)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Writes the manifests of many functions, synced together. Blocks.
    pub(crate) fn write_all<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
    ) -> io::Result<()> {
        let staged: Vec<Staged> = records
            .map(|record| self.write(record).map(|(staged, _)| staged))
            .collect::<io::Result<_>>()?;
        if staged.is_empty() {
            return Ok(());
        }
        let folder = File::open(&self.folder)?;
        rustix::fs::syncfs(&folder)?;
        for staged in staged {
            fs::rename(&staged.from, &staged.to)?;
        }
        folder.sync_all()
    }

    /// A manifest's file name and what is in it, for a copy elsewhere.
    pub(crate) fn text(record: &Record) -> io::Result<(String, Vec<u8>)> {
        let shape = Shape {
            name: record.spec.name.to_string(),
            digest: record.digest.clone(),
            files: record.files,
            packed_bytes: record.packed_bytes,
            unpacked_bytes: record.unpacked_bytes,
            deployed_at_ms: record.deployed_at_ms,
            settings: record::settings(&record.spec),
        };
        Ok((file_name(&record.spec.name), serde_json::to_vec(&shape)?))
    }

    fn write(&self, record: &Record) -> io::Result<(Staged, File)> {
        let (name, text) = Self::text(record)?;
        if !self.folder.is_dir() {
            DirBuilder::new().mode(0o700).create(&self.folder)?;
        }
        let to = self.folder.join(name);
        let mut from = OsString::from(&to);
        from.push(STAGED_ENDING);
        let staged = Staged {
            folder: self.folder.clone(),
            from: from.into(),
            to,
        };
        let mut file = data_dir::open_private(&staged.from)?;
        file.set_len(0)?;
        file.write_all(&text)?;
        Ok((staged, file))
    }

    /// Removes the function's manifest for good. Blocks.
    pub(crate) fn remove(&self, name: &FunctionName) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => {
                removed?;
                File::open(&self.folder)?.sync_all()
            }
        }
    }

    fn path(&self, name: &FunctionName) -> PathBuf {
        self.folder.join(file_name(name))
    }
}

/// A function's name may be too long for a file's, and has slashes.
fn file_name(name: &FunctionName) -> String {
    let digest = Sha256::digest(name.as_str());
    faas::hex(&digest[..16]) + ENDING
}

impl Staged {
    /// Puts the manifest in its place. Blocks.
    pub(crate) fn publish(self) -> io::Result<()> {
        fs::rename(&self.from, &self.to)?;
        File::open(&self.folder)?.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Where it was published, nothing has this name any more.
        drop(fs::remove_file(&self.from));
    }
}

fn parse(text: &[u8]) -> Result<Record, String> {
    let shape: Shape = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let name: FunctionName = shape
        .name
        .parse()
        .map_err(|error: faas::NameError| error.to_string())?;
    let (spec, fault): (_, Option<Fault>) = match record::spec(&name, &shape.settings) {
        Ok(spec) => (spec, None),
        Err(fault) => (record::placeholder(&name), Some(fault)),
    };
    Ok(Record {
        spec: spec.into(),
        digest: record::checked_digest(shape.digest),
        files: shape.files,
        packed_bytes: shape.packed_bytes,
        unpacked_bytes: shape.unpacked_bytes,
        deployed_at_ms: shape.deployed_at_ms,
        fault,
    })
}
