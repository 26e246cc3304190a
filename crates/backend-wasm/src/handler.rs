//! A function that is ready: its code, and the calls that run.

use crate::contract::Contract;
use crate::engine::Engines;
use crate::failure::{Failure, Lines};
use bytes::Bytes;
use faas::{
    BoxFuture, FunctionName, Handler, HandlerState, HandlerStatus, Invocation, InvokeError,
    LogStream, Reply,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Runs each call in an instance of its own. There is one for each function.
#[derive(Debug)]
pub(crate) struct WasmHandler {
    pub(crate) name: FunctionName,
    pub(crate) contract: Contract,
    pub(crate) engines: Arc<Engines>,
    pub(crate) lines: Lines,
    /// Instances that may run at once.
    pub(crate) at_once_max: usize,
    /// The time that a call has, for the message of one that took longer.
    pub(crate) deadline: Duration,
    pub(crate) life: Life,
}

/// Counts the calls and ends them.
#[derive(Debug, Default)]
pub(crate) struct Life {
    is_stopping: AtomicBool,
    in_flight: AtomicUsize,
    left: Notify,
    cut: CancellationToken,
}

/// A call that is inside; dropping it takes it out.
struct Inside<'a>(&'a Life);

impl Life {
    /// Counts a call in; none where no more are taken.
    fn enter(&self) -> Option<Inside<'_>> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
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

impl Drop for Inside<'_> {
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
        let call = async {
            let _slot = self.slot().await?;
            let _running = self.engines.ticker.run();
            let called = self.contract.call(invocation).await;
            called.map_err(|failure| self.tell(failure))
        };
        let bounded = tokio::time::timeout(time_left, call);
        let ended = self.life.cut.run_until_cancelled(bounded).await;
        drop(inside);
        match ended {
            Some(Ok(called)) => called,
            Some(Err(_elapsed)) => Err(InvokeError::Deadline {
                name: self.name.clone(),
                deadline: self.deadline,
            }),
            None => Err(InvokeError::HandlerDied {
                name: self.name.clone(),
                reason: "the function was stopped".to_owned(),
            }),
        }
    }

    /// A place among the instances of this node.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, InvokeError> {
        let slot = self.engines.slots.take().await;
        slot.ok_or_else(|| InvokeError::Overloaded {
            name: self.name.clone(),
            retry_after: Duration::from_secs(1),
        })
    }

    fn tell(&self, failure: Failure) -> InvokeError {
        self.lines
            .push(LogStream::Platform, &Bytes::from(failure.details));
        InvokeError::Function(failure.message)
    }
}

impl Handler for WasmHandler {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(self.run(invocation, time_left))
    }

    fn at_once_max(&self) -> usize {
        self.at_once_max
    }

    fn in_flight(&self) -> usize {
        self.life.in_flight.load(Ordering::Relaxed)
    }

    fn is_ready(&self) -> bool {
        !self.life.is_stopping.load(Ordering::Relaxed)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: Arc::clone(&self.lines.handler),
            state: if self.is_ready() {
                HandlerState::Ready
            } else {
                HandlerState::Stopped
            },
            restarts: 0,
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.life.end(grace))
    }
}
