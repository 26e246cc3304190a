//! Deduplication: what was done with each message that ran something, so that a duplicate is not
//! run again (RFC 7252 section 4.5).

use crate::peer::Peer;
use ahash::AHashMap;
use bytes::Bytes;
use net::{Account, Budget, Spent};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What an entry takes beside its datagram: the key twice, its places in three queues, and the
/// room that a hash table leaves free.
const OVERHEAD_BYTES: usize = 320;
/// A host may hold this part of all room before its own oldest entries go first.
const HOST_SHARE: usize = 4;

/// What became of a message.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Its request is running. Nothing was sent yet.
    Running(u64),
    /// It was acknowledged, the response is or will be another message.
    Acknowledged,
    /// It was answered with this datagram.
    Answered(Bytes),
    /// It is never answered.
    Silent,
}

impl Outcome {
    fn bytes(&self) -> usize {
        let datagram = match self {
            Self::Answered(datagram) => datagram.len(),
            Self::Running(_) | Self::Acknowledged | Self::Silent => 0,
        };
        datagram + OVERHEAD_BYTES
    }
}

/// How much harm a second run would do; the least harmful entries make room first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A non-confirmable message, which its sender does not send again.
    NonConfirmable,
    /// A confirmable message whose method is safe (RFC 7252 section 5.1).
    Safe,
    /// A confirmable message that may change something.
    Unsafe,
}

const CLASSES: usize = 3;

/// Names an entry: where a key was used again, only the newest number is meant.
type Place<P> = (P, u16, u64);

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    expires: Instant,
    number: u64,
}

/// The entries of one host, the oldest first; those that are gone are skipped.
#[derive(Debug)]
struct Host<P> {
    order: VecDeque<Place<P>>,
    entries: usize,
    account: Account,
}

/// The messages of the last minutes that ran something, by peer and message id.
///
/// Where they are too many, or what clients may hold is spent, a host that holds more than its
/// share loses its own oldest; else the oldest of the least harmful class goes.
#[derive(Debug)]
pub(crate) struct Deduplicator<P: Peer> {
    entries: AHashMap<(P, u16), Entry>,
    hosts: AHashMap<net::Peer, Host<P>>,
    order: [VecDeque<Place<P>>; CLASSES],
    number: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    budget: Arc<Budget>,
}

