//! One stream to one handler, shared by many invocations.

use crate::calls::{Calls, Trust, Waiter};
pub use crate::calls::{End, Timing};
use crate::frame::{self, FromHandler};
pub use crate::stream::Stream;
use crate::stream::Unread;
use bytes::BytesMut;
use faas::{FunctionName, Invocation, InvocationId, InvokeError, Reply};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
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
/// A read buffer that has held more than this is given back once it is empty.
const READ_KEPT_BYTES: usize = 256 << 10;
/// What the load of a handler that may be hung is raised by, to have others take its calls.
const DOUBT_LOAD: usize = 1 << 20;

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

/// A stream to a handler that has said hello. Many invocations share it, told apart by ids.
///
/// Nothing happens unless [`Connection::run`] is polled. What happens is decided in `calls`; here
/// are the stream, the clock and those who wait.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    at_once: u16,
    name: FunctionName,
    calls: Mutex<Calls>,
    /// What was read and is not a whole frame yet, while nothing runs.
    unread: Mutex<BytesMut>,
    /// How many calls there are, to be read without the lock.
    busy: AtomicUsize,
    /// [`Calls::trust`], to be read without the lock.
    trust: AtomicU8,
    write_wanted: Notify,
    /// A call was cancelled, or the last one ended where no more are taken.
    calls_changed: Notify,
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
        Ok(Self {
            stream,
            at_once,
            name,
            calls: Mutex::new(Calls::new()),
            unread: Mutex::new(BytesMut::new()),
            busy: AtomicUsize::new(0),
            trust: AtomicU8::new(Trust::Whole as u8),
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
        let is_in_doubt = self.trust.load(Ordering::Relaxed) != Trust::Whole as u8;
        self.busy() + if is_in_doubt { DOUBT_LOAD } else { 0 }
    }

    /// Whether the handler should get invocations: not where it has not answered for a while.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.trust.load(Ordering::Relaxed) != Trust::None as u8
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
        reply: Waiter,
    ) -> Result<usize, InvokeError> {
        let mut calls = self.lock();
        let key = calls.submit(invocation, time_left, reply)?;
        self.busy.store(calls.busy(), Ordering::Relaxed);
        // Alone, an invocation is written here and now, which saves waking the writer. In
        // company it is left to the writer, which sends what has come together in one call.
        if calls.busy() > 1 || !self.write_now(&mut calls) {
            drop(calls);
            self.write_wanted.notify_one();
        }
        Ok(key)
    }

    /// Writes what is waiting without blocking; whether all of it was written. A broken stream
    /// counts as written: the reader finds out.
    fn write_now(&self, calls: &mut Calls) -> bool {
        while !calls.unwritten().is_empty() {
            match self.stream.try_write(calls.unwritten()) {
                Ok(bytes) => calls.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_broken) => calls.wrote(calls.unwritten().len()),
            }
        }
        true
    }

    /// Whether the handler has answered any call.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.lock().has_answered()
    }

    /// Carries frames both ways until the handler ends, breaks the protocol, does not let go of a
    /// cancelled invocation, is silent, or wants to leave. May be called again, to hear what else the
    /// handler says; [`Connection::close`] must follow the last time.
    pub async fn run(&self, timing: Timing) -> End {
        tokio::select! {
            // Each is looked at whenever one is: an order saves a random number for every look.
            biased;
            end = self.read() => end,
            end = self.write() => end,
            end = self.watch(timing) => end,
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
            let held = buffer.len();
            let taken = self.take_frames(buffer);
            if buffer.is_empty() && held > READ_KEPT_BYTES {
                // What is left of it would keep all of it, long after the replies are gone.
                *buffer = BytesMut::new();
            }
            match taken {
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
        let mut calls = self.lock();
        let count = calls.receive(buffer);
        self.publish(&calls);
        // Only who empties the connection waits for that; telling nobody would still make the
        // event loop look at this task again, for every call. What is cancelled nobody waits for.
        if !calls.is_open() && !calls.is_awaited() {
            self.calls_changed.notify_waiters();
        }
        count
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

    /// Sees that the handler confirms what was cancelled, and answers when it has nothing to do.
    async fn watch(&self, timing: Timing) -> End {
        self.lock().rest(timing, Instant::now());
        loop {
            let changed = self.calls_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = self.lock().deadline(timing);
            let due = due.expect("its health is watched");
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                // There may be something to confirm.
                () = changed => continue,
            }
            let mut calls = self.lock();
            let end = calls.expire(timing, Instant::now(), || self.stream.has_unread());
            self.publish(&calls);
            if let Some(end) = end {
                return end;
            }
            if !calls.unwritten().is_empty() {
                self.write_wanted.notify_one();
            }
        }
    }

    /// Tells those who look without the lock.
    fn publish(&self, calls: &Calls) {
        self.busy.store(calls.busy(), Ordering::Relaxed);
        self.trust.store(calls.trust() as u8, Ordering::Relaxed);
    }

    /// Takes no more invocations; those that the handler has go on.
    pub fn stop_taking(&self) {
        self.lock().stop_taking();
    }

    /// Returns when the handler has no invocation that anybody waits for.
    pub async fn drained(&self) {
        loop {
            let changed = self.calls_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.lock().is_awaited() {
                return;
            }
            changed.await;
        }
    }

    /// Fails every invocation that the handler still has, for a reason that callers may see.
    pub fn close(&self, error: &InvokeError) {
        let waiters = {
            let mut calls = self.lock();
            let waiters = calls.close();
            self.publish(&calls);
            waiters
        };
        for waiter in waiters {
            // Whoever waited may just have gone.
            drop(waiter.send(Err(error.clone())));
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

    fn cancel(&self, key: usize, invocation: InvocationId) {
        let mut calls = self.lock();
        if !calls.cancel(key, invocation, Instant::now()) {
            return;
        }
        self.publish(&calls);
        drop(calls);
        self.write_wanted.notify_one();
        self.calls_changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
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
