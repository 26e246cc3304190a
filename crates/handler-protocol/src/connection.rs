//! One stream to one handler, shared by many invocations.

use crate::frame::{self, FromHandler, Outcome};
pub use crate::stream::Stream;
use crate::stream::Unread;
use bytes::BytesMut;
use faas::{FunctionName, Invocation, InvocationId, InvokeError, Reply, RequestPart};
use slab::Slab;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Reads that bring less than this and complete no frame are small.
const SMALL_READ_BYTES: usize = 1 << 10;
/// So many of them in a row are taken as they come; from then on each is waited for.
const SMALL_READS_MAX: u32 = 64;
/// How long, in which more can come together.
const SMALL_READ_PAUSE: Duration = Duration::from_millis(1);
/// The part of `cancel_grace` or `health_timeout` after which a handler that does not answer gets
/// no more calls.
const DOUBT_AFTER: u32 = 4;
/// What the load of a handler that may be hung is raised by, to have others take its calls.
const DOUBT_LOAD: usize = 1 << 20;
/// A write buffer that has grown above this is given back after it was written.
const WRITE_KEPT_BYTES: usize = 256 << 10;

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The handler said that it can't load the function, and why.
    #[error("the function could not be loaded")]
    Failed(String),
    /// The handler ended before it said hello.
    #[error("the handler ended before it was ready")]
    Ended,
    /// The handler broke the protocol.
    #[error("the handler's first words were no hello ({0})")]
    Protocol(String),
}

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

/// A stream to a handler that has said hello. Many invocations share it, told apart by ids.
///
/// Nothing happens unless [`Connection::run`] is polled.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    at_once: u16,
    name: FunctionName,
    state: Mutex<State>,
    /// What was read and is not a whole frame yet, while nothing runs.
    unread: Mutex<BytesMut>,
    /// The calls in `state`, to be read without its lock.
    busy: AtomicUsize,
    /// Those of them that were cancelled and are not confirmed.
    cancelled: AtomicUsize,
    /// Whether one of those has been so for a while.
    is_hung: AtomicBool,
    /// Whether a ping has gone unanswered for a while.
    is_silent: AtomicBool,
    write_wanted: Notify,
    /// A call was cancelled, or the last one ended where no more are taken.
    calls_changed: Notify,
}

#[derive(Debug)]
struct State {
    calls: Slab<Call>,
    out: BytesMut,
    /// The call whose request is the last frame of all, while no other frame follows it.
    last: Option<usize>,
    /// The start of `out` that was written already.
    written: usize,
    is_open: bool,
    is_leaving: bool,
    has_answered: bool,
    cancelled: usize,
    pings: u64,
    pongs: u64,
}

#[derive(Debug)]
enum Call {
    Waiting {
        /// Tells this call from a later one that has the same id on the stream.
        invocation: InvocationId,
        reply: oneshot::Sender<Result<Reply, InvokeError>>,
    },
    /// Nobody waits any more; the handler has yet to confirm that it is free.
    Cancelled { at: Instant },
}

impl Connection {
    /// Waits for the handler's hello. The caller bounds the time.
    ///
    /// # Errors
    /// If the handler says something else or nothing. The stream is closed then.
    pub async fn open(stream: Stream, name: FunctionName) -> Result<Self, HelloError> {
        let mut buffer = BytesMut::with_capacity(1024);
        let at_once = loop {
            match frame::decode_from_handler(&mut buffer) {
                Ok(Some(FromHandler::Hello { at_once })) => break at_once,
                Ok(Some(FromHandler::Failed(reason))) => return Err(HelloError::Failed(reason)),
                Ok(Some(FromHandler::Reply { .. } | FromHandler::Pong | FromHandler::Leaving)) => {
                    return Err(HelloError::Protocol("a reply to nothing".into()));
                }
                Ok(None) => {}
                Err(error) => return Err(HelloError::Protocol(error.to_string())),
            }
            match stream.read_some(&mut buffer).await {
                Ok(0) | Err(_) => return Err(HelloError::Ended),
                Ok(_) => {}
            }
        };
        if !buffer.is_empty() {
            return Err(HelloError::Protocol("a reply to nothing".into()));
        }
        let state = State {
            calls: Slab::new(),
            out: BytesMut::new(),
            last: None,
            written: 0,
            is_open: true,
            is_leaving: false,
            has_answered: false,
            cancelled: 0,
            pings: 0,
            pongs: 0,
        };
        Ok(Self {
            stream,
            at_once,
            name,
            state: Mutex::new(state),
            unread: Mutex::new(BytesMut::new()),
            busy: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            is_hung: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            write_wanted: Notify::new(),
            calls_changed: Notify::new(),
        })
    }

