//! What runs a function: one isolated instance. Whoever deploys it sees that it lives, whoever proxies
//! calls it.

use crate::BoxFuture;
use crate::failure::Failure;
use crate::invocation::{Invocation, InvokeError, Reply};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// An isolated instance that runs a function, as management sees it: it lives and can be stopped. A
/// handler that dies is restarted under the same identity.
pub trait Handler: Send + Sync + std::fmt::Debug {
    /// How it does, for people.
    fn status(&self) -> HandlerStatus;

    /// Takes no more invocations, gives those in flight `grace` to finish, then ends. Returns when
    /// nothing of it is left. Calling it again waits for the same end.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()>;
}

/// The same instance as the proxy sees it: it can be called.
pub trait Callable: Send + Sync + std::fmt::Debug {
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
    fn concurrency(&self) -> usize;

    /// How many invocations it has now.
    fn in_flight(&self) -> usize;

    /// What it has to do, to find the one with the least: its invocations, and much more where it
    /// may be hung. Cheap: asked for every invocation.
    fn load(&self) -> usize {
        self.in_flight()
    }

    /// Whether it takes invocations now. Cheap: asked for every invocation.
    fn is_ready(&self) -> bool;

    /// What it is doing, to know whether it is worth waiting for.
    fn state(&self) -> HandlerState;

    /// Returns as soon as the handler is ready, is pausing after a failure, or has stopped.
    fn settled(&self) -> BoxFuture<'_, ()>;
}

/// The handlers of one deployment, ready, as a backend hands them over. Whoever has them can see how
/// they do and stop them; only a [`Proxy`](crate::Proxy) can call them.
#[derive(Debug)]
pub struct Handlers {
    living: Vec<Arc<dyn Handler>>,
    callable: Vec<Arc<dyn Callable>>,
}

impl Handlers {
    /// Handlers that the proxy of this process calls.
    pub fn here<H: Handler + Callable + 'static>(
        handlers: impl IntoIterator<Item = Arc<H>>,
    ) -> Self {
        let (mut living, mut callable) = (Vec::new(), Vec::new());
        for handler in handlers {
            living.push(Arc::clone(&handler) as Arc<dyn Handler>);
            callable.push(handler as Arc<dyn Callable>);
        }
        Self { living, callable }
    }

    /// Handlers that the proxy of another process calls.
    #[must_use]
    pub fn elsewhere(living: Vec<Arc<dyn Handler>>) -> Self {
        Self {
            living,
            callable: Vec::new(),
        }
    }

    /// The handlers, dead and alive.
    #[must_use]
    pub fn living(&self) -> &[Arc<dyn Handler>] {
        &self.living
    }

    /// Those that can be called here.
    pub(crate) fn callable(&self) -> &[Arc<dyn Callable>] {
        &self.callable
    }

    /// Stops every one, as [`Handler::stop`] does.
    pub async fn stop(&self, grace: Duration) {
        join_all(self.living.iter().map(|handler| handler.stop(grace))).await;
    }
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
