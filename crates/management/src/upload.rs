//! How large uploads may be, one and all together, and which of them gives way.

use crate::server::{self, Listener};
use faas::Limits;
use net::{Budget, Clients, Held, Peer, Share, Spent};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The largest body: an archive in base64, and settings.
pub(crate) fn bytes_max(limits: &Limits) -> u64 {
    let base64 = limits
        .archive_packed_bytes_max
        .div_ceil(3)
        .saturating_mul(4);
    base64.saturating_add(limits.upload_settings_bytes_max)
}

/// The memory that bodies may take together. It is the management service's own: what clients of
/// the endpoints take leaves it alone.
#[derive(Debug)]
pub(crate) struct Uploads {
    memory: Share,
    doors: Mutex<Vec<Arc<Clients>>>,
    ended: Notify,
    evictions_max: usize,
    /// How long one that gives way may take to end.
    end: Duration,
}

impl Uploads {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let bytes = bytes_max(limits).saturating_mul(limits.uploads_at_once_max);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Arc::new(Self {
            memory: Budget::new(bytes, bytes).share(Peer::Local),
            doors: Mutex::default(),
            ended: Notify::new(),
            evictions_max: limits.upload_evictions_max,
            end: limits.upload_end,
        })
    }

    /// The clients of a listener, whose uploads these are too.
    pub(crate) fn door(&self, limits: &Limits, listener: &Listener) -> Arc<Clients> {
        let clients = server::clients(limits, listener);
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.push(Arc::clone(&clients));
        clients
    }

    /// Memory for the next upload, of which nothing has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Room, Spent> {
        Ok(Room {
            held: self.memory.hold(0)?,
            end: End(Arc::clone(self)),
        })
    }

    fn let_slowest_go(&self) -> bool {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.iter().any(|clients| clients.evict_slow())
    }
}

/// The memory that one upload takes.
#[derive(Debug)]
pub(crate) struct Room {
    held: Held,
    /// Dropped after what is held, so that whoever waits finds it free.
    end: End,
}

#[derive(Debug)]
struct End(Arc<Uploads>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.notify_waiters();
    }
}

impl Room {
    /// Takes memory for what came. Where there is none, the slowest upload gives way.
    ///
    /// # Errors
    /// If none is slow.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), Spent> {
        let uploads = Arc::clone(&self.end.0);
        for _ in 0..uploads.evictions_max {
            let mut ended = std::pin::pin!(uploads.ended.notified());
            let _is_enabled = ended.as_mut().enable();
            let Err(spent) = self.held.grow(bytes) else {
                return Ok(());
            };
            if !uploads.let_slowest_go() {
                return Err(spent);
            }
            // Another one may have ended, or this one may take longer: the next look tells.
            let _within = tokio::time::timeout(uploads.end, ended).await;
        }
        self.held.grow(bytes)
    }

    /// Gives back all that is held.
    pub(crate) fn clear(&mut self) {
        let _given_back = self.held.resize(0).is_ok();
    }
}