impl<P: Peer> Deduplicator<P> {
    pub(crate) fn new(entries_max: usize, bytes_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            entries: AHashMap::new(),
            hosts: AHashMap::new(),
            order: std::array::from_fn(|_| VecDeque::new()),
            number: 0,
            bytes: 0,
            entries_max: entries_max.max(1),
            bytes_max,
            budget,
        }
    }

    /// What became of the message, where it is remembered.
    pub(crate) fn recall(&self, now: Instant, peer: &P, message_id: u16) -> Option<&Outcome> {
        let entry = self.entries.get(&(peer.clone(), message_id))?;
        (entry.expires > now).then_some(&entry.outcome)
    }

    /// Remembers a message whose request runs from now on.
    ///
    /// # Errors
    /// If what clients may hold is spent by others.
    pub(crate) fn remember(
        &mut self,
        now: Instant,
        (peer, message_id): (&P, u16),
        (class, outcome): (Class, Outcome),
        expires: Instant,
    ) -> Result<(), Spent> {
        self.forget(peer, message_id);
        self.expire(now);
        self.number += 1;
        let (number, bytes) = (self.number, outcome.bytes());
        let place = (peer.clone(), message_id, number);
        self.charge(peer.host(), bytes, &place)?;
        self.order[class as usize].push_back(place);
        self.bytes += bytes;
        let entry = Entry {
            outcome,
            expires,
            number,
        };
        self.entries.insert((peer.clone(), message_id), entry);
        self.make_room(peer.host());
        Ok(())
    }

    /// Takes a host's bytes from the budget for an entry; older entries make room for it.
    fn charge(&mut self, host: net::Peer, bytes: usize, place: &Place<P>) -> Result<(), Spent> {
        loop {
            let spent = match self.try_charge(host, bytes, place) {
                Ok(()) => return Ok(()),
                Err(spent) => spent,
            };
            if !self.drop_one(host, spent) {
                return Err(spent);
            }
        }
    }

    fn try_charge(&mut self, host: net::Peer, bytes: usize, place: &Place<P>) -> Result<(), Spent> {
        if let Some(known) = self.hosts.get_mut(&host) {
            known.account.take(bytes)?;
            known.entries += 1;
            known.order.push_back(place.clone());
            return Ok(());
        }
        let mut account = Account::open(&self.budget, host)?;
        account.take(bytes)?;
        let host_of_one = Host {
            order: VecDeque::from([place.clone()]),
            entries: 1,
            account,
        };
        self.hosts.insert(host, host_of_one);
        Ok(())
    }

    /// Drops an entry where the budget is spent; false where none is left that may go.
    fn drop_one(&mut self, newest: net::Peer, spent: Spent) -> bool {
        match spent {
            Spent::Share if self.hosts.contains_key(&newest) => self.drop_oldest_of(newest),
            Spent::Budget if !self.entries.is_empty() => self.drop_least(newest),
            Spent::Share | Spent::Budget => return false,
        }
        true
    }

    /// Replaces what became of a message, if it is still remembered.
    pub(crate) fn settle(&mut self, peer: &P, message_id: u16, outcome: Outcome) {
        let Some(entry) = self.entries.get_mut(&(peer.clone(), message_id)) else {
            return;
        };
        let (before, after) = (entry.outcome.bytes(), outcome.bytes());
        let more = after.saturating_sub(before);
        while let Some(host) = self.hosts.get_mut(&peer.host())
            && let Err(spent) = host.account.take(more)
        {
            self.drop_one(peer.host(), spent);
        }
        // It may have been the one that had to go.
        let Some(entry) = self.entries.get_mut(&(peer.clone(), message_id)) else {
            if let Some(host) = self.hosts.get_mut(&peer.host()) {
                host.account.give(more);
            }
            return;
        };
        entry.outcome = outcome;
        self.bytes = self.bytes + after - before;
        if let Some(host) = self.hosts.get_mut(&peer.host()) {
            host.account.give(before.saturating_sub(after));
        }
        if self.bytes > self.bytes_max {
            self.make_room(peer.host());
        }
    }

    /// Drops a message that turned out to have run nothing.
    pub(crate) fn forget(&mut self, peer: &P, message_id: u16) {
        let Some(entry) = self.entries.remove(&(peer.clone(), message_id)) else {
            return;
        };
        self.bytes -= entry.outcome.bytes();
        let key = peer.host();
        if let Some(host) = self.hosts.get_mut(&key) {
            host.entries -= 1;
            host.account.give(entry.outcome.bytes());
            if host.entries == 0 {
                self.hosts.remove(&key);
            } else if host.order.len() > 2 * host.entries + 16 {
                let entries = &self.entries;
                host.order.retain(|place| is_current(entries, place));
            }
        }
        self.compact();
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        let queues: usize = self.order.iter().map(VecDeque::capacity).sum();
        self.entries.capacity() + queues
    }

    fn is_over(&self) -> bool {
        self.entries.len() > self.entries_max || self.bytes > self.bytes_max
    }

    fn is_over_share(&self, host: &Host<P>) -> bool {
        host.entries > self.entries_max / HOST_SHARE
            || host.account.bytes() > self.bytes_max / HOST_SHARE
    }

    /// Drops what has expired and gives unused room back to the allocator.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.expire(now);
        let entries = self.entries.len();
        if self.entries.capacity() > 4 * entries {
            self.entries.shrink_to(2 * entries);
            self.hosts.shrink_to(2 * entries);
            for order in &mut self.order {
                order.shrink_to(2 * entries);
            }
        }
    }

    /// Drops what has expired. Entries of one class expire in the order in which they came.
    fn expire(&mut self, now: Instant) {
        for class in 0..CLASSES {
            while let Some(place) = self.order[class].front() {
                let entry = self.entries.get(&(place.0.clone(), place.1));
                if entry.is_some_and(|e| e.number == place.2 && e.expires > now) {
                    break;
                }
                self.drop_front(class);
            }
        }
    }

    fn make_room(&mut self, newest: net::Peer) {
        while self.is_over() && !self.entries.is_empty() {
            self.drop_least(newest);
        }
    }

    /// Drops the oldest entry of a host over its share, or of the least harmful class.
    fn drop_least(&mut self, newest: net::Peer) {
        let own = self.hosts.get(&newest);
        if own.is_some_and(|host| host.entries > 1 && self.is_over_share(host)) {
            self.drop_oldest_of(newest);
        } else if let Some(class) = (0..CLASSES).find(|class| !self.order[*class].is_empty()) {
            self.drop_front(class);
        }
    }

    fn drop_oldest_of(&mut self, host: net::Peer) {
        let host = self.hosts.get_mut(&host);
        if let Some(place) = host.and_then(|host| host.order.pop_front()) {
            self.drop_entry(&place);
        }
    }

    fn drop_front(&mut self, class: usize) {
        if let Some(place) = self.order[class].pop_front() {
            self.drop_entry(&place);
        }
    }

    fn drop_entry(&mut self, place: &Place<P>) {
        if is_current(&self.entries, place) {
            self.forget(&place.0, place.1);
        }
    }

    /// Keeps the queues from growing by places whose entries are gone.
    fn compact(&mut self) {
        let places: usize = self.order.iter().map(VecDeque::len).sum();
        if places > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            for order in &mut self.order {
                order.retain(|place| is_current(entries, place));
            }
        }
    }
}