    /// How many invocations the handler wants at once.
    #[must_use]
    pub fn at_once(&self) -> u16 {
        self.at_once
    }

    /// How many invocations the handler has, cancelled ones that it has not confirmed included.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// What the handler has to do, raised where it may be hung.
    #[must_use]
    pub fn load(&self) -> usize {
        let is_in_doubt =
            self.cancelled.load(Ordering::Relaxed) > 0 || self.is_silent.load(Ordering::Relaxed);
        self.busy() + if is_in_doubt { DOUBT_LOAD } else { 0 }
    }

    /// Whether the handler should get invocations: not where it has not answered for a while.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        !self.is_hung.load(Ordering::Relaxed) && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Gives an invocation to the handler and waits for the reply. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`InvokeError::NotTaken`] where the connection takes none any more, and what
    /// [`Connection::close`] says where it ends during the call.
    pub async fn invoke(
        &self,
        invocation: &Invocation,
        time_left: Duration,
    ) -> Result<Reply, InvokeError> {
        let (sender, receiver) = oneshot::channel();
        let key = self.submit(invocation, time_left, sender)?;
        let mut cancel = CancelOnDrop {
            connection: self,
            key,
            invocation: invocation.id,
            is_armed: true,
        };
        let outcome = receiver.await;
        cancel.is_armed = false;
        outcome.unwrap_or_else(|_dropped| Err(self.died("the connection was dropped".into())))
    }

    fn submit(
        &self,
        invocation: &Invocation,
        time_left: Duration,
        sender: oneshot::Sender<Result<Reply, InvokeError>>,
    ) -> Result<usize, InvokeError> {
        let mut state = self.lock();
        if !state.is_open {
            return Err(InvokeError::NotTaken);
        }
        let key = state.calls.vacant_key();
        let encoded = frame::encode_request(&mut state.out, id_of(key), invocation, time_left);
        if encoded.is_err() {
            let bytes_max = frame::FRAME_BYTES_MAX;
            return Err(InvokeError::TooLarge {
                part: RequestPart::HeadAndBody,
                bytes_max,
            });
        }
        state.last = Some(key);
        let (invocation, reply) = (invocation.id, sender);
        state.calls.insert(Call::Waiting { invocation, reply });
        self.busy.store(state.calls.len(), Ordering::Relaxed);
        // Alone, an invocation is written here and now, which saves waking the writer. In
        // company it is left to the writer, which sends what has come together in one call.
        if state.calls.len() > 1 || !self.write_now(&mut state) {
            drop(state);
            self.write_wanted.notify_one();
        }
        Ok(key)
    }

