//! What runs a function: one isolated instance, called and kept alive.

use crate::BoxFuture;
use crate::failure::Failure;
use crate::invocation::{Invocation, InvokeError, Reply};
use std::sync::Arc;
use std::time::Duration;

/// One isolated instance that runs a function, with what keeps it alive: a handler that dies is
/// restarted under the same identity.
pub trait Handler: Send + Sync + std::fmt::Debug {
    /// Runs an invocation. Dropping the future cancels it.
    ///
    /// Fails with [`InvokeError::NotTaken`] where the invocation surely was not run and may be
    /// given to another handler.
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>>;

    /// How many invocations this handler wants to have at once; more wait in the proxy.
    fn at_once_max(&self) -> usize;

    /// How many invocations it has now.
    fn in_flight(&self) -> usize;

    /// What it has to do, to find the one with the least: its invocations, and much more where it
    /// may be hung. Cheap: asked for every invocation.
    fn load(&self) -> usize {
        self.in_flight()
    }

    /// Whether it takes invocations now. Cheap: asked for every invocation.
    fn is_ready(&self) -> bool;

    /// Returns as soon as the handler is ready, is pausing after a failure, or has stopped.
    fn settled(&self) -> BoxFuture<'_, ()>;

    /// How it does, for people.
    fn status(&self) -> HandlerStatus;

    /// Takes no more invocations, gives those in flight `grace` to finish, then ends. Returns when
    /// nothing of it is left. Calling it again waits for the same end.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()>;
}

/// How a handler does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerStatus {
    /// The handler's id, as it stands in the log.
    pub id: Arc<str>,
    /// What it is doing.
    pub state: HandlerState,
    /// How often it was restarted.
    pub restarts: u64,
    /// Invocations that it has now.
    pub in_flight: usize,
}

/// What a handler is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerState {
    /// It is loading the function.
    Starting,
    /// It takes invocations.
    Ready,
    /// It died and will be started again.
    Pausing {
        /// How it ended.
        failure: Failure,
        /// The pause that is left.
        retry_after: Duration,
    },
    /// It is finishing its last invocations or has ended.
    Stopped,
}

impl HandlerState {
    /// The word in the API.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Pausing { .. } => "pausing",
            Self::Stopped => "stopped",
        }
    }
}
