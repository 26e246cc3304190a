//! A client's connection and what it makes this process hold.

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body;
use net::{Client, Held, Place, Spent};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection takes in memory: its task, its state and the buffers that it starts with.
const HTTP1_BYTES: usize = 12 << 10;
/// Likewise, with the tables of HPACK.
const HTTP2_BYTES: usize = 24 << 10;
/// What a request takes beside its head and body: its task, its state, the fields' table.
const REQUEST_BYTES: usize = 4 << 10;
/// What a field takes beside its name and value.
const FIELD_BYTES: usize = 64;
/// What fits the buffers that a connection starts with.
const BUFFERED_BYTES: usize = 8 << 10;
/// What the status line and the fields that hyper adds take.
const HEAD_BYTES: usize = 128;

/// A connection and what its requests share.
///
/// An HTTP/1.1 connection has one request at a time, which fits what is held for the connection
/// where it is small: then nothing is taken from the budget for it.
#[derive(Debug)]
pub(crate) struct Connection {
    place: Place,
    pub(crate) is_http2: bool,
    head_bytes_max: usize,
    /// What has come since the last request was understood.
    unread: AtomicUsize,
    /// What may still wait in hyper's buffer.
    unsent: AtomicUsize,
    /// What is held for both.
    held: AtomicUsize,
}

impl Connection {
    /// A connection that is in use; none where there is no memory for it.
    pub(crate) fn new(place: Place, is_http2: bool, head_bytes_max: usize) -> Option<Self> {
        let connection = Self {
            place,
            is_http2,
            head_bytes_max,
            unread: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        };
        let has_room = connection.place.resize(connection.base()).is_ok();
        has_room.then_some(connection)
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        self.place.client()
    }

    fn base(&self) -> usize {
        if self.is_http2 {
            HTTP2_BYTES
        } else {
            HTTP1_BYTES
        }
    }

    /// Counts what has come.
    ///
    /// # Errors
    /// If a head grows that there is no memory for.
    pub(crate) fn read(&self, bytes: usize) -> Result<(), Spent> {
        // The bodies of HTTP/1.1 are counted where they are read.
        if !self.is_http2 && self.client().is_busy() {
            return Ok(());
        }
        let unread = self.unread.load(Ordering::Relaxed) + bytes;
        // A longer head is refused; what else comes is for the protocol and not kept.
        let unread = unread.min(self.head_bytes_max);
        self.unread.store(unread, Ordering::Relaxed);
        if unread <= BUFFERED_BYTES {
            return Ok(());
        }
        match self.recount() {
            // It is told by the requests that it has under way, whose bodies this may be.
            Err(_spent) if self.client().is_busy() => Ok(()),
            counted => counted,
        }
    }

    /// Counts that all has been written.
    pub(crate) fn sent(&self) {
        self.unsent.store(0, Ordering::Relaxed);
    }

    /// Counts that a request's head or a piece of its body was understood. What HTTP/1.1 has read
    /// of a head stays until the request is answered.
    pub(crate) fn understood(&self) {
        if self.is_http2 {
            self.unread.store(0, Ordering::Relaxed);
        }
        if self.recount().is_err() {
            // It sends requests and reads no replies.
            self.client().close();
        }
    }

    /// Counts a response that goes out.
    pub(crate) fn answered<B: Body>(&self, response: &Response<B>) {
        if self.is_http2 {
            return;
        }
        self.unread.store(0, Ordering::Relaxed);
        let body = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
        // A large one is held by itself.
        let body = if body > BUFFERED_BYTES { 0 } else { body };
        let bytes = body + fields_bytes(response.headers()) + HEAD_BYTES;
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What a request holds as it begins.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn charge(&self, fields: &HeaderMap) -> Result<Charge, Spent> {
        if !self.is_http2 {
            return Ok(Charge {
                held: None,
                base: 0,
            });
        }
        let base = REQUEST_BYTES + fields_bytes(fields);
        Ok(Charge {
            held: Some(self.client().share().hold(base)?),
            base,
        })
    }

    /// Holds what is unread and unsent beyond the buffers.
    fn recount(&self) -> Result<(), Spent> {
        let over = |count: &AtomicUsize| {
            let count = count.load(Ordering::Relaxed);
            if count > BUFFERED_BYTES { count } else { 0 }
        };
        let bytes = over(&self.unread) + over(&self.unsent);
        if bytes == self.held.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.client().resize(self.base() + bytes)?;
        self.held.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

fn fields_bytes(fields: &HeaderMap) -> usize {
    let bytes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    bytes.sum()
}

/// What one request holds: nothing before it is charged.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    held: Option<Held>,
    base: usize,
}

impl Charge {
    /// Takes more.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn grow(&mut self, connection: &Connection, bytes: usize) -> Result<(), Spent> {
        match &mut self.held {
            Some(held) => held.grow(bytes),
            None if bytes <= BUFFERED_BYTES => Ok(()),
            None => {
                self.held = Some(connection.client().share().hold(bytes)?);
                Ok(())
            }
        }
    }

    /// Takes what a call holds that goes on after its answer.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn detach(&mut self, connection: &Connection, bytes: usize) -> Result<Held, Spent> {
        let mut held = match self.held.take() {
            Some(held) => held,
            None => connection.client().share().hold(0)?,
        };
        held.resize(REQUEST_BYTES + bytes)?;
        Ok(held)
    }

    /// Gives back what the request's body took.
    pub(crate) fn shrink(&mut self) {
        let _given_back = self.resize(0).is_ok();
    }

    /// Holds so many bytes beside the request's head, where anything is held.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Spent> {
        let held = self.held.as_mut();
        held.map_or(Ok(()), |held| held.resize(self.base + bytes))
    }

    /// What is held.
    pub(crate) fn into_held(self) -> Option<Held> {
        self.held
    }

    /// Gives the request back and takes its response.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn reply<B: Body>(
        mut self,
        connection: &Connection,
        response: &Response<B>,
    ) -> Result<Option<Held>, Spent> {
        let body = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
        if !connection.is_http2 && body <= BUFFERED_BYTES {
            return Ok(None);
        }
        let base = self.base.min(REQUEST_BYTES);
        let bytes = base + body + fields_bytes(response.headers());
        match &mut self.held {
            Some(held) => held.resize(bytes)?,
            None => self.held = Some(connection.client().share().hold(bytes)?),
        }
        Ok(self.held)
    }
}

/// Bytes that give back what is held for them with the last reference to any of them.
pub(crate) fn owned<T: Send + 'static>(bytes: Bytes, held: T) -> Bytes {
    struct Owned<T> {
        bytes: Bytes,
        _held: T,
    }
    impl<T> AsRef<[u8]> for Owned<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Owned { bytes, _held: held })
}
