//! What isolates and runs handlers: the interface that every backend fills.

use crate::BoxFuture;
use crate::exposure::Exposure;
use crate::failure::PrepareError;
use crate::function::Runtime;
use crate::handler::Handlers;
use crate::package::Package;
use std::sync::Arc;

/// Isolates and runs handlers.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The word that picks this backend, such as `process`.
    fn name(&self) -> &'static str;

    /// Installs what the code asks for (from a cache where it can), starts as many handlers as
    /// the spec says, together, and returns when all are ready. Dropping the future, or an error,
    /// leaves nothing running.
    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>>;

    /// What of it reaches the management service, where functions with a network and builds do.
    fn exposure(&self) -> Option<Arc<Exposure>> {
        None
    }

    /// What this backend can do on this host, for `doctor` and `status`. May start interpreters
    /// to ask for their versions, so the first time it takes a while.
    fn report(&self) -> BoxFuture<'_, BackendReport>;

    /// Stops what is left of every handler and build, and removes what belongs to this run.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
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
