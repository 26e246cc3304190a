//! Deduplication: what was done with each message that ran something, so that a duplicate is not
//! run again (RFC 7252 section 4.5).

use crate::arena::{Arena, NONE};
use crate::peer::Peer;
use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use hashbrown::HashTable;
use net::{Account, Budget, Spent};
use std::sync::Arc;
use std::time::Instant;

/// What an entry takes beside its datagram: itself, its slot in the table, which leaves room free, and
/// what the allocator and the sharing of the datagram take.
const OVERHEAD_BYTES: usize = 184;
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

#[derive(Debug)]
struct Entry<P> {
    peer: P,
    message_id: u16,
    class: Class,
    /// In milliseconds of [`Deduplicator::millis`].
    expires: u32,
    outcome: Outcome,
    /// Its neighbours among those of its class and among those of its host.
    links: [Link; 2],
}

/// The numbers of the entries before and after one.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

const UNLINKED: Link = Link {
    before: NONE,
    after: NONE,
};

/// Which order an entry stands in.
#[derive(Debug, Clone, Copy)]
enum Order {
    OfClass,
    OfHost,
}

/// The oldest and the newest entry of an order.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

const EMPTY: Ends = Ends {
    first: NONE,
    last: NONE,
};

/// The entries of one host, and what they take.
#[derive(Debug)]
struct Host {
    ends: Ends,
    entries: usize,
    account: Account,
}

/// The messages of the last minutes that ran something, by peer and message id.
///
/// Where they are too many, or what clients may hold is spent, a host that holds more than its
/// share loses its own oldest; else the oldest of the least harmful class goes.
#[derive(Debug)]
pub(crate) struct Deduplicator<P: Peer> {
    entries: Arena<Entry<P>>,
    /// The entries' numbers, by peer and message id.
    names: HashTable<u32>,
    hasher: RandomState,
    hosts: AHashMap<net::Peer, Host>,
    of_class: [Ends; CLASSES],
    /// When milliseconds began to be counted.
    began: Option<Instant>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    budget: Arc<Budget>,
}

