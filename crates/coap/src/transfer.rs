//! Bodies that are sent in blocks, while they are sent (RFC 7959).

use crate::code::Code;
use crate::peer::Peer;
use ahash::AHashMap;
use bytes::Bytes;
use net::{Account, Budget, Spent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a transfer takes beside its body: the key in three tables and the room that these leave
/// free.
const OVERHEAD_BYTES: usize = 512;
/// A host may hold this part of all room before its own oldest transfers go first.
const HOST_SHARE: usize = 4;
/// How many of the oldest transfers are looked at to find one of a host over its share.
const LOOKED_AT_MAX: usize = 64;

/// Names a transfer: the peer, the direction, and what identifies the request. The identity is a
/// digest, so that a name takes the same room however long the request's options are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key<P> {
    pub(crate) peer: P,
    pub(crate) direction: Direction,
    pub(crate) request: Identity,
}

/// Digests of what identifies a request among those of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The method and the options of the cache key.
    pub(crate) resource: u64,
    /// The Request-Tag (RFC 9175) and, of a FETCH, the payload; 0 where the message has neither.
    pub(crate) operation: u64,
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

/// A request's body as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) body: Vec<u8>,
    /// The message that brought the first block: a duplicate of it does not begin a new upload.
    pub(crate) first_message_id: u16,
}

#[derive(Debug)]
enum Body {
    Upload(Upload),
    Download(Representation),
}

