//! One SQLite file and the thread that writes it. It knows no tables: whoever keeps some brings
//! their migrations and changes.
//!
//! What waits for the thread is committed together, and an answer is given only when it is on the
//! disk. A file that can't be opened now (its disk is full, or read-only) is tried again with the
//! next change.

use super::reserve::Reserve;
use super::{StoreError, files};
use faas::Limits;
use rusqlite::{Connection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// A change of some tables. It may run twice: in a group, and alone where that failed.
pub(super) type Change = Box<dyn Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send>;

/// Each step from one version of a schema to the next; the version is how many were taken.
pub(super) type Migrations = &'static [&'static str];

/// Whether a change may use the space that is reserved: one that makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// No: it takes space.
    Ordinary,
    /// Yes: space is free once it is done.
    Reserved,
}

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct Db {
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Write {
    change: Change,
    room: Room,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// What the thread has.
struct Writer {
    path: PathBuf,
    migrations: Migrations,
    connection: Option<Connection>,
    reserve: Reserve,
    /// Writes that one commit takes along.
    at_once_max: usize,
}

impl Db {
    /// Starts the thread for the file at `path`, with the connection where it is open already.
    pub(super) fn start(
        path: &Path,
        migrations: Migrations,
        connection: Option<Connection>,
        (reserve, limits): (Reserve, &Limits),
    ) -> Result<Self, StoreError> {
        let (writes, waiting) = mpsc::channel(limits.store_writes_waiting_max);
        let writer = Writer {
            path: path.to_owned(),
            migrations,
            connection,
            reserve,
            at_once_max: limits.store_writes_at_once_max,
        };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.write_until_closed(waiting))?;
        Ok(Self {
            writes: Mutex::new(Some(writes)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Makes a change. Returns when it is durable.
    pub(super) async fn write(&self, room: Room, change: Change) -> Result<(), StoreError> {
        let writes = self
            .writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let writes = writes.ok_or(StoreError::Closed)?;
        let (done, result) = oneshot::channel();
        let write = Write { change, room, done };
        let sent = writes.send(write).await;
        sent.map_err(|_closed| StoreError::Closed)?;
        result.await.map_err(|_closed| StoreError::Closed)?
    }

    /// Writes what waits and closes the file. Blocks.
    pub(super) fn close(&self) {
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
}

/// Opens or makes the file, for this process only, and brings its tables up to date.
pub(super) fn open(path: &Path, migrations: Migrations) -> Result<Connection, StoreError> {
    files::close_to_others(path).map_err(StoreError::File)?;
    let mut connection = Connection::open(path)?;
    // The directory is locked, so that nobody else has the file: without the index that processes
    // share a full disk does not keep it from being opened.
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_row| Ok(()))?;
    // The journal mode answers with a row; synchronous=FULL makes every commit durable.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection, migrations)?;
    Ok(connection)
}

/// The version of the schema: 0 for a file without tables.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(connection: &mut Connection, migrations: Migrations) -> Result<(), StoreError> {
    let version = version(connection)?;
    let taken = version as usize;
    if taken > migrations.len() {
        return Err(StoreError::TooNew(version));
    }
    for (step, number) in migrations.iter().zip(1_u32..).skip(taken) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

impl Writer {
    fn write_until_closed(mut self, mut waiting: mpsc::Receiver<Write>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < self.at_once_max {
                let Ok(next) = waiting.try_recv() else { break };
                group.push(next);
            }
            let is_committed = self.commit(&group).is_ok();
            for write in group {
                // Where the group failed each is tried alone: one that can't be written must not
                // take the others along, and each gets its own error.
                let own = if is_committed {
                    Ok(())
                } else {
                    self.commit_alone(&write)
                };
                // Whoever waited may have gone.
                let _taken = write.done.send(own).is_ok();
            }
            if is_committed {
                self.reserve.refill();
            }
        }
    }

    fn commit_alone(&mut self, write: &Write) -> Result<(), StoreError> {
        let committed = self.commit(std::slice::from_ref(write));
        match committed {
            Err(error) if write.room == Room::Reserved && error.lacks_space() => {
                self.reserve.release();
                self.commit(std::slice::from_ref(write))
            }
            committed => committed,
        }
    }

    fn commit(&mut self, group: &[Write]) -> Result<(), StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            closed => closed.insert(open(&self.path, self.migrations)?),
        };
        let transaction = connection.transaction()?;
        for write in group {
            (write.change)(&transaction)?;
        }
        transaction.commit()?;
        Ok(())
    }
}
