//! What outlives a restart: every function and its settings, in SQLite.
//!
//! This file has the functions' table; the file and its thread are in `db`.

mod db;
mod files;
mod manifest;
mod record;
mod reserve;

pub(crate) use manifest::Manifests;
pub(crate) use record::{Fault, Record};

use crate::probe::Unwritable;
use db::{Change, Db, Migrations, Room};
use faas::{FunctionName, Limits};
use reserve::Reserve;
use rusqlite::{Connection, ErrorCode, Row, params};
use std::fs::Metadata;
use std::io;
use std::path::Path;

/// The functions' table.
const MIGRATIONS: Migrations = &["CREATE TABLE functions (
    name TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    digest TEXT NOT NULL,
    files INTEGER NOT NULL,
    packed_bytes INTEGER NOT NULL,
    unpacked_bytes INTEGER NOT NULL,
    deployed_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID"];

const PUT: &str = "INSERT OR REPLACE INTO functions
    (name, settings, digest, files, packed_bytes, unpacked_bytes, deployed_at_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const DELETE: &str = "DELETE FROM functions WHERE name = ?1";

const SELECT: &str = "SELECT name, settings, digest, files, packed_bytes, unpacked_bytes,
    deployed_at_ms FROM functions ORDER BY name";

/// Why the store could not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("the store failed ({0})")]
    Sqlite(#[from] rusqlite::Error),
    /// A check found pages that contradict each other.
    #[error("the store is damaged ({0})")]
    Damaged(String),
    /// A newer tinyFaaS wrote the store.
    #[error("the store has version {0}, which this tinyfaas does not know")]
    TooNew(u32),
    /// A file of it can't be opened for its owner alone, or written.
    #[error("the store's files could not be written ({0})")]
    File(#[source] io::Error),
    /// The writer could not be started.
    #[error("the store's thread could not be started ({0})")]
    Thread(#[from] io::Error),
    /// It is closed: this node is stopping.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "look at the disk of the data directory",
            Self::Damaged(_) => "restore the data directory from a backup",
            Self::TooNew(_) => "use the newer one again",
            Self::File(_) => "check the owner and the disk of the data directory",
            Self::Thread(_) => {
                "free memory or raise the limit of threads (ulimit -u), then start again"
            }
            Self::Closed => "this node is stopping: try again when it has started",
        }
    }
}

impl StoreError {
    /// Whether the disk is full or read-only, so that it may work later.
    fn lacks_space(&self) -> bool {
        self.as_unwritable().is_some()
    }

    /// The same, with what to do; none where something else failed.
    pub(crate) fn as_unwritable(&self) -> Option<Unwritable> {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => match error.code {
                ErrorCode::DiskFull => Some(Unwritable::Full),
                ErrorCode::ReadOnly | ErrorCode::CannotOpen => Some(Unwritable::ReadOnly),
                _ => None,
            },
            Self::File(error) => Unwritable::from_lack_of_space(error),
            Self::Sqlite(_)
            | Self::Damaged(_)
            | Self::TooNew(_)
            | Self::Thread(_)
            | Self::Closed => None,
        }
    }

    /// Whether what is in the file is wrong.
    fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => matches!(
                error.code,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
            ),
            // A table that is missing, or has other columns.
            Self::Sqlite(_) | Self::Damaged(_) => true,
            Self::File(_) | Self::TooNew(_) | Self::Thread(_) | Self::Closed => false,
        }
    }
}

/// What a store had when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every function.
    pub(crate) records: Vec<Record>,
    /// How much of what was ever kept that is.
    pub(crate) extent: Extent,
}

/// How much a store tells of what was ever kept in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// It is new, or was damaged: there may be more functions than it tells of.
    #[default]
    Lost,
    /// It could not be opened for now; it may tell of more functions later.
    Unopened,
}

/// The functions that are kept.
#[derive(Debug)]
pub(crate) struct Store {
    db: Db,
}

impl Store {
    /// Opens or makes the file and reads every function. A damaged file is set aside; one that
    /// can't be written now is read and opened later. Blocks on the disk.
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<(Self, Found), StoreError> {
        let reserve = path.with_file_name("reserve");
        files::clear_the_way_of_database(path);
        files::clear_the_way(&reserve, Metadata::is_file);
        let (connection, found) = open_or_mend(path)?;
        let reserve = Reserve::open(reserve, limits.store_reserve_bytes);
        let db = Db::start(path, MIGRATIONS, connection, (reserve, limits))?;
        Ok((Self { db }, found))
    }

    /// Keeps the function, instead of what was kept of it before. Returns when it is durable.
    pub(crate) async fn put(&self, record: Record) -> Result<(), StoreError> {
        self.db.write(Room::Ordinary, put(record)).await
    }

    /// Forgets the function. Returns when that is durable.
    pub(crate) async fn delete(&self, name: FunctionName) -> Result<(), StoreError> {
        let change: Change = Box::new(move |transaction| {
            transaction.execute(DELETE, [name.as_str()])?;
            Ok(())
        });
        self.db.write(Room::Reserved, change).await
    }

