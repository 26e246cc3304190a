//! The open connections of all clients: who has how many, which one gives way to a new one.

use crate::budget::{Budget, Held, Share, Spent};
use crate::peer::Peer;
use crate::recent::{Recent, Slow};
use slab::Slab;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What an accepted connection takes before its client has said anything: a task and a socket.
const SILENT_BYTES: usize = 2 << 10;

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one peer.
    pub peer_connections_max: usize,
    /// Bytes that are held for all clients.
    pub bytes_max: usize,
    /// Bytes that are held for one peer.
    pub peer_bytes_max: usize,
    /// Connections that are closed in a row to make room for one.
    pub evictions_max: usize,
    /// Connections that were told to end and still have their files; no more are accepted meanwhile.
    pub leaving_max: usize,
    /// How long to wait before accepting again after the system had no descriptor or memory for a
    /// connection.
    pub accept_pause: Duration,
    /// Which uploads give way.
    pub slow: Slow,
}

/// What tests begin with, to name no more than what they are about.
#[cfg(test)]
impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 1000,
            peer_connections_max: 1000,
            bytes_max: 1 << 20,
            peer_bytes_max: 1 << 20,
            evictions_max: 8,
            leaving_max: 8,
            accept_pause: Duration::from_millis(50),
            slow: Slow {
                bytes: 16 << 10,
                first_bytes: 64 << 10,
            },
        }
    }
}

/// All clients of some listeners.
#[derive(Debug)]
pub struct Clients {
    bounds: Bounds,
    budget: Arc<Budget>,
    ring: Mutex<Ring>,
    left: Notify,
}

/// The open connections and a hand that goes around: where it finds one that did nothing since it
/// came by last, that one gives way. That is nearly the idlest, found without a look at all (the
/// CLOCK algorithm, as for pages of memory).
#[derive(Debug, Default)]
struct Ring {
    connections: Slab<(Arc<Client>, Option<u64>)>,
    peers: HashMap<Peer, usize>,
    hand: usize,
    /// Those that gave way and have not ended yet.
    leaving: usize,
}

/// A client's open connection: what it holds and whether it does anything.
///
/// What it counts costs an invocation a few additions on a line that no other connection touches.
#[derive(Debug)]
pub struct Client {
    share: Share,
    base: Mutex<Held>,
    in_flight: AtomicUsize,
    turns: AtomicU64,
    waiting: AtomicUsize,
    taken: AtomicU64,
    cleared: AtomicU64,
    /// Odd while its socket is full.
    fills: AtomicU64,
    slow: Slow,
    /// Set while a body comes that counts how fast it does.
    recent: Mutex<Option<Recent>>,
    closed: Notify,
}

/// How the replies of a connection go, as far as the protocol tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replies {
    /// Bytes that are held for the client.
    pub waiting: usize,
    /// All bytes that it asked for so far.
    pub taken: u64,
    /// How often nothing was held any more.
    pub cleared: u64,
}

/// How often a connection's socket was full, and whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fills(u64);

impl Fills {
    /// Whether it is full.
    #[must_use]
    pub fn is_full(self) -> bool {
        !self.0.is_multiple_of(2)
    }
}

/// A connection's place among those that are open; dropping it gives the place up.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    at: usize,
    client: Arc<Client>,
}

