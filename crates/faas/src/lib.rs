//! The vocabulary of tinyFaaS and the hot path of an invocation: no sockets, no serde, and no disk
//! but for a look at whether a package has the file that its runtime starts from.
//!
//! An invocation walks one way: an endpoint decodes it, [`Proxy::invoke`] admits it,
//! [`Router::find`] finds the function's deployment, its least busy handler ([`Callable`]) runs it.

mod asker;
pub mod backend;
mod backoff;
mod changes;
mod core_share;
pub mod cors;
pub mod deployment;
mod exposure;
pub mod failure;
pub mod function;
mod gate;
pub mod handler;
pub mod headers;
mod hex;
pub mod histogram;
mod hold_back;
pub mod host;
pub mod invocation;
pub mod limits;
pub mod log;
mod memory;
mod pace;
pub mod package;
mod pieces;
pub mod progress;
pub mod proxy;
pub mod quantity;
mod reserve;
pub mod route;
pub mod router;
mod slots;
mod sync;

pub use asker::Asker;
pub use backend::{Backend, BackendReport, Isolation, RuntimeReport};
pub use backoff::Backoff;
pub use changes::Follower;
pub use core_share::CoreShare;
pub use cors::{BadCors, Cors, Origin};
pub use deployment::Deployment;
pub use exposure::{Exposed, Exposure};
pub use failure::{Failure, PrepareError, PrepareErrorKind};
pub use function::{
    CallTerms, Entry, FunctionName, FunctionSpec, NameError, Network, Runtime, UnknownRuntime,
};
pub use handler::{Callable, Handler, HandlerState, HandlerStatus, Handlers};
pub use headers::{HeaderError, Headers};
pub use hex::hex;
pub use histogram::Histogram;
pub use host::{BadHost, HostPattern};
pub use invocation::{
    Deadline, Fault, Invocation, InvocationId, InvokeError, InvokeErrorKind, NOT_FOUND_BEGIN,
    Reply, RequestPart,
};
pub use limits::{Bound, BoundError, BuildLimits, FunctionLimits, Limits, WasmLimits};
pub use log::{FunctionLog, LogLine, LogStream, Printer};
pub use package::Package;
pub use pieces::{PIECE_BYTES, Pieces};
pub use progress::{InStage, Progress, Stage};
pub use proxy::Proxy;
pub use reserve::Reserve;
pub use route::{Counters, Route, Tally};
pub use router::Router;

/// A future that owns its state on the heap, for the traits that are used as objects.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
