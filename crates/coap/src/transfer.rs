//! Bodies that are sent in blocks, while they are sent (RFC 7959).

use crate::code::Code;
use ahash::AHashMap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a transfer is kept after its last block.
const IDLE: Duration = Duration::from_secs(120);
/// What a transfer takes beside its body, roughly.
const OVERHEAD_BYTES: usize = 256;

/// Names a transfer: the peer, the direction, and what identifies the request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key<P> {
    pub(crate) peer: P,
    pub(crate) direction: Direction,
    pub(crate) request: Bytes,
}

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// A request's body, in Block1.
    Upload,
    /// A response's body, in Block2.
    Download,
}

/// A response that is kept while its client fetches it block by block.
#[derive(Debug, Clone)]
pub(crate) struct Representation {
    pub(crate) code: Code,
    pub(crate) content_format: Option<u16>,
    pub(crate) max_age: Option<u32>,
    pub(crate) etag: [u8; 8],
    pub(crate) body: Bytes,
}

#[derive(Debug)]
enum Body {
    Upload(Vec<u8>),
    Download(Representation),
}

impl Body {
    fn bytes(&self) -> usize {
        let len = match self {
            Self::Upload(body) => body.capacity(),
            Self::Download(representation) => representation.body.len(),
        };
        len + OVERHEAD_BYTES
    }
}

#[derive(Debug)]
struct Entry {
    body: Body,
    bytes: usize,
    used: u64,
    expires: Instant,
}

/// The transfers of all peers, within a bound of memory; the least recently used go first.
#[derive(Debug)]
pub(crate) struct Transfers<P> {
    entries: AHashMap<Key<P>, Entry>,
    order: BTreeMap<u64, Key<P>>,
    used: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<P: Eq + Hash + Clone> Transfers<P> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: AHashMap::new(),
            order: BTreeMap::new(),
            used: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// How many bytes of an upload have come; none where it has not begun.
    pub(crate) fn uploaded(&self, key: &Key<P>) -> Option<usize> {
        match &self.entries.get(key)?.body {
            Body::Upload(body) => Some(body.len()),
            Body::Download(_) => None,
        }
    }

    /// Takes an upload out.
    pub(crate) fn take_upload(&mut self, key: &Key<P>) -> Option<Vec<u8>> {
        match self.remove(key)?.body {
            Body::Upload(body) => Some(body),
            Body::Download(_) => None,
        }
    }

    /// Puts an upload in; false where it is too large for the bound.
    pub(crate) fn put_upload(&mut self, now: Instant, key: Key<P>, body: Vec<u8>) -> bool {
        self.put(now, key, Body::Upload(body))
    }

    /// Keeps a response; false where it is too large for the bound.
    pub(crate) fn put_download(
        &mut self,
        now: Instant,
        key: Key<P>,
        representation: Representation,
    ) -> bool {
        self.put(now, key, Body::Download(representation))
    }

    /// A response that is kept, which is thereby used.
    pub(crate) fn download(&mut self, now: Instant, key: &Key<P>) -> Option<Representation> {
        let Body::Download(representation) = self.remove(key)?.body else {
            return None;
        };
        self.put_download(now, key.clone(), representation.clone());
        Some(representation)
    }

    /// Drops a transfer.
    pub(crate) fn remove_key(&mut self, key: &Key<P>) {
        self.remove(key);
    }

    /// Drops what nobody has asked for in a while.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|expires| expires <= now) {
            self.remove_oldest();
        }
    }

    /// When the next transfer is dropped.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let (_, key) = self.order.first_key_value()?;
        self.entries.get(key).map(|entry| entry.expires)
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn put(&mut self, now: Instant, key: Key<P>, body: Body) -> bool {
        self.remove(&key);
        let bytes = body.bytes();
        if bytes > self.bytes_max {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            self.remove_oldest();
        }
        self.used += 1;
        self.bytes += bytes;
        self.order.insert(self.used, key.clone());
        let entry = Entry {
            body,
            bytes,
            used: self.used,
            expires: now + IDLE,
        };
        self.entries.insert(key, entry);
        true
    }

    fn remove(&mut self, key: &Key<P>) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn remove_oldest(&mut self) {
        let Some(key) = self.order.first_key_value().map(|(_, key)| key.clone()) else {
            return;
        };
        self.remove(&key);
    }
}
