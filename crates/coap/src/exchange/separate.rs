//! Separate responses until they are acknowledged, RFC 7252 sections 4.2 and 5.2.2.

use crate::peer::Peer;
use crate::transmission::Backoff;
use ahash::AHashMap;
use bytes::Bytes;
use net::{Budget, Held};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Unacknowledged {
    datagram: Bytes,
    backoff: Backoff,
    due: (Instant, u64),
    held: Held,
}

/// What a response takes beside its datagram: the key in two tables, and the room that these
/// leave free.
const OVERHEAD_BYTES: usize = 320;

#[derive(Debug)]
pub(super) struct Separate<P> {
    entries: AHashMap<(P, u16), Unacknowledged>,
    due: BTreeMap<(Instant, u64), (P, u16)>,
    sequence: u64,
    entries_max: usize,
    budget: Arc<Budget>,
}

impl<P: Peer> Separate<P> {
    pub(super) fn new(entries_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            entries_max,
            budget,
            entries: AHashMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Keeps a response that is being sent for the first time. Where too many wait for their
    /// acknowledgement already, or there is no memory for it, it is not sent again.
    pub(super) fn send(&mut self, now: Instant, key: (P, u16), datagram: Bytes, timeout: Duration) {
        self.settle(&key.0, key.1);
        if self.entries.len() >= self.entries_max {
            return;
        }
        let share = self.budget.share(key.0.host());
        let Ok(held) = share.hold(OVERHEAD_BYTES + datagram.len()) else {
            return;
        };
        self.wait(now, key, (datagram, held), Backoff::new(timeout));
    }

    /// The response was acknowledged, or the client does not want it.
    pub(super) fn settle(&mut self, peer: &P, message_id: u16) {
        if self.entries.is_empty() {
            return;
        }
        if let Some(entry) = self.entries.remove(&(peer.clone(), message_id)) {
            self.due.remove(&entry.due);
        }
    }

    /// Sends again what is due, and gives up what was sent often enough.
    pub(super) fn expire(&mut self, now: Instant, outgoing: &mut VecDeque<(P, Bytes)>) {
        while self.next_due().is_some_and(|due| due <= now) {
            let Some((_, key)) = self.due.pop_first() else {
                return;
            };
            let Some(mut entry) = self.entries.remove(&key) else {
                continue;
            };
            if entry.backoff.advance() {
                outgoing.push_back((key.0.clone(), entry.datagram.clone()));
                self.wait(now, key, (entry.datagram, entry.held), entry.backoff);
            }
        }
    }

    fn wait(
        &mut self,
        now: Instant,
        key: (P, u16),
        (datagram, held): (Bytes, Held),
        backoff: Backoff,
    ) {
        self.sequence += 1;
        let due = (now + backoff.timeout(), self.sequence);
        self.due.insert(due, key.clone());
        let entry = Unacknowledged {
            datagram,
            backoff,
            due,
            held,
        };
        self.entries.insert(key, entry);
    }
}
