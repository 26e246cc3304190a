//! What was done with each message, so that a duplicate is not run again (RFC 7252 section 4.5).

use ahash::AHashMap;
use bytes::Bytes;
use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Instant;

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
        match self {
            Self::Answered(datagram) => datagram.len(),
            Self::Running(_) | Self::Acknowledged | Self::Silent => 0,
        }
    }
}

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    expires: Instant,
    sequence: u64,
}

/// The messages of the last minutes, by peer and message id; the oldest go first where they are
/// too many.
#[derive(Debug)]
pub(crate) struct Memory<P> {
    entries: AHashMap<(P, u16), Entry>,
    order: VecDeque<(P, u16, u64)>,
    sequence: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl<P: Eq + Hash + Clone> Memory<P> {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            entries: AHashMap::new(),
            order: VecDeque::new(),
            sequence: 0,
            bytes: 0,
            entries_max: entries_max.max(1),
            bytes_max,
        }
    }

    /// What became of the message, where it is remembered.
    pub(crate) fn recall(&self, now: Instant, peer: &P, message_id: u16) -> Option<&Outcome> {
        let entry = self.entries.get(&(peer.clone(), message_id))?;
        (entry.expires > now).then_some(&entry.outcome)
    }

    pub(crate) fn remember(
        &mut self,
        now: Instant,
        (peer, message_id): (P, u16),
        outcome: Outcome,
        expires: Instant,
    ) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.order.push_back((peer.clone(), message_id, sequence));
        self.bytes += outcome.bytes();
        let entry = Entry {
            outcome,
            expires,
            sequence,
        };
        if let Some(old) = self.entries.insert((peer, message_id), entry) {
            self.bytes -= old.outcome.bytes();
        }
        self.forget(now);
    }

    /// Replaces what became of a message, if it is still remembered.
    pub(crate) fn settle(&mut self, peer: &P, message_id: u16, outcome: Outcome) {
        if let Some(entry) = self.entries.get_mut(&(peer.clone(), message_id)) {
            self.bytes += outcome.bytes();
            self.bytes -= entry.outcome.bytes();
            entry.outcome = outcome;
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops what has expired and, the oldest first, what is too much.
    fn forget(&mut self, now: Instant) {
        while let Some((peer, message_id, sequence)) = self.order.front() {
            let key = (peer.clone(), *message_id);
            let entry = self.entries.get(&key).filter(|e| e.sequence == *sequence);
            let is_over = self.order.len() > self.entries_max || self.bytes > self.bytes_max;
            if entry.is_some_and(|e| e.expires > now) && !is_over {
                return;
            }
            if let Some(entry) = entry {
                self.bytes -= entry.outcome.bytes();
                self.entries.remove(&key);
            }
            self.order.pop_front();
        }
    }
}