    /// Writes what waits and closes the file. Blocks.
    pub(crate) fn close(&self) {
        self.db.close();
    }
}

fn put(record: Record) -> Change {
    Box::new(move |transaction| {
        transaction.execute(
            PUT,
            params![
                record.spec.name.as_str(),
                record::settings(&record.spec),
                record.digest,
                record.files.cast_signed(),
                record.packed_bytes.cast_signed(),
                record.unpacked_bytes.cast_signed(),
                record.deployed_at_ms,
            ],
        )?;
        Ok(())
    })
}

fn open_or_mend(path: &Path) -> Result<(Option<Connection>, Found), StoreError> {
    let extent = match path.metadata() {
        Ok(file) if file.len() > 0 => Extent::Whole,
        Ok(_) | Err(_) => Extent::Lost,
    };
    match open_whole(path) {
        Ok((connection, records)) => Ok((Some(connection), Found { records, extent })),
        Err(error) if error.lacks_space() => {
            tracing::warn!(%error, "the store can't be written; functions are served, not deployed");
            let mut found = salvage(path);
            found.extent = Extent::Unopened;
            Ok((None, found))
        }
        Err(error) if error.is_damage() => {
            let aside = files::set_aside(path).map_err(StoreError::File)?;
            let found = salvage(&aside);
            tracing::error!(
                %error,
                set_aside = %aside.display(),
                readable = found.records.len(),
                "the store is damaged and was set aside; it is rebuilt from what can be read"
            );
            Ok((Some(db::open(path, MIGRATIONS)?), found))
        }
        Err(error) => Err(error),
    }
}

/// Opens the file, checks all of it and reads every function.
fn open_whole(path: &Path) -> Result<(Connection, Vec<Record>), StoreError> {
    let connection = db::open(path, MIGRATIONS)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged(verdict));
    }
    let mut records = Vec::new();
    read(&connection, SELECT, &mut records)?;
    Ok((connection, records))
}

/// Reads what can be read of a file that is damaged, or can't be opened where it is, in a copy.
fn salvage(path: &Path) -> Found {
    let mut records = Vec::new();
    let tried = salvage_into(path, &mut records);
    if let Err(error) = tried {
        tracing::warn!(%error, "not all of the store could be read");
    }
    Found {
        records,
        extent: Extent::Lost,
    }
}

fn salvage_into(path: &Path, records: &mut Vec<Record>) -> Result<(), StoreError> {
    if !path.exists() {
        return Ok(());
    }
    // The usual place for temporary files may be on the same disk.
    let folder = tempfile::tempdir().or_else(|_full| tempfile::tempdir_in("/dev/shm"));
    let folder = folder.map_err(StoreError::File)?;
    let copied = files::copy(path, folder.path()).map_err(StoreError::File)?;
    let connection = Connection::open(copied)?;
    let forwards = read(&connection, SELECT, records);
    if forwards.is_err() {
        // What lies behind the damage, from the other end.
        let mut behind = Vec::new();
        let _fails_at_the_same_place =
            read(&connection, &format!("{SELECT} DESC"), &mut behind).is_err();
        let is_new = |record: &Record| {
            records
                .iter()
                .all(|known| known.spec.name != record.spec.name)
        };
        let behind: Vec<Record> = behind.into_iter().filter(is_new).collect();
        records.extend(behind);
    }
    forwards
}

fn read(
    connection: &Connection,
    select: &str,
    records: &mut Vec<Record>,
) -> Result<(), StoreError> {
    let mut select = connection.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        match read_row(row) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::error!(%error, "a row of the store has no usable name; it is kept as it is")
            }
        }
    }
    Ok(())
}

/// A function's record; one that can't be read has its fault. Fails where even the name is none.
fn read_row(row: &Row<'_>) -> Result<Record, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let name: String = row.get(0).map_err(text)?;
    let name: FunctionName = name
        .parse()
        .map_err(|error: faas::NameError| error.to_string())?;
    let settings = row.get::<_, String>(1);
    let settings = settings.map_err(|error| Fault::Unreadable(error.to_string()));
    let spec = settings.and_then(|settings| record::spec(&name, &settings));
    let number = |index| row.get::<_, i64>(index).unwrap_or_default();
    let (spec, fault) = match spec {
        Ok(spec) => (spec, None),
        Err(fault) => (record::placeholder(&name), Some(fault)),
    };
    let digest = row.get(2).unwrap_or_default();
    Ok(Record {
        spec: spec.into(),
        digest: record::checked_digest(digest),
        files: number(3).cast_unsigned(),
        packed_bytes: number(4).cast_unsigned(),
        unpacked_bytes: number(5).cast_unsigned(),
        deployed_at_ms: number(6),
        fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn every_file_of_the_store_is_for_its_owner_only_whatever_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tinyfaas.db");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (store, _) = Store::open(&path, &Limits::default()).unwrap();
        let files = fs::read_dir(folder.path()).unwrap();
        let modes = files.map(|file| file.unwrap().metadata().unwrap().mode() & 0o777);
        let modes: Vec<_> = modes.collect();
        assert!(modes.len() > 1, "SQLite keeps a log beside it");
        assert!(modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
        store.close();
    }
}