impl<P: Peer> Deduplicator<P> {
    pub(crate) fn new(entries_max: usize, bytes_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            entries: Arena::new(),
            names: HashTable::new(),
            hasher: RandomState::new(),
            hosts: AHashMap::new(),
            of_class: [EMPTY; CLASSES],
            began: None,
            bytes: 0,
            entries_max: entries_max.max(1),
            bytes_max,
            budget,
        }
    }

    /// What became of the message, where it is remembered.
    pub(crate) fn recall(&self, now: Instant, peer: &P, message_id: u16) -> Option<&Outcome> {
        let entry = self.entries.get(self.find(peer, message_id)?)?;
        (!has_expired(entry.expires, self.millis(now))).then_some(&entry.outcome)
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
        self.began.get_or_insert(now);
        self.forget(peer, message_id);
        self.expire(now);
        let (host, bytes) = (peer.host(), outcome.bytes());
        self.charge(host, bytes)?;
        self.bytes += bytes;
        let at = self.entries.insert(Entry {
            peer: peer.clone(),
            message_id,
            class,
            expires: self.millis(expires),
            outcome,
            links: [UNLINKED; 2],
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |at: &u32| hash_of(hasher, entries, *at);
        self.names.insert_unique(hash(&at), at, hash);
        push(
            &mut self.entries,
            (Order::OfClass, &mut self.of_class[class as usize]),
            at,
        );
        if let Some(host) = self.hosts.get_mut(&host) {
            host.entries += 1;
            push(&mut self.entries, (Order::OfHost, &mut host.ends), at);
        }
        self.make_room(host);
        Ok(())
    }

    /// Takes a host's bytes from the budget for an entry; older entries make room for it.
    fn charge(&mut self, host: net::Peer, bytes: usize) -> Result<(), Spent> {
        loop {
            let spent = match self.try_charge(host, bytes) {
                Ok(()) => return Ok(()),
                Err(spent) => spent,
            };
            if !self.drop_one(host, spent) {
                return Err(spent);
            }
        }
    }

    fn try_charge(&mut self, host: net::Peer, bytes: usize) -> Result<(), Spent> {
        if let Some(known) = self.hosts.get_mut(&host) {
            return known.account.take(bytes);
        }
        let mut account = Account::open(&self.budget, host)?;
        account.take(bytes)?;
        let first = Host {
            ends: EMPTY,
            entries: 0,
            account,
        };
        self.hosts.insert(host, first);
        Ok(())
    }

    /// Drops an entry where the budget is spent; false where none is left that may go.
    fn drop_one(&mut self, newest: net::Peer, spent: Spent) -> bool {
        match spent {
            Spent::Share => self.drop_oldest_of(newest),
            Spent::Budget => self.drop_least(newest),
        }
    }

    /// Replaces what became of a message, if it is still remembered.
    pub(crate) fn settle(&mut self, peer: &P, message_id: u16, outcome: Outcome) {
        let Some(at) = self.find(peer, message_id) else {
            return;
        };
        let Some(entry) = self.entries.get(at) else {
            return;
        };
        let (before, after) = (entry.outcome.bytes(), outcome.bytes());
        let (more, less) = (after.saturating_sub(before), before.saturating_sub(after));
        while let Some(host) = self.hosts.get_mut(&peer.host())
            && let Err(spent) = host.account.take(more)
        {
            // It may have been the one that had to go.
            if !self.drop_one(peer.host(), spent) || self.entries.get(at).is_none() {
                return;
            }
        }
        if let Some(entry) = self.entries.get_mut(at) {
            entry.outcome = outcome;
        }
        self.bytes = self.bytes + after - before;
        if let Some(host) = self.hosts.get_mut(&peer.host()) {
            host.account.give(less);
        }
        if self.bytes > self.bytes_max {
            self.make_room(peer.host());
        }
    }

    /// Drops a message that turned out to have run nothing.
    pub(crate) fn forget(&mut self, peer: &P, message_id: u16) {
        if let Some(at) = self.find(peer, message_id) {
            self.drop_entry(at);
        }
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity() + self.names.capacity()
    }

    fn find(&self, peer: &P, message_id: u16) -> Option<u32> {
        let hash = self.hasher.hash_one((peer, message_id));
        let is_it = |at: &u32| {
            let entry = self.entries.get(*at);
            entry.is_some_and(|entry| entry.message_id == message_id && entry.peer == *peer)
        };
        self.names.find(hash, is_it).copied()
    }

    /// The time as entries keep it. It comes around after 49 days; they live for minutes.
    fn millis(&self, time: Instant) -> u32 {
        let began = self.began.unwrap_or(time);
        let millis = time.saturating_duration_since(began).as_millis();
        u32::try_from(millis & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    fn is_over(&self) -> bool {
        self.len() > self.entries_max || self.bytes > self.bytes_max
    }

    fn is_over_share(&self, host: &Host) -> bool {
        host.entries > self.entries_max / HOST_SHARE
            || host.account.bytes() > self.bytes_max / HOST_SHARE
    }

    /// Drops what has expired and gives unused room back to the allocator.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.expire(now);
        let entries = self.len();
        if self.entries.capacity().max(self.names.capacity()) <= 4 * entries.max(16) {
            return;
        }
        let renamed = self.entries.compact();
        let new = |at: &mut u32| {
            let index = usize::try_from(*at).unwrap_or(usize::MAX);
            *at = renamed.get(index).copied().unwrap_or(NONE);
        };
        for at in renamed.iter().filter(|at| **at != NONE) {
            let entry = self.entries.get_mut(*at);
            for link in entry.into_iter().flat_map(|entry| &mut entry.links) {
                new(&mut link.before);
                new(&mut link.after);
            }
        }
        let of_hosts = self.hosts.values_mut().map(|host| &mut host.ends);
        for ends in self.of_class.iter_mut().chain(of_hosts) {
            new(&mut ends.first);
            new(&mut ends.last);
        }
        self.names.iter_mut().for_each(new);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.names
            .shrink_to(2 * entries.len(), |at| hash_of(hasher, entries, *at));
        self.hosts.shrink_to(2 * entries.len());
    }

    /// Drops what has expired. Entries of one class expire in the order in which they came.
    fn expire(&mut self, now: Instant) {
        let now = self.millis(now);
        for class in 0..CLASSES {
            let oldest = |seen: &Self| seen.of_class[class].first;
            while let Some(entry) = self.entries.get(oldest(self))
                && has_expired(entry.expires, now)
            {
                self.drop_entry(oldest(self));
            }
        }
    }

    fn make_room(&mut self, newest: net::Peer) {
        while self.is_over() && self.drop_least(newest) {}
    }

    /// Drops the oldest entry of a host over its share, or of the least harmful class; false where
    /// there is none.
    fn drop_least(&mut self, newest: net::Peer) -> bool {
        let own = self.hosts.get(&newest);
        if own.is_some_and(|host| host.entries > 1 && self.is_over_share(host)) {
            return self.drop_oldest_of(newest);
        }
        let oldest = self.of_class.iter().map(|ends| ends.first);
        let oldest = oldest.into_iter().find(|at| *at != NONE);
        oldest.is_some_and(|at| self.drop_entry(at))
    }

    fn drop_oldest_of(&mut self, host: net::Peer) -> bool {
        let oldest = self.hosts.get(&host).map(|host| host.ends.first);
        oldest.is_some_and(|at| self.drop_entry(at))
    }

    /// False where there is no such entry.
    fn drop_entry(&mut self, at: u32) -> bool {
        let Some(entry) = self.entries.get(at) else {
            return false;
        };
        let (class, host) = (entry.class as usize, entry.peer.host());
        let hash = hash_of(&self.hasher, &self.entries, at);
        if let Ok(name) = self.names.find_entry(hash, |other| *other == at) {
            name.remove();
        }
        unlink(
            &mut self.entries,
            (Order::OfClass, &mut self.of_class[class]),
            at,
        );
        if let Some(of_host) = self.hosts.get_mut(&host) {
            unlink(&mut self.entries, (Order::OfHost, &mut of_host.ends), at);
            of_host.entries -= 1;
        }
        let bytes = self
            .entries
            .remove(at)
            .map_or(0, |entry| entry.outcome.bytes());
        self.bytes -= bytes;
        if let Some(of_host) = self.hosts.get_mut(&host) {
            of_host.account.give(bytes);
            if of_host.entries == 0 {
                self.hosts.remove(&host);
            }
        }
        true
    }
}

fn hash_of<P: Peer>(hasher: &RandomState, entries: &Arena<Entry<P>>, at: u32) -> u64 {
    let entry = entries.get(at);
    entry.map_or(0, |entry| hasher.hash_one((&entry.peer, entry.message_id)))
}

/// Whether a time of entries has come: within half of the round that they go.
fn has_expired(expires: u32, now: u32) -> bool {
    now.wrapping_sub(expires) < 1 << 31
}

/// Puts an entry at the end of an order.
fn push<P>(entries: &mut Arena<Entry<P>>, (order, ends): (Order, &mut Ends), at: u32) {
    let last = std::mem::replace(&mut ends.last, at);
    if let Some(entry) = entries.get_mut(at) {
        entry.links[order as usize] = Link {
            before: last,
            after: NONE,
        };
    }
    match entries.get_mut(last) {
        Some(entry) => entry.links[order as usize].after = at,
        None => ends.first = at,
    }
}

/// Takes an entry out of an order.
fn unlink<P>(entries: &mut Arena<Entry<P>>, (order, ends): (Order, &mut Ends), at: u32) {
    let Some(entry) = entries.get(at) else {
        return;
    };
    let Link { before, after } = entry.links[order as usize];
    match entries.get_mut(before) {
        Some(entry) => entry.links[order as usize].after = after,
        None => ends.first = after,
    }
    match entries.get_mut(after) {
        Some(entry) => entry.links[order as usize].before = before,
        None => ends.last = before,
    }
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
    fn what_is_forgotten_leaves_nothing_behind() {
        let mut table = Table::new(1000);
        for id in 0..10_000 {
            table.remember(1, id, Class::Safe);
            table.seen.forget(&1, id);
        }
        assert!(table.seen.capacity() <= 128, "{}", table.seen.capacity());
        assert!(table.seen.hosts.is_empty() && table.seen.names.is_empty());
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

    #[test]
    fn a_message_expires_in_its_time_on_whatever_day() {
        let mut table = Table::new(1000);
        for day in 0..120 {
            let id = u16::try_from(day).unwrap();
            table.remember(1, id, Class::Unsafe);
            table.now += LIFETIME - Duration::from_millis(1);
            assert!(table.has(1, id), "day {day}");
            table.now += Duration::from_millis(1);
            assert!(!table.has(1, id), "day {day}");
            table.seen.sweep(table.now);
            assert!(table.seen.is_empty());
            table.now += Duration::from_secs(24 * 60 * 60);
        }
    }

    #[test]
    fn orders_and_names_outlast_a_sweep() {
        let mut table = Table::new(10_000);
        for id in 0..9000_u16 {
            let host = u8::try_from(id % 3).unwrap();
            table.remember(host, id, Class::Safe);
        }
        for id in (0..9000).filter(|id| id % 100 != 0) {
            table.seen.forget(&u8::try_from(id % 3).unwrap(), id);
        }
        table.seen.sweep(table.now);
        assert!(table.seen.capacity() < 1000, "{}", table.seen.capacity());
        for id in (0..9000_u16).step_by(100) {
            assert!(table.has(u8::try_from(id % 3).unwrap(), id));
        }
        // Each order still goes from the oldest to the newest.
        table.seen.drop_oldest_of(crate::peer::Peer::host(&1_u8));
        assert!(!table.has(1, 100) && table.has(1, 400));
        table.seen.drop_least(crate::peer::Peer::host(&9_u8));
        assert!(!table.has(0, 0) && table.has(2, 200));
        assert_eq!(table.seen.len(), 88);
    }

    #[test]
    fn an_entry_takes_no_more_than_is_counted() {
        /// As the endpoint's.
        type Peer = (std::net::SocketAddr, Option<std::net::IpAddr>);
        let entry = size_of::<Option<Entry<Peer>>>();
        // A number and a byte, of slots that may be half of those that are taken.
        let name = (size_of::<u32>() + 1) * 16 / 7;
        // Two allocations for a shared datagram.
        let datagram = size_of::<usize>() * 6;
        assert!(entry + name + datagram <= OVERHEAD_BYTES, "{entry} {name}");
    }
}
