//! What isolates and runs handlers: the interface that every backend fills.

use crate::BoxFuture;
use crate::function::Runtime;
use crate::invocation::{Invocation, InvokeError, Reply};
use crate::package::Package;
use std::sync::Arc;
use std::time::Duration;

/// Isolates and runs handlers.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The word that picks this backend, such as `process`.
    fn name(&self) -> &'static str;

    /// Installs what the code asks for (from a cache where it can), starts as many handlers as
    /// the spec says, together, and returns when all are ready. Dropping the future, or an error,
    /// leaves nothing running.
    fn prepare(
        &self,
        package: Package,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Handler>>, PrepareError>>;

    /// What this backend can do on this host, for `doctor` and `status`. May start interpreters
    /// to ask for their versions, so the first time it takes a while.
    fn report(&self) -> BoxFuture<'_, BackendReport>;

    /// Stops what is left of every handler and build, and removes what belongs to this run.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

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

/// Why a function can't run, told apart by who may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For callers: nothing of the host, and nothing that the function or a build printed.
    pub reason: String,
    /// For whoever deployed the function: what failed in full, and the last lines printed. Empty
    /// if the reason says it all.
    pub detail: String,
}

impl Failure {
    /// A failure of which callers may know everything.
    #[must_use]
    pub fn plain(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            detail: String::new(),
        }
    }

    /// All of it, for whoever deployed the function.
    #[must_use]
    pub fn text(&self) -> String {
        match self.detail.trim_end() {
            "" => self.reason.clone(),
            detail => format!("{}: {detail}", self.reason),
        }
    }
}

impl From<&PrepareError> for Failure {
    fn from(error: &PrepareError) -> Self {
        let reason = match error {
            PrepareError::Runtime(_) => "its runtime is missing on this node",
            PrepareError::Code(_) => "its code lacks what its runtime needs",
            PrepareError::Build { .. } => "its dependencies or code could not be built",
            PrepareError::Load { .. } => "it could not be loaded",
            PrepareError::Host(_) => "this node can't start it",
        };
        let detail = match error.output().trim_end() {
            "" => error.to_string(),
            output => format!("{error}\n{output}"),
        };
        Self {
            reason: reason.to_owned(),
            detail,
        }
    }
}

/// Why a function could not be made ready. The texts are for whoever deploys it: callers get the
/// reason of a [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The runtime's interpreter or compiler is missing or too old on this host.
    #[error("{0}")]
    Runtime(String),
    /// The code lacks what the runtime needs, such as `fn.py`.
    #[error("{0}")]
    Code(String),
    /// Dependencies could not be installed or the code could not be compiled.
    #[error("{message}")]
    Build {
        /// What was tried.
        message: String,
        /// The last lines that it printed.
        output: String,
    },
    /// A handler started but did not load the function.
    #[error("{message}")]
    Load {
        /// How it ended.
        message: String,
        /// What it printed: the function's own traceback.
        output: String,
    },
    /// This host can't run the handler: no isolation, no memory, no disk.
    #[error("{0}")]
    Host(String),
}

impl PrepareError {
    /// The last lines that a build or the function printed; empty where there are none.
    #[must_use]
    pub fn output(&self) -> &str {
        match self {
            Self::Build { output, .. } | Self::Load { output, .. } => output,
            Self::Runtime(_) | Self::Code(_) | Self::Host(_) => "",
        }
    }
}

/// What a backend can do on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendReport {
    /// The backend's name.
    pub backend: &'static str,
    /// Each means of isolation, the strongest first.
    pub isolation: Vec<Isolation>,
    /// Each runtime.
    pub runtimes: Vec<RuntimeReport>,
}

/// One means of isolation on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// Such as `user namespaces` or `memory limit`.
    pub name: &'static str,
    /// Whether handlers get it.
    pub is_on: bool,
    /// What was found, and what to do where it is off.
    pub detail: String,
}

/// One runtime on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeReport {
    /// The runtime.
    pub runtime: Runtime,
    /// The version found; none where the runtime can't be used.
    pub version: Option<String>,
    /// Where it was found, or what to do.
    pub detail: String,
}
