//! What outlives a restart: every function and its settings, in SQLite.
//!
//! One thread writes. What waits for it is committed together, and an answer is given only when
//! it is on the disk.

mod record;

pub(crate) use record::Record;

use crate::data_dir;
use faas::FunctionName;
use rusqlite::{Connection, params};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Writes that wait for the writer; more wait for a place.
const WRITES_WAITING_MAX: usize = 1024;

/// Writes that one commit takes along.
const WRITES_AT_ONCE_MAX: usize = 256;

/// Each step from one version of the schema to the next; the version is how many were taken.
const MIGRATIONS: &[&str] = &["CREATE TABLE functions (
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

/// Why the store could not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("the store failed ({0}); look at the disk of the data directory")]
    Sqlite(#[from] rusqlite::Error),
    /// A newer tinyFaaS wrote the store.
    #[error(
        "the store has version {0}, which this tinyfaas does not know; use the newer one again"
    )]
    TooNew(u32),
    /// What is stored of a function can't be read.
    #[error(
        "what is stored of the function {name:?} can't be read ({reason}); restore the data directory from a backup"
    )]
    BadRecord {
        /// The function.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of it can't be opened for its owner alone.
    #[error(
        "the store's files could not be closed to other users ({0}); check the owner of the data directory"
    )]
    File(#[source] io::Error),
    /// The writer could not be started.
    #[error("the store's thread could not be started ({0})")]
    Thread(#[from] io::Error),
    /// It is closed: this node is stopping.
    #[error("the store is closed; this node is stopping")]
    Closed,
}

/// The handle to the writer.
#[derive(Debug)]
pub(crate) struct Store {
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Write {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
}

#[derive(Debug)]
enum Change {
    Put(Box<Record>),
    Delete(FunctionName),
}

impl Store {
    /// Opens or makes the file and reads every function. Blocks on the disk.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        close_to_others(path).map_err(StoreError::File)?;
        let mut connection = Connection::open(path)?;
        // The journal mode answers with a row; synchronous=FULL makes every commit durable.
        connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        migrate(&mut connection)?;
        let records = read(&connection)?;
        let (writes, waiting) = mpsc::channel(WRITES_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_until_closed(connection, waiting))?;
        let store = Self {
            writes: Mutex::new(Some(writes)),
            writer: Mutex::new(Some(writer)),
        };
        Ok((store, records))
    }

    /// Keeps the function, instead of what was kept of it before. Returns when it is durable.
    pub(crate) async fn put(&self, record: Record) -> Result<(), StoreError> {
        self.write(Change::Put(Box::new(record))).await
    }

    /// Forgets the function. Returns when that is durable.
    pub(crate) async fn delete(&self, name: FunctionName) -> Result<(), StoreError> {
        self.write(Change::Delete(name)).await
    }

    /// Writes what waits and closes the file. Blocks.
    pub(crate) fn close(&self) {
        drop(
            self.writes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's thread had panicked");
        }
    }

    async fn write(&self, change: Change) -> Result<(), StoreError> {
        let writes = self
            .writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let writes = writes.ok_or(StoreError::Closed)?;
        let (done, result) = oneshot::channel();
        let sent = writes.send(Write { change, done }).await;
        sent.map_err(|_closed| StoreError::Closed)?;
        result.await.map_err(|_closed| StoreError::Closed)?
    }
}

/// Makes the file where it is missing. What SQLite keeps beside it gets the same mode; what an
/// earlier version left is changed.
fn close_to_others(path: &Path) -> io::Result<()> {
    data_dir::open_private(path)?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let beside = Path::new(&beside);
        if beside.exists() {
            data_dir::open_private(beside)?;
        }
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let taken = version as usize;
    if taken > MIGRATIONS.len() {
        return Err(StoreError::TooNew(version));
    }
    for (step, number) in MIGRATIONS.iter().zip(1_u32..).skip(taken) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

fn read(connection: &Connection) -> Result<Vec<Record>, StoreError> {
    let mut select = connection.prepare(
        "SELECT name, settings, digest, files, packed_bytes, unpacked_bytes, deployed_at_ms
         FROM functions ORDER BY name",
    )?;
    let mut rows = select.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, settings): (String, String) = (row.get(0)?, row.get(1)?);
        let bad = |reason| StoreError::BadRecord {
            name: name.clone(),
            reason,
        };
        records.push(Record {
            spec: record::spec(&name, &settings).map_err(bad)?.into(),
            digest: row.get(2)?,
            files: row.get::<_, i64>(3)?.cast_unsigned(),
            packed_bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            unpacked_bytes: row.get::<_, i64>(5)?.cast_unsigned(),
            deployed_at_ms: row.get(6)?,
        });
    }
    Ok(records)
}

fn write_until_closed(mut connection: Connection, mut waiting: mpsc::Receiver<Write>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut group = vec![first];
        while group.len() < WRITES_AT_ONCE_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            group.push(next);
        }
        let is_committed = commit(&mut connection, &group).is_ok();
        for write in group {
            // Where the group failed each is tried alone: one that can't be written must not take
            // the others along, and each gets its own error.
            let own = if is_committed {
                Ok(())
            } else {
                commit(&mut connection, std::slice::from_ref(&write))
            };
            // Whoever waited may have gone.
            let _taken = write.done.send(own).is_ok();
        }
    }
}

fn commit(connection: &mut Connection, group: &[Write]) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    for write in group {
        match &write.change {
            Change::Put(record) => {
                let name = record.spec.name.as_str();
                let settings = record::settings(&record.spec);
                transaction.execute(
                    PUT,
                    params![
                        name,
                        settings,
                        record.digest,
                        record.files.cast_signed(),
                        record.packed_bytes.cast_signed(),
                        record.unpacked_bytes.cast_signed(),
                        record.deployed_at_ms,
                    ],
                )?;
            }
            Change::Delete(name) => {
                transaction.execute(DELETE, [name.as_str()])?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
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
        let (store, _) = Store::open(&path).unwrap();
        let files = fs::read_dir(folder.path()).unwrap();
        let modes = files.map(|file| file.unwrap().metadata().unwrap().mode() & 0o777);
        let modes: Vec<_> = modes.collect();
        assert!(modes.len() > 1, "SQLite keeps a log beside it");
        assert!(modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
        store.close();
    }
}
