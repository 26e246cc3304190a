//! A budget of bytes for what is held for clients, with a share for each.

use crate::peer::Peer;
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Parts of the table of peers, so that threads that open connections seldom meet.
const PARTS: usize = 16;

/// The memory that all clients together, and each of them, may make this process hold.
///
/// A connection looks its peer up once, which takes a lock for a moment. Taking and giving back
/// bytes is two additions on atomics.
#[derive(Debug)]
pub struct Budget {
    /// The budget that this one is a fraction of.
    whole: Option<Arc<Self>>,
    bytes_max: usize,
    share_bytes_max: usize,
    held: AtomicUsize,
    hasher: RandomState,
    peers: [Mutex<HashMap<Peer, Weak<Tally>, RandomState>>; PARTS],
}

/// What one peer holds.
#[derive(Debug)]
struct Tally {
    peer: Peer,
    held: AtomicUsize,
    budget: Arc<Budget>,
    /// Its share of the budget that this one is a fraction of.
    whole: Option<Share>,
}

/// Why no bytes could be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// The client itself holds all that one client may.
    #[error(
        "your requests fill the memory that one client may take; let some of them finish first"
    )]
    Share,
    /// All clients together do.
    #[error("requests fill the memory that all clients may take; try again in a few seconds")]
    Budget,
}

impl Budget {
    /// A budget of `bytes_max` bytes, of which one peer can take `share_bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize, share_bytes_max: usize) -> Arc<Self> {
        Self::within(None, bytes_max, share_bytes_max)
    }

    fn within(whole: Option<Arc<Self>>, bytes_max: usize, share_bytes_max: usize) -> Arc<Self> {
        let hasher = RandomState::new();
        let part = |_| Mutex::new(HashMap::with_hasher(hasher.clone()));
        Arc::new(Self {
            whole,
            bytes_max,
            share_bytes_max: share_bytes_max.min(bytes_max),
            held: AtomicUsize::new(0),
            peers: std::array::from_fn(part),
            hasher,
        })
    }

    /// The share of a peer: the same one for all that ask while anybody has it.
    #[must_use]
    pub fn share(self: &Arc<Self>, peer: impl Into<Peer>) -> Share {
        let peer = peer.into();
        let whole = self.whole.as_ref().map(|whole| whole.share(peer));
        let mut peers = self.part(peer);
        if let Some(tally) = peers.get(&peer).and_then(Weak::upgrade) {
            return Share(tally);
        }
        let tally = Arc::new(Tally {
            peer,
            held: AtomicUsize::new(0),
            budget: Arc::clone(self),
            whole,
        });
        peers.insert(peer, Arc::downgrade(&tally));
        drop(peers);
        Share(tally)
    }

    /// A budget for one kind of what is held: its bounds are a fraction of this one's, and what is
    /// taken from it is taken from this one too.
    #[must_use]
    pub fn fraction(self: &Arc<Self>, divisor: usize) -> Arc<Self> {
        let (bytes_max, share_bytes_max) = (self.bytes_max, self.share_bytes_max);
        Self::within(
            Some(Arc::clone(self)),
            bytes_max / divisor,
            share_bytes_max / divisor,
        )
    }

    /// What is held now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The peers that hold something or are connected.
    #[must_use]
    pub fn peers(&self) -> usize {
        let parts = self.peers.iter();
        let lens = parts.map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len());
        lens.sum()
    }

    fn part(&self, peer: Peer) -> MutexGuard<'_, HashMap<Peer, Weak<Tally>, RandomState>> {
        let parts = u64::try_from(PARTS).unwrap_or(u64::MAX);
        let at = usize::try_from(self.hasher.hash_one(peer) % parts).unwrap_or(0);
        let part = self.peers[at].lock();
        part.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut peers = self.budget.part(self.peer);
        // Another share of the same peer may have been made meanwhile.
        let is_last = peers.get(&self.peer).is_some_and(|t| t.strong_count() == 0);
        if is_last {
            peers.remove(&self.peer);
        }
    }
}

/// What one peer may take of a budget.
#[derive(Debug, Clone)]
pub struct Share(Arc<Tally>);

impl Share {
    /// Takes so many bytes until the guard is dropped.
    ///
    /// # Errors
    /// If the peer's share or the whole budget has no room for them; nothing is taken then.
    pub fn hold(&self, bytes: usize) -> Result<Held, Spent> {
        self.take(bytes)?;
        Ok(Held {
            share: self.clone(),
            bytes,
        })
    }