    /// Writes what is waiting without blocking; whether all of it was written. A broken stream
    /// counts as written: the reader finds out.
    fn write_now(&self, state: &mut State) -> bool {
        while state.written < state.out.len() {
            match self.stream.try_write(&state.out[state.written..]) {
                Ok(count) => state.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_broken) => break,
            }
        }
        state.written = 0;
        if state.out.capacity() > WRITE_KEPT_BYTES {
            state.out = BytesMut::new();
        } else {
            state.out.clear();
        }
        true
    }

    /// Whether the handler has answered any call.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.lock().has_answered
    }

    /// Carries frames both ways until the handler ends, breaks the protocol, does not let go of a
    /// cancelled invocation, is silent, or wants to leave. May be called again, to hear what else the
    /// handler says; [`Connection::close`] must follow the last time.
    pub async fn run(&self, timing: Timing) -> End {
        tokio::select! {
            end = self.read() => end,
            end = self.write() => end,
            () = self.stuck(timing.cancel_grace) => End::Stuck,
            end = self.silent(timing) => end,
        }
    }

    async fn read(&self) -> End {
        let mut unread = Unread::take(&self.unread);
        let buffer = &mut unread.buffer;
        // What a run before this one had read and did not come to.
        if let Err(end) = self.take_frames(buffer) {
            return end;
        }
        let mut small_reads = 0;
        loop {
            let bytes = match self.stream.read_some(buffer).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(bytes) => bytes,
            };
            match self.take_frames(buffer) {
                Err(end) => return end,
                Ok(0) if bytes < SMALL_READ_BYTES => small_reads += 1,
                Ok(_) => small_reads = 0,
            }
            // A handler that always has something to read must not keep the event loop's thread,
            // nor have it read byte by byte.
            if small_reads > SMALL_READS_MAX {
                tokio::time::sleep(SMALL_READ_PAUSE).await;
            } else {
                tokio::task::consume_budget().await;
            }
        }
    }

    /// Takes the whole frames off the front of the buffer. Says how many there were.
    fn take_frames(&self, buffer: &mut BytesMut) -> Result<usize, End> {
        let mut count = 0;
        let mut state = self.lock();
        let was_leaving = state.is_leaving;
        loop {
            match frame::decode_from_handler(buffer) {
                Ok(Some(frame)) => {
                    let taken = take_in(&mut state, frame);
                    taken.map_err(|reason| End::Protocol(reason.into()))?;
                    count += 1;
                }
                Ok(None) => break,
                Err(error) => return Err(End::Protocol(error.to_string())),
            }
        }
        self.busy.store(state.calls.len(), Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) != state.cancelled {
            self.cancelled.store(state.cancelled, Ordering::Relaxed);
            if state.cancelled == 0 {
                self.is_hung.store(false, Ordering::Relaxed);
            }
        }
        // Only who empties the connection waits for that; telling nobody would still make the
        // event loop look at this task again, for every call. What is cancelled nobody waits for.
        if state.calls.len() == state.cancelled && !state.is_open {
            self.calls_changed.notify_waiters();
        }
        if state.is_leaving && !was_leaving {
            return Err(End::Leaving);
        }
        Ok(count)
    }

    async fn write(&self) -> End {
        loop {
            // At first, what a run before this one was told of and did not come to.
            while !self.write_now(&mut self.lock()) {
                if self.stream.writable().await.is_err() {
                    return End::Closed;
                }
            }
            self.write_wanted.notified().await;
            // Calls that came at the same time join; each write is a system call and a wake-up.
            tokio::task::yield_now().await;
        }
    }

    /// Returns when a cancelled invocation has gone unconfirmed for `grace`; doubts the handler
    /// before.
    async fn stuck(&self, grace: Duration) {
        loop {
            let changed = self.calls_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.oldest_cancelled() {
                None => changed.await,
                Some(at) if at.elapsed() >= grace => return,
                Some(at) if at.elapsed() >= grace / DOUBT_AFTER => {
                    self.doubt();
                    tokio::time::sleep_until(at + grace).await;
                }
                Some(at) => {
                    tokio::time::sleep_until(at + grace / DOUBT_AFTER).await;
                }
            }
        }
    }

    /// Returns when the handler, having nothing to do, did not answer a ping, or did not even read
    /// the first call that it was given.
    async fn silent(&self, timing: Timing) -> End {
        loop {
            tokio::time::sleep(timing.health_interval).await;
            if self.busy() > 0 {
                let untouched = self.untouched();
                if untouched.is_none() {
                    continue;
                }
                self.is_silent.store(true, Ordering::Relaxed);
                tokio::time::sleep(timing.health_timeout).await;
                if self.untouched() == untouched {
                    return End::Deaf;
                }
                self.is_silent.store(false, Ordering::Relaxed);
                continue;
            }
            let pings = {
                let mut state = self.lock();
                frame::encode_ping(&mut state.out, b"");
                state.last = None;
                state.pings += 1;
                state.pings
            };
            self.write_wanted.notify_one();
            let is_silent = || self.lock().pongs < pings && self.busy() == 0;
            tokio::time::sleep(timing.health_timeout / DOUBT_AFTER).await;
            if is_silent() {
                self.is_silent.store(true, Ordering::Relaxed);
                // Either calls have come, in whose company a handler may be slow to answer, or none
                // will come from now on.
                tokio::time::sleep(timing.health_timeout).await;
                if is_silent() {
                    return End::Silent;
                }
                self.is_silent.store(false, Ordering::Relaxed);
            }
        }
    }

    /// The only call, where the handler has not read all of it: what ends its request is the end of
    /// what was written.
    fn untouched(&self) -> Option<InvocationId> {
        let state = self.lock();
        let only = state.last.filter(|_| state.calls.len() == 1)?;
        match state.calls.get(only)? {
            Call::Waiting { invocation, .. } if self.stream.has_unread() => Some(*invocation),
            Call::Waiting { .. } | Call::Cancelled { .. } => None,
        }
    }

    /// Has the handler get no more calls until it has confirmed those that are cancelled.
    fn doubt(&self) {
        // Under the lock, so that a confirmation that comes now is not overtaken.
        let state = self.lock();
        self.is_hung.store(state.cancelled > 0, Ordering::Relaxed);
    }

    fn oldest_cancelled(&self) -> Option<Instant> {
        let state = self.lock();
        let cancelled = state.calls.iter().filter_map(|(_, call)| match call {
            Call::Waiting { .. } => None,
            Call::Cancelled { at } => Some(*at),
        });
        cancelled.min()
    }

    /// Takes no more invocations; those that the handler has go on.
    pub fn stop_taking(&self) {
        self.lock().is_open = false;
    }

    /// Returns when the handler has no invocation that anybody waits for.
    pub async fn drained(&self) {
        loop {
            let changed = self.calls_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let is_waiting = |(_, call): (usize, &Call)| matches!(call, Call::Waiting { .. });
            if !self.lock().calls.iter().any(is_waiting) {
                return;
            }
            changed.await;
        }
    }

    /// Fails every invocation that the handler still has, for a reason that callers may see.
    pub fn close(&self, error: &InvokeError) {
        let calls = {
            let mut state = self.lock();
            state.is_open = false;
            self.busy.store(0, Ordering::Relaxed);
            state.cancelled = 0;
            std::mem::take(&mut state.calls)
        };
        for (_, call) in calls {
            if let Call::Waiting { reply, .. } = call {
                // Whoever waited may just have gone.
                drop(reply.send(Err(error.clone())));
            }
        }
        self.calls_changed.notify_waiters();
    }

    /// Tells the handler to exit.
    pub fn shut_down(&self) {
        // Where the stream is broken already, the handler is gone or will be killed.
        drop(self.stream.shut_down());
    }

    fn died(&self, reason: String) -> InvokeError {
        InvokeError::HandlerDied {
            name: self.name.clone(),
            reason,
        }
    }

    fn cancel(&self, key: usize, cancelled: InvocationId) {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(key) else {
            return;
        };
        // The reply may just have come, and the id may belong to another call already.
        if !matches!(call, Call::Waiting { invocation, .. } if *invocation == cancelled) {
            return;
        }
        *call = Call::Cancelled { at: Instant::now() };
        state.cancelled += 1;
        self.cancelled.store(state.cancelled, Ordering::Relaxed);
        frame::encode_cancel(&mut state.out, id_of(key));
        state.last = None;
        drop(state);
        self.write_wanted.notify_one();
        self.calls_changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the handler that nobody waits any more, where an invocation is dropped before its reply.
struct CancelOnDrop<'a> {
    connection: &'a Connection,
    key: usize,
    invocation: InvocationId,
    is_armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.connection.cancel(self.key, self.invocation);
        }
    }
}

fn take_in(state: &mut State, frame: FromHandler) -> Result<(), &'static str> {
    match frame {
        FromHandler::Reply { id, outcome } => {
            let call = (id as usize)
                .checked_sub(1)
                .and_then(|key| state.calls.try_remove(key));
            match call {
                Some(Call::Waiting { reply, .. }) => {
                    state.has_answered = true;
                    // Whoever waited may just have gone.
                    drop(reply.send(result_of(outcome)));
                    Ok(())
                }
                Some(Call::Cancelled { .. }) => {
                    state.cancelled -= 1;
                    Ok(())
                }
                None => Err("a reply to nothing"),
            }
        }
        FromHandler::Pong if state.pongs < state.pings => {
            state.pongs += 1;
            Ok(())
        }
        FromHandler::Pong => Err("a pong to nothing"),
        FromHandler::Leaving if state.is_leaving => Err("a second leaving"),
        FromHandler::Leaving => {
            state.is_open = false;
            state.is_leaving = true;
            Ok(())
        }
        FromHandler::Hello { .. } | FromHandler::Failed(_) => Err("a second hello"),
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
