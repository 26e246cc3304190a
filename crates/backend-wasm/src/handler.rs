//! A function that is ready: its code, and the calls that run.

use crate::artifact::Place;
use crate::component::http::{Called, Rest};
use crate::contract::Contract;
use crate::engine::Engines;
use crate::failure::{Failure, Lines};
use crate::pace::Pace;
use crate::ticker::Running;
use bytes::Bytes;
use faas::{
    BoxFuture, Callable, FunctionName, Handler, HandlerState, HandlerStatus, Invocation,
    InvokeError, LogStream, Reply,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs each call in an instance of its own. There is one for each function.
#[derive(Debug)]
pub(crate) struct WasmHandler {
    pub(crate) name: FunctionName,
    pub(crate) contract: Contract,
    /// Keeps the compiled code where it is for as long as this serves.
    pub(crate) _place: Place,
    pub(crate) engines: Arc<Engines>,
    pub(crate) lines: Lines,
    /// Instances that may run at once.
    pub(crate) concurrency: usize,
    /// The time that a call has, for the message of one that took longer.
    pub(crate) deadline: Duration,
    /// What its instances may compute; none where that is no less than they can.
    pub(crate) pace: Option<Arc<Pace>>,
    /// As many as instances may run at once, for calls that may go on after their reply.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) life: Arc<Life>,
}

/// Counts the calls and ends them.
#[derive(Debug, Default)]
pub(crate) struct Life {
    is_stopping: AtomicBool,
    in_flight: AtomicUsize,
    left: Notify,
    cut: CancellationToken,
    /// Slots that this function's calls hold.
    held: AtomicUsize,
    /// What goes on after its reply.
    lingering: TaskTracker,
}

/// A call that is inside; dropping it takes it out.
struct Inside(Arc<Life>);

/// A slot that is held or awaited, counted as held.
struct Slot {
    life: Arc<Life>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    fn count(life: &Arc<Life>) -> Self {
        life.held.fetch_add(1, Ordering::Relaxed);
        Self {
            life: Arc::clone(life),
            permit: None,
        }
    }
}

/// What a call holds while its instance runs.
struct Held {
    _slot: Slot,
    _running: Running,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Life {
    /// Counts a call in; none where no more are taken.
    fn enter(self: &Arc<Self>) -> Option<Inside> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(Arc::clone(self));
        (!self.is_stopping.load(Ordering::SeqCst)).then_some(inside)
    }

    async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }

    /// Takes no more calls, lets those inside finish, up to `grace`, then cuts them.
    pub(crate) async fn end(&self, grace: Duration) {
        self.is_stopping.store(true, Ordering::SeqCst);
        if tokio::time::timeout(grace, self.emptied()).await.is_err() {
            self.cut.cancel();
            self.emptied().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.life.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.is_stopping.load(Ordering::SeqCst) {
            self.0.left.notify_waiters();
        }
    }
}

impl WasmHandler {
    async fn run(
        &self,
        invocation: &Invocation,
        time_left: Duration,
    ) -> Result<Reply, InvokeError> {
        let inside = self.life.enter().ok_or(InvokeError::NotTaken)?;
        let expires = Instant::now() + time_left;
        let bounded = tokio::time::timeout_at(expires, self.call(invocation));
        match self.life.cut.run_until_cancelled(bounded).await {
            Some(Ok(Ok((called, held)))) => {
                if let Some(rest) = called.rest {
                    self.linger(rest, (inside, held), expires);
                }
                called.reply.map_err(|failure| self.tell(failure))
            }
            Some(Ok(Err(refused))) => Err(refused),
            Some(Err(_elapsed)) => Err(InvokeError::Deadline {
                name: self.name.clone(),
                deadline: self.deadline,
            }),
            None => Err(InvokeError::Cut {
                name: self.name.clone(),
            }),
        }
    }

    async fn call(&self, invocation: &Invocation) -> Result<(Called, Held), InvokeError> {
        let turn = if self.contract.may_linger() {
            Arc::clone(&self.turns).acquire_owned().await.ok()
        } else {
            None
        };
        if let Some(pace) = &self.pace {
            pace.wait().await;
        }
        let held = Held {
            _slot: self.slot().await?,
            _running: self.engines.ticker.run(),
            _turn: turn,
        };
        Ok((self.contract.call(invocation).await, held))
    }

    /// Lets a call go on after its reply, until its deadline.
    fn linger(&self, rest: Rest, inside: (Inside, Held), expires: Instant) {
        let life = Arc::clone(&self.life);
        self.life.lingering.spawn(async move {
            let bounded = tokio::time::timeout_at(expires, rest);
            // It has its reply: how it ends is in the log.
            let _ended = life.cut.run_until_cancelled(bounded).await;
            drop(inside);
        });
    }

    /// A slot among the instances of this node.
    async fn slot(&self) -> Result<Slot, InvokeError> {
        let mut slot = Slot::count(&self.life);
        let held = self.life.held.load(Ordering::Relaxed) - 1;
        let permit = self.engines.slots.take(held).await;
        slot.permit = Some(permit.ok_or_else(|| InvokeError::Overloaded {
            name: self.name.clone(),
            retry_after: Duration::from_secs(1),
            time_left: Duration::MAX,
        })?);
        Ok(slot)
    }

    fn tell(&self, failure: Failure) -> InvokeError {
        self.lines
            .push(LogStream::Platform, &Bytes::from(failure.details));
        InvokeError::Function(failure.message)
    }
}

impl Callable for WasmHandler {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(self.run(invocation, time_left))
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn in_flight(&self) -> usize {
        self.life.in_flight.load(Ordering::Relaxed)
    }

    fn is_ready(&self) -> bool {
        !self.life.is_stopping.load(Ordering::Relaxed)
    }

    fn state(&self) -> HandlerState {
        if self.is_ready() {
            HandlerState::Ready
        } else {
            HandlerState::Stopped
        }
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

impl Handler for WasmHandler {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: Arc::clone(&self.lines.handler),
            state: self.state(),
            restarts: 0,
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.life.end(grace))
    }
}