    /// Who it belongs to.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.0.peer
    }

    /// What the peer holds now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Spent> {
        let (tally, budget) = (&*self.0, &*self.0.budget);
        add(&tally.held, bytes, budget.share_bytes_max).map_err(|()| Spent::Share)?;
        add(&budget.held, bytes, budget.bytes_max).map_err(|()| {
            tally.held.fetch_sub(bytes, Ordering::Relaxed);
            Spent::Budget
        })?;
        let Some(whole) = &tally.whole else {
            return Ok(());
        };
        whole.take(bytes).inspect_err(|_spent| {
            tally.held.fetch_sub(bytes, Ordering::Relaxed);
            budget.held.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    fn give_back(&self, bytes: usize) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
        self.0.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.give_back(bytes);
        }
    }
}

/// Adds where the sum stays within the bound. For a moment, a sum that does not is seen by others,
/// which may be refused a little early.
fn add(sum: &AtomicUsize, bytes: usize, bytes_max: usize) -> Result<(), ()> {
    if bytes > bytes_max {
        return Err(());
    }
    let before = sum.fetch_add(bytes, Ordering::Relaxed);
    if before > bytes_max - bytes {
        sum.fetch_sub(bytes, Ordering::Relaxed);
        return Err(());
    }
    Ok(())
}

/// Bytes that are held; dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    share: Share,
    bytes: usize,
}

impl Held {
    /// Takes more.
    ///
    /// # Errors
    /// As [`Share::hold`]; what was held before still is.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Spent> {
        self.share.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Holds exactly so many: takes more, or gives back what is too much.
    ///
    /// # Errors
    /// As [`Share::hold`]; what was held before still is.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Spent> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.share.give_back(self.bytes - bytes);
                self.bytes = bytes;
                Ok(())
            }
        }
    }

    /// How many are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The share that they were taken from.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_peer_takes_its_share_and_leaves_the_rest_to_others() {
        let budget = Budget::new(100, 60);
        let (mine, also_mine) = (budget.share(addr(1)), budget.share(addr(1)));
        let held = mine.hold(60).unwrap();
        assert_eq!(also_mine.hold(1).unwrap_err(), Spent::Share);
        let theirs = budget.share(addr(2));
        assert_eq!(theirs.hold(41).unwrap_err(), Spent::Budget);
        let rest = theirs.hold(40).unwrap();
        assert_eq!(budget.held_bytes(), 100);
        drop(held);
        assert_eq!((budget.held_bytes(), mine.held_bytes()), (40, 0));
        drop(rest);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn a_fraction_has_bounds_of_its_own_and_counts_in_the_whole() {
        let whole = Budget::new(100, 60);
        let half = whole.fraction(2);
        let held = half.share(addr(1)).hold(30).unwrap();
        assert_eq!(half.share(addr(1)).hold(1).unwrap_err(), Spent::Share);
        assert_eq!(half.share(addr(2)).hold(21).unwrap_err(), Spent::Budget);
        let rest = whole.share(addr(1)).hold(30).unwrap();
        assert_eq!(whole.share(addr(1)).hold(1).unwrap_err(), Spent::Share);
        let theirs = whole.share(addr(2)).hold(39).unwrap();
        assert_eq!(half.share(addr(2)).hold(2).unwrap_err(), Spent::Budget);
        assert_eq!((half.held_bytes(), whole.held_bytes()), (30, 99));
        drop((held, rest, theirs));
        assert_eq!((half.held_bytes(), whole.held_bytes()), (0, 0));
        assert_eq!((half.peers(), whole.peers()), (0, 0));
    }

    #[test]
    fn what_is_held_grows_and_shrinks_and_a_refusal_changes_nothing() {
        let budget = Budget::new(100, 100);
        let mut held = budget.share(addr(1)).hold(10).unwrap();
        held.grow(50).unwrap();
        assert_eq!(held.grow(41), Err(Spent::Share));
        assert_eq!((held.bytes(), budget.held_bytes()), (60, 60));
        held.resize(5).unwrap();
        assert_eq!((held.bytes(), budget.held_bytes()), (5, 5));
        assert_eq!(held.grow(usize::MAX), Err(Spent::Share));
        drop(held);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn a_peer_that_left_leaves_nothing_behind() {
        let budget = Budget::new(100, 100);
        let shares: Vec<_> = (0..=255).map(|last| budget.share(addr(last))).collect();
        let held = shares[7].hold(1).unwrap();
        assert_eq!(budget.peers(), 256);
        drop(shares);
        assert_eq!(budget.peers(), 1);
        drop(held);
        assert_eq!(budget.peers(), 0);
    }

    #[test]
    fn what_threads_take_at_once_is_all_given_back() {
        let budget = Budget::new(1000, 700);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        let share = budget.share(addr(thread % 2));
                        if let Ok(held) = share.hold(300) {
                            drop(held);
                        }
                    }
                });
            }
        });
        assert_eq!((budget.held_bytes(), budget.peers()), (0, 0));
    }
}