impl Clients {
    /// No clients yet, which together keep these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(bounds.bytes_max, bounds.peer_bytes_max),
            ring: Mutex::default(),
            left: Notify::new(),
            bounds,
        })
    }

    /// The bounds that they keep.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What is held for them.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.ring().connections.len()
    }

    /// Finds a place for a new connection. Where there are too many, idle ones give way: of the
    /// same peer where that has too many, else of anybody. None where all are busy.
    #[must_use]
    pub fn admit(self: &Arc<Self>, peer: impl Into<Peer>) -> Option<Place> {
        let share = self.budget.share(peer);
        let mut held = share.hold(0).ok()?;
        self.hold(&share, || held.resize(SILENT_BYTES)).ok()?;
        let client = Arc::new(Client::new((share, held), self.bounds.slow));
        let at = self.ring().enter(&client, &self.bounds)?;
        Some(Place {
            clients: Arc::clone(self),
            at,
            client,
        })
    }

    /// Takes bytes; idle connections give way where there are none left.
    fn hold(
        &self,
        share: &Share,
        mut take: impl FnMut() -> Result<(), Spent>,
    ) -> Result<(), Spent> {
        for _ in 0..self.bounds.evictions_max {
            let Err(spent) = take() else {
                return Ok(());
            };
            let of = (spent == Spent::Share).then(|| share.peer());
            if !self.ring().evict(of) {
                return Err(spent);
            }
        }
        take()
    }

    /// Lets the idlest connection go, such as where the system has no descriptor left. False where
    /// all are busy.
    pub fn evict(&self) -> bool {
        self.ring().evict(None)
    }

    /// Lets the connection go that sends a body most slowly. False where none is slow.
    pub fn evict_slow(&self) -> bool {
        self.ring().evict_slow(None)
    }

    /// Returns when few connections that gave way still have their files: a crowd that comes faster
    /// than others end would take more files than connections are allowed.
    pub async fn settled(&self) {
        loop {
            let left = self.left.notified();
            if self.ring().leaving < self.bounds.leaving_max {
                return;
            }
            left.await;
        }
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for (_, (client, _)) in &self.ring().connections {
            client.close();
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn enter(&mut self, client: &Arc<Client>, bounds: &Bounds) -> Option<usize> {
        let peer = client.share.peer();
        let own = self.peers.get(&peer).copied().unwrap_or_default();
        if own >= bounds.peer_connections_max && !self.make_way(Some(peer)) {
            return None;
        }
        if self.connections.len() >= bounds.connections_max && !self.make_way(None) {
            return None;
        }
        *self.peers.entry(peer).or_default() += 1;
        Some(self.connections.insert((Arc::clone(client), None)))
    }

    fn leave(&mut self, at: usize, leaving: &Arc<Client>) {
        // One that was evicted is out already, and another may be where it was.
        let is_in = self
            .connections
            .get(at)
            .is_some_and(|(client, _)| Arc::ptr_eq(client, leaving));
        if !is_in {
            self.leaving -= 1;
            return;
        }
        self.remove(at, leaving);
    }

    fn remove(&mut self, at: usize, leaving: &Client) {
        self.connections.remove(at);
        let peer = leaving.share.peer();
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Closes an idle connection, else the slowest upload.
    fn make_way(&mut self, of: Option<Peer>) -> bool {
        self.evict(of) || self.evict_slow(of)
    }

    /// Closes the connection, of that peer or of anybody, whose request comes most slowly.
    fn evict_slow(&mut self, of: Option<Peer>) -> bool {
        let now = Instant::now();
        let meant = self
            .connections
            .iter()
            .filter(|(_, (client, _))| of.is_none_or(|peer| peer == client.share.peer()));
        let slow = meant.filter_map(|(at, (client, _))| {
            let recent = (*client.recent())?;
            recent.is_slow(now).then(|| (recent.bytes(now), at))
        });
        let Some((_, at)) = slow.min() else {
            return false;
        };
        self.close(at)
    }

    fn close(&mut self, at: usize) -> bool {
        let Some((client, _)) = self.connections.get(at) else {
            return false;
        };
        let client = Arc::clone(client);
        client.close();
        self.remove(at, &client);
        self.leaving += 1;
        true
    }

    /// Closes the next connection that has nothing under way, of that peer or of anybody. One
    /// that did something since the hand came by is spared for a turn.
    fn evict(&mut self, of: Option<Peer>) -> bool {
        let places = self.connections.capacity();
        for _ in 0..places * 2 {
            self.hand = (self.hand + 1) % places;
            let Some((client, seen)) = self.connections.get_mut(self.hand) else {
                continue;
            };
            let turns = client.turns();
            let is_meant = of.is_none_or(|peer| peer == client.share.peer());
            if !is_meant || client.is_busy() || seen.replace(turns) != Some(turns) {
                continue;
            }
            return self.close(self.hand);
        }
        false
    }
}

impl Client {
    fn new((share, base): (Share, Held), slow: Slow) -> Self {
        Self {
            share,
            base: Mutex::new(base),
            in_flight: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            fills: AtomicU64::new(0),
            slow,
            recent: Mutex::default(),
            closed: Notify::new(),
        }
    }

    /// What its peer may take.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Counts a request as under way until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.turn();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts that the client did something which shows that it is there: it asked, or took what
    /// it was sent.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it did.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// When an upload of it counts as slow.
    pub(crate) fn slow(&self) -> Slow {
        self.slow
    }

    pub(crate) fn recent(&self) -> MutexGuard<'_, Option<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes of replies that wait for the client to take them.
    pub fn reply_waits(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of replies that the client asked for.
    pub fn reply_taken(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes of replies that are held no more.
    pub fn reply_went(&self, bytes: usize) {
        if self.waiting.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.cleared.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How its replies go.
    #[must_use]
    pub fn replies(&self) -> Replies {
        Replies {
            waiting: self.waiting.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            cleared: self.cleared.load(Ordering::Relaxed),
        }
    }

    /// Counts that its socket has no room any more for what is to be written, or again has it.
    pub(crate) fn fill_changed(&self) {
        self.fills.fetch_add(1, Ordering::Relaxed);
    }

    /// How often its socket was full, and whether it is.
    #[must_use]
    pub fn fills(&self) -> Fills {
        Fills(self.fills.load(Ordering::Relaxed))
    }

    /// Holds so many bytes for the connection itself, beside its requests.
    ///
    /// # Errors
    /// As [`Share::hold`].
    pub fn resize(&self, bytes: usize) -> Result<(), Spent> {
        self.base().resize(bytes)
    }

    /// What is held for the connection itself.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.base().bytes()
    }

    /// Returns when the connection has to end at once.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Ends the connection at once.
    pub fn close(&self) {
        // What it holds goes with its task, in a moment.
        let _given_back = self.resize(0).is_ok();
        self.closed.notify_one();
    }

    fn base(&self) -> MutexGuard<'_, Held> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct InFlight(Arc<Client>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// The connection that has it.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// As [`Client::resize`], but that idle connections give way where the bytes are spent.
    ///
    /// # Errors
    /// If none is idle, or too few.
    pub fn resize(&self, bytes: usize) -> Result<(), Spent> {
        let take = || self.client.resize(bytes);
        self.clients.hold(&self.client.share, take)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.ring().leave(self.at, &self.client);
        // Connections end all the time: nobody waits but in a crowd.
        self.clients.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn clients(
        connections_max: usize,
        peer_connections_max: usize,
        bytes_max: usize,
    ) -> Arc<Clients> {
        Clients::new(Bounds {
            connections_max,
            peer_connections_max,
            bytes_max,
            peer_bytes_max: bytes_max,
            ..Bounds::default()
        })
    }

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn is_closed(place: &Place) -> bool {
        let closed = place.client().closed();
        tokio::time::timeout(std::time::Duration::ZERO, closed)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn the_idlest_gives_way_and_what_works_stays() {
        let clients = clients(3, 3, 1 << 20);
        let busy = clients.admit(addr(1)).unwrap();
        let _call = busy.client().begin();
        let idle = clients.admit(addr(2)).unwrap();
        let active = clients.admit(addr(3)).unwrap();
        // The hand has seen everybody once when the first gives way.
        let first = clients.admit(addr(4)).unwrap();
        active.client().turn();
        let mut gone = vec![is_closed(&idle).await, is_closed(&active).await];
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        gone.clear();
        assert!(!is_closed(&busy).await && !is_closed(&first).await);
        assert_eq!(clients.connections(), 3);
        drop((idle, active, first));
        assert_eq!(clients.connections(), 1);
    }

    #[tokio::test]
    async fn a_peer_with_too_many_makes_room_among_its_own() {
        let clients = clients(10, 2, 1 << 20);
        let other = clients.admit(addr(1)).unwrap();
        let own: Vec<_> = (0..5).map(|_| clients.admit(addr(2)).unwrap()).collect();
        assert_eq!(clients.connections(), 3);
        assert!(!is_closed(&other).await);
        let mut closed = 0;
        for place in &own {
            closed += usize::from(is_closed(place).await);
        }
        assert_eq!(closed, 3);
        let calls: Vec<_> = own.iter().map(|place| place.client().begin()).collect();
        assert!(clients.admit(addr(2)).is_none(), "all are busy");
        drop((own, calls));
        assert_eq!(
            (clients.connections(), clients.budget().held_bytes()),
            (1, SILENT_BYTES)
        );
    }

    #[test]
    fn connections_give_way_where_their_bytes_are_needed() {
        let clients = clients(100, 100, 10 * SILENT_BYTES);
        let idle: Vec<_> = (0..10)
            .map(|last| clients.admit(addr(last)).unwrap())
            .collect();
        let next = clients.admit(addr(99)).unwrap();
        next.resize(2 * SILENT_BYTES).unwrap();
        assert_eq!(clients.connections(), 9);
        assert!(next.resize(11 * SILENT_BYTES).is_err());
        drop((idle, next));
        assert_eq!(
            (clients.connections(), clients.budget().held_bytes()),
            (0, 0)
        );
    }
}