impl Body {
    fn bytes(&self) -> usize {
        let len = match self {
            Self::Upload(upload) => upload.body.capacity(),
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

/// The transfers of one host.
#[derive(Debug)]
struct Host {
    account: Account,
    order: BTreeSet<u64>,
}

/// Why a body is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// It is larger than the bound.
    TooLarge,
    /// What clients may hold is spent.
    Spent(Spent),
}

/// The transfers of all peers, within a bound of memory and the budget that all endpoints share.
/// Where there is no more room, a host over
/// its share loses its own least recently used; else the least recently used of such a host goes,
/// or of all where none is over its share.
#[derive(Debug)]
pub(crate) struct Transfers<P: Peer> {
    entries: AHashMap<Key<P>, Entry>,
    order: BTreeMap<u64, Key<P>>,
    hosts: AHashMap<net::Peer, Host>,
    /// The operation that last had a response kept, by peer and resource: clients leave out what
    /// tells operations apart when they ask for the second block on.
    newest: AHashMap<(P, u64), u64>,
    used: u64,
    bytes: usize,
    bytes_max: usize,
    /// How long a transfer is kept after its last block.
    idle: Duration,
    budget: Arc<Budget>,
}

impl<P: Peer> Transfers<P> {
    pub(crate) fn new(bytes_max: usize, idle: Duration, budget: Arc<Budget>) -> Self {
        Self {
            entries: AHashMap::new(),
            order: BTreeMap::new(),
            hosts: AHashMap::new(),
            newest: AHashMap::new(),
            used: 0,
            bytes: 0,
            bytes_max,
            idle,
            budget,
        }
    }

    /// An upload as far as it has come; none where it has not begun.
    pub(crate) fn upload(&self, key: &Key<P>) -> Option<&Upload> {
        match &self.entries.get(key)?.body {
            Body::Upload(upload) => Some(upload),
            Body::Download(_) => None,
        }
    }

    /// Takes an upload out.
    pub(crate) fn take_upload(&mut self, key: &Key<P>) -> Option<Upload> {
        match self.remove(key)?.body {
            Body::Upload(upload) => Some(upload),
            Body::Download(_) => None,
        }
    }

    /// Puts an upload in.
    ///
    /// # Errors
    /// If there is no room for it; it is dropped then.
    pub(crate) fn put_upload(
        &mut self,
        now: Instant,
        key: Key<P>,
        upload: Upload,
    ) -> Result<(), NotKept> {
        self.put(now, key, Body::Upload(upload))
    }

    /// Keeps a response.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(crate) fn put_download(
        &mut self,
        now: Instant,
        key: Key<P>,
        representation: Representation,
    ) -> Result<(), NotKept> {
        let (name, operation) = (
            (key.peer.clone(), key.request.resource),
            key.request.operation,
        );
        self.put(now, key, Body::Download(representation))?;
        self.newest.insert(name, operation);
        Ok(())
    }

    /// A response that is kept, which is thereby used. A request that does not say of which
    /// operation it is gets the newest.
    pub(crate) fn download(&mut self, now: Instant, key: &Key<P>) -> Option<Representation> {
        let mut key = key.clone();
        if key.request.operation == 0 && !self.entries.contains_key(&key) {
            let name = (key.peer.clone(), key.request.resource);
            key.request.operation = *self.newest.get(&name)?;
        }
        let Body::Download(representation) = &self.entries.get(&key)?.body else {
            return None;
        };
        let representation = representation.clone();
        self.touch(now, &key);
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
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn put(&mut self, now: Instant, key: Key<P>, body: Body) -> Result<(), NotKept> {
        self.remove(&key);
        let bytes = body.bytes();
        if bytes > self.bytes_max {
            return Err(NotKept::TooLarge);
        }
        let host = key.peer.host();
        while self.bytes + bytes > self.bytes_max {
            self.make_room(host, bytes);
        }
        self.used += 1;
        self.charge(host, bytes).map_err(NotKept::Spent)?;
        self.bytes += bytes;
        self.order.insert(self.used, key.clone());
        let entry = Entry {
            body,
            bytes,
            used: self.used,
            expires: now + self.idle,
        };
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Takes a host's bytes from the budget for the entry that comes next. Its own oldest
    /// transfers make room for it where its share is spent, and those of this socket that
    /// [`Self::make_room`] picks where the whole budget is.
    fn charge(&mut self, host: net::Peer, bytes: usize) -> Result<(), Spent> {
        loop {
            let spent = match self.try_charge(host, bytes) {
                Ok(()) => return Ok(()),
                Err(spent) => spent,
            };
            let own = self.hosts.get(&host).and_then(|own| own.order.first());
            let own = own.and_then(|used| self.order.get(used).cloned());
            match (spent, own) {
                (_, Some(key)) => drop(self.remove(&key)),
                (Spent::Budget, None) if !self.entries.is_empty() => self.make_room(host, bytes),
                (Spent::Budget | Spent::Share, None) => return Err(spent),
            }
        }
    }

    fn try_charge(&mut self, host: net::Peer, bytes: usize) -> Result<(), Spent> {
        if let Some(known) = self.hosts.get_mut(&host) {
            known.account.take(bytes)?;
            known.order.insert(self.used);
            return Ok(());
        }
        let mut account = Account::open(&self.budget, host)?;
        account.take(bytes)?;
        let order = BTreeSet::from([self.used]);
        self.hosts.insert(host, Host { account, order });
        Ok(())
    }

    fn touch(&mut self, now: Instant, key: &Key<P>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        self.used += 1;
        self.order.remove(&entry.used);
        self.order.insert(self.used, key.clone());
        if let Some(host) = self.hosts.get_mut(&key.peer.host()) {
            host.order.remove(&entry.used);
            host.order.insert(self.used);
        }
        entry.used = self.used;
        entry.expires = now + self.idle;
    }

    fn make_room(&mut self, host: net::Peer, wanted: usize) {
        let share = self.bytes_max / HOST_SHARE;
        let own = self
            .hosts
            .get(&host)
            .filter(|own| own.account.bytes() + wanted > share);
        let own_oldest = own.and_then(|own| own.order.first().copied());
        let is_over = |key: &Key<P>| {
            let host = self.hosts.get(&key.peer.host());
            host.is_some_and(|host| host.account.bytes() > share)
        };
        let oldest = || {
            let mut oldest = self.order.iter().take(LOOKED_AT_MAX);
            let greedy = oldest.find(|(_, key)| is_over(key));
            greedy.map(|(used, _)| *used)
        };
        let used = own_oldest.or_else(oldest);
        match used.and_then(|used| self.order.get(&used).cloned()) {
            Some(key) => drop(self.remove(&key)),
            None => self.remove_oldest(),
        }
    }

    fn remove(&mut self, key: &Key<P>) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.bytes;
        let host = key.peer.host();
        if let Some(of_host) = self.hosts.get_mut(&host) {
            of_host.account.give(entry.bytes);
            of_host.order.remove(&entry.used);
            if of_host.order.is_empty() {
                self.hosts.remove(&host);
            }
        }
        if key.direction == Direction::Download {
            let name = (key.peer.clone(), key.request.resource);
            if self.newest.get(&name) == Some(&key.request.operation) {
                self.newest.remove(&name);
            }
        }
        Some(entry)
    }

    fn remove_oldest(&mut self) {
        let Some(key) = self.order.first_key_value().map(|(_, key)| key.clone()) else {
            return;
        };
        self.remove(&key);
    }
}
