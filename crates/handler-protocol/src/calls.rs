//! The calls of one connection as a state machine: it has no socket and no clock of its own.
//!
//! Frames go in and bytes come out; whoever has the stream says what the time is, waits until
//! [`Calls::deadline`] and then calls [`Calls::expire`]. So every order of frames, cancellations and
//! timers can be tried without waiting for any of them.

use crate::frame::{self, FromHandler, Outcome};
use bytes::BytesMut;
use faas::{Invocation, InvocationId, InvokeError, Reply, RequestPart};
use slab::Slab;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The part of `cancel_grace` or `health_timeout` after which a handler that does not answer gets
/// no more calls.
const DOUBT_AFTER: u32 = 4;
/// A write buffer that has grown above this is given back after it was written.
const WRITE_KEPT_BYTES: usize = 256 << 10;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The handler closed its side, or the stream broke.
    Closed,
    /// The handler broke the protocol.
    Protocol(String),
    /// The handler did not confirm a cancelled invocation in time.
    Stuck,
    /// The handler did not answer a ping in time.
    Silent,
    /// The handler did not read its only call in time, so that nothing of it was run.
    Deaf,
    /// The handler takes no more invocations and finishes those that it has.
    Leaving,
}

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a cancelled invocation may go unconfirmed.
    pub cancel_grace: Duration,
    /// How often an idle handler is pinged.
    pub health_interval: Duration,
    /// How long it may take to answer.
    pub health_timeout: Duration,
}

/// Who waits for a call.
pub(crate) type Waiter = oneshot::Sender<Result<Reply, InvokeError>>;

/// How far a handler is believed to be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// It answers.
    Whole,
    /// It has yet to confirm a cancelled call: others get calls first.
    Doubtful,
    /// It has not answered for a while: it gets no calls.
    None,
}

#[derive(Debug)]
pub(crate) struct Calls {
    calls: Slab<Call>,
    /// Frames to write, of which `written` bytes were.
    out: BytesMut,
    written: usize,
    /// The call whose request is the last frame of all, while no other frame follows it.
    last: Option<usize>,
    is_open: bool,
    is_leaving: bool,
    has_answered: bool,
    /// The calls that were cancelled and are not confirmed.
    cancelled: usize,
    /// Whether one of those has been so for a while.
    is_hung: bool,
    pings: u64,
    pongs: u64,
    health: Health,
    /// When `health` is looked at next.
    health_due: Option<Instant>,
}

#[derive(Debug)]
enum Call {
    Waiting {
        /// Tells this call from a later one that has the same id on the stream.
        invocation: InvocationId,
        reply: Waiter,
    },
    /// Nobody waits any more; the handler has yet to confirm that it is free.
    Cancelled { at: Instant },
}