fn is_current<P: Peer>(entries: &AHashMap<(P, u16), Entry>, place: &Place<P>) -> bool {
    let entry = entries.get(&(place.0.clone(), place.1));
    entry.is_some_and(|entry| entry.number == place.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIFETIME: Duration = Duration::from_secs(247);

    struct Table {
        seen: Deduplicator<u8>,
        now: Instant,
    }

    impl Table {
        fn new(entries_max: usize) -> Self {
            Self {
                seen: Deduplicator::new(entries_max, usize::MAX, Budget::new(1 << 30, 1 << 30)),
                now: Instant::now(),
            }
        }

        fn remember(&mut self, peer: u8, id: u16, class: Class) {
            let what = (class, Outcome::Silent);
            let expires = self.now + LIFETIME;
            let remembered = self.seen.remember(self.now, (&peer, id), what, expires);
            remembered.unwrap();
        }

        fn has(&self, peer: u8, id: u16) -> bool {
            self.seen.recall(self.now, &peer, id).is_some()
        }
    }

    #[test]
    fn one_host_does_not_wash_out_another() {
        let mut table = Table::new(100);
        for id in 0..20 {
            table.remember(1, id, Class::Unsafe);
        }
        for id in 0..10_000 {
            table.remember(2, id, Class::Unsafe);
        }
        assert!((0..20).all(|id| table.has(1, id)));
        assert!(table.has(2, 9_999), "the newest of the flood is remembered");
        assert_eq!(table.seen.len(), 100);
    }

    #[test]
    fn what_does_the_least_harm_makes_room_first() {
        let mut table = Table::new(8);
        table.remember(1, 1, Class::Unsafe);
        table.remember(2, 1, Class::Safe);
        table.remember(3, 1, Class::NonConfirmable);
        for host in 4..=9 {
            table.remember(host, 1, Class::Unsafe);
        }
        assert!(!table.has(3, 1));
        assert!(table.has(2, 1));
        table.remember(10, 1, Class::Unsafe);
        assert!(!table.has(2, 1));
        assert!(table.has(1, 1));
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_in_the_queues() {
        let mut table = Table::new(1000);
        for id in 0..10_000 {
            table.remember(1, id, Class::Safe);
            table.seen.forget(&1, id);
        }
        let places: usize = table.seen.order.iter().map(VecDeque::len).sum();
        assert!(places <= 64, "{places}");
        assert!(table.seen.hosts.is_empty());
        assert_eq!((table.seen.len(), table.seen.bytes), (0, 0));
    }

    #[test]
    fn bytes_follow_what_is_kept() {
        let mut table = Table::new(1000);
        table.seen.bytes_max = 10 * (OVERHEAD_BYTES + 1000);
        for host in 0..100_u8 {
            table.remember(host, 7, Class::Safe);
            let answer = Outcome::Answered(Bytes::from(vec![0; 1000]));
            table.seen.settle(&host, 7, answer);
            assert!(table.seen.bytes <= table.seen.bytes_max);
        }
        assert!(table.has(99, 7));
        table.now += LIFETIME;
        table.remember(1, 1, Class::Safe);
        assert_eq!(table.seen.bytes, OVERHEAD_BYTES);
    }
}