/// What a handler that says nothing is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Nothing, until the interval is over.
    Resting,
    /// Whether it reads the only call that it has soon. Of a handler that is called all the time one is
    /// always just being read.
    Unread(InvocationId),
    /// Whether it reads that call at all.
    Deaf(InvocationId),
    /// Whether it answers this ping soon.
    Pinged(u64),
    /// Whether it answers this ping at all.
    Late(u64),
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            calls: Slab::new(),
            out: BytesMut::new(),
            written: 0,
            last: None,
            is_open: true,
            is_leaving: false,
            has_answered: false,
            cancelled: 0,
            is_hung: false,
            pings: 0,
            pongs: 0,
            health: Health::Resting,
            health_due: None,
        }
    }

    /// How many calls the handler has, cancelled ones that it has not confirmed included.
    pub(crate) fn busy(&self) -> usize {
        self.calls.len()
    }

    /// Whether anybody waits for a call.
    pub(crate) fn is_awaited(&self) -> bool {
        self.calls.len() > self.cancelled
    }

    /// Whether more calls are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the handler has answered any call.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    pub(crate) fn trust(&self) -> Trust {
        if self.is_hung || self.is_silent() {
            Trust::None
        } else if self.cancelled > 0 {
            Trust::Doubtful
        } else {
            Trust::Whole
        }
    }

    fn is_silent(&self) -> bool {
        matches!(self.health, Health::Deaf(_) | Health::Late(_))
    }

    /// Takes a call. Returns its key, which tells it from the others that there are.
    pub(crate) fn submit(
        &mut self,
        invocation: &Invocation,
        time_left: Duration,
        reply: Waiter,
    ) -> Result<usize, InvokeError> {
        if !self.is_open {
            return Err(InvokeError::NotTaken);
        }
        let key = self.calls.vacant_key();
        let encoded = frame::encode_request(&mut self.out, id_of(key), invocation, time_left);
        if encoded.is_err() {
            let bytes_max = frame::FRAME_BYTES_MAX;
            return Err(InvokeError::TooLarge {
                part: RequestPart::HeadAndBody,
                bytes_max,
            });
        }
        self.last = Some(key);
        let invocation = invocation.id;
        self.calls.insert(Call::Waiting { invocation, reply });
        Ok(key)
    }

    /// Gives a call up. Says whether it was still there: the reply may just have come, and the key
    /// may belong to another call already.
    pub(crate) fn cancel(&mut self, key: usize, cancelled: InvocationId, now: Instant) -> bool {
        let Some(call) = self.calls.get_mut(key) else {
            return false;
        };
        if !matches!(call, Call::Waiting { invocation, .. } if *invocation == cancelled) {
            return false;
        }
        *call = Call::Cancelled { at: now };
        self.cancelled += 1;
        frame::encode_cancel(&mut self.out, id_of(key));
        self.last = None;
        true
    }

    /// Takes the whole frames off the front of what was read. Says how many there were.
    pub(crate) fn receive(&mut self, buffer: &mut BytesMut) -> Result<usize, End> {
        let mut count = 0;
        let was_leaving = self.is_leaving;
        loop {
            match frame::decode_from_handler(buffer) {
                Ok(Some(frame)) => {
                    let taken = self.take(frame);
                    taken.map_err(|reason| End::Protocol(reason.into()))?;
                    count += 1;
                }
                Ok(None) => break,
                Err(error) => return Err(End::Protocol(error.to_string())),
            }
        }
        if self.cancelled == 0 {
            self.is_hung = false;
        }
        if count > 0 && self.is_silent() {
            // It speaks. It is examined again when it would have been given up.
            self.health = Health::Resting;
        }
        if self.is_leaving && !was_leaving {
            return Err(End::Leaving);
        }
        Ok(count)
    }

    fn take(&mut self, frame: FromHandler) -> Result<(), &'static str> {
        match frame {
            FromHandler::Reply { id, outcome } => {
                let key = (id as usize).checked_sub(1);
                match key.and_then(|key| self.calls.try_remove(key)) {
                    Some(Call::Waiting { reply, .. }) => {
                        self.has_answered = true;
                        // Whoever waited may just have gone.
                        drop(reply.send(result_of(outcome)));
                        Ok(())
                    }
                    Some(Call::Cancelled { .. }) => {
                        self.cancelled -= 1;
                        Ok(())
                    }
                    None => Err("a reply to nothing"),
                }
            }
            FromHandler::Pong if self.pongs < self.pings => {
                self.pongs += 1;
                Ok(())
            }
            FromHandler::Pong => Err("a pong to nothing"),
            FromHandler::Leaving if self.is_leaving => Err("a second leaving"),
            FromHandler::Leaving => {
                self.is_open = false;
                self.is_leaving = true;
                Ok(())
            }
            FromHandler::Hello { .. } | FromHandler::Failed(_) => Err("a second hello"),
        }
    }

    /// What is to be written.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many more bytes of that were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written < self.out.len() {
            return;
        }
        self.written = 0;
        if self.out.capacity() > WRITE_KEPT_BYTES {
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
    }

    /// Examines the handler's health after the interval.
    pub(crate) fn rest(&mut self, timing: Timing, now: Instant) {
        self.health = Health::Resting;
        self.health_due = Some(now + timing.health_interval);
    }

    /// When something is due, if nothing comes before; none before [`Calls::rest`].
    pub(crate) fn deadline(&self, timing: Timing) -> Option<Instant> {
        let confirmation = self.oldest_cancelled().map(|at| {
            let part = if self.is_hung { 1 } else { DOUBT_AFTER };
            at + timing.cancel_grace / part
        });
        [confirmation, self.health_due].into_iter().flatten().min()
    }

    /// Does what is due. Returns how the connection ends, where that ends it. `has_unread` tells
    /// whether the handler has yet to read the end of what was written.
    pub(crate) fn expire(
        &mut self,
        timing: Timing,
        now: Instant,
        has_unread: impl FnOnce() -> bool,
    ) -> Option<End> {
        if let Some(at) = self.oldest_cancelled() {
            let waited = now.saturating_duration_since(at);
            if waited >= timing.cancel_grace {
                return Some(End::Stuck);
            }
            self.is_hung |= waited >= timing.cancel_grace / DOUBT_AFTER;
        }
        if self.health_due.is_none_or(|due| now < due) {
            return None;
        }
        self.examine(timing, now, has_unread)
    }

    fn examine(
        &mut self,
        timing: Timing,
        now: Instant,
        has_unread: impl FnOnce() -> bool,
    ) -> Option<End> {
        let is_silent = |calls: &Self, ping| calls.pongs < ping && calls.calls.is_empty();
        match self.health {
            Health::Resting if self.calls.is_empty() => {
                frame::encode_ping(&mut self.out, b"");
                self.last = None;
                self.pings += 1;
                self.health = Health::Pinged(self.pings);
                self.health_due = Some(now + timing.health_timeout / DOUBT_AFTER);
            }
            Health::Resting => match self.untouched(has_unread) {
                Some(invocation) => {
                    self.health = Health::Unread(invocation);
                    self.health_due = Some(now + timing.health_timeout / DOUBT_AFTER);
                }
                None => self.rest(timing, now),
            },
            Health::Unread(before) | Health::Deaf(before) => {
                let is_unread = self.untouched(has_unread) == Some(before);
                match (is_unread, self.health) {
                    (true, Health::Deaf(_)) => return Some(End::Deaf),
                    (true, _) => {
                        self.health = Health::Deaf(before);
                        self.health_due = Some(now + timing.health_timeout);
                    }
                    (false, _) => self.rest(timing, now),
                }
            }
            Health::Pinged(ping) if is_silent(self, ping) => {
                // Either calls have come, in whose company a handler may be slow to answer, or none
                // will come from now on.
                self.health = Health::Late(ping);
                self.health_due = Some(now + timing.health_timeout);
            }
            Health::Late(ping) if is_silent(self, ping) => return Some(End::Silent),
            Health::Pinged(_) | Health::Late(_) => self.rest(timing, now),
        }
        None
    }

    /// The only call, where the handler has not read all of it: what ends its request is the end of
    /// what was written.
    fn untouched(&self, has_unread: impl FnOnce() -> bool) -> Option<InvocationId> {
        let only = self.last.filter(|_| self.calls.len() == 1)?;
        match self.calls.get(only)? {
            Call::Waiting { invocation, .. } if has_unread() => Some(*invocation),
            Call::Waiting { .. } | Call::Cancelled { .. } => None,
        }
    }

    fn oldest_cancelled(&self) -> Option<Instant> {
        if self.cancelled == 0 {
            return None;
        }
        let cancelled = self.calls.iter().filter_map(|(_, call)| match call {
            Call::Waiting { .. } => None,
            Call::Cancelled { at } => Some(*at),
        });
        cancelled.min()
    }

    /// Takes no more calls; those that the handler has go on.
    pub(crate) fn stop_taking(&mut self) {
        self.is_open = false;
    }

    /// Takes no more calls and gives up those that there are. Returns who waits for them.
    pub(crate) fn close(&mut self) -> Vec<Waiter> {
        self.is_open = false;
        self.cancelled = 0;
        let calls = std::mem::take(&mut self.calls);
        let waiters = calls.into_iter().filter_map(|(_, call)| match call {
            Call::Waiting { reply, .. } => Some(reply),
            Call::Cancelled { .. } => None,
        });
        waiters.collect()
    }
}

fn result_of(outcome: Outcome) -> Result<Reply, InvokeError> {
    match outcome {
        Outcome::Reply(reply) => Ok(reply),
        Outcome::Failed(message) => Err(InvokeError::Function(message)),
        Outcome::NotBegun => Err(InvokeError::NotTaken),
    }
}

/// Ids on the wire begin at 1; 0 belongs to no invocation.
fn id_of(key: usize) -> u32 {
    u32::try_from(key + 1).expect("a handler never has four billion invocations at once")
}

#[cfg(test)]
mod tests;
