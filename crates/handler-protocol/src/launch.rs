//! Handlers that listen: started by a backend, called from this process or from another one.

use crate::connection::Stream;
use crate::not_loaded::not_loaded;
use crate::proof;
use crate::supervisor::{Identity, Process, Spawn, Spawned, start_all};
use auth::Secret;
use faas::{BoxFuture, CallTerms, FunctionLog, FunctionName, Handlers, Limits, PrepareError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// How often a handler that starts is called.
const DIAL_PAUSE: Duration = Duration::from_millis(5);

/// The lines of a handler that did not load which its error shows.
const LAST_LINES: usize = 20;

/// Starts instances of handlers, each of which will listen for the one connection of its caller.
pub trait Launch: Send + Sync + std::fmt::Debug + 'static {
    /// Starts an instance. Dropping the future, or an error, leaves nothing running.
    fn launch<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Launched, PrepareError>>;
}

/// An instance that was started and listens, or will.
#[derive(Debug)]
pub struct Launched {
    /// Where its caller connects.
    pub addr: SocketAddr,
    /// What its caller and it know each other by.
    pub secret: Secret,
    /// The instance itself.
    pub process: Box<dyn Process>,
}

/// The handlers of one deployment, to be started.
#[derive(Debug, Clone)]
pub struct Group {
    /// The function.
    pub terms: CallTerms,
    /// An id for each handler.
    pub ids: Vec<Arc<str>>,
    /// Where their output goes.
    pub log: Arc<FunctionLog>,
    /// Starts their instances.
    pub launch: Arc<dyn Launch>,
}

/// Whoever calls handlers.
pub trait Caller: Send + Sync + std::fmt::Debug {
    /// Has the handlers started, and returns when all are ready. Dropping the future, or an error,
    /// leaves none running.
    fn start(&self, group: Group) -> BoxFuture<'_, Result<Handlers, PrepareError>>;
}

/// Calls handlers from this process.
#[derive(Debug)]
pub struct Direct {
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// Where the handlers are kept alive.
    pub tracker: TaskTracker,
}

impl Caller for Direct {
    fn start(&self, group: Group) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        let identity = |id| Identity {
            id,
            name: group.terms.name.clone(),
            log: Arc::clone(&group.log),
        };
        let identities = group.ids.into_iter().map(identity).collect();
        let spawn: Arc<dyn Spawn> = Arc::new(Dialled {
            launch: group.launch,
            name: group.terms.name.clone(),
            log: Arc::clone(&group.log),
            limits: Arc::clone(&self.limits),
        });
        Box::pin(async move { start_all(&spawn, identities, &self.limits, &self.tracker).await })
    }
}

/// Launches instances and connects to them.
#[derive(Debug)]
struct Dialled {
    launch: Arc<dyn Launch>,
    name: FunctionName,
    log: Arc<FunctionLog>,
    limits: Arc<Limits>,
}

impl Spawn for Dialled {
    fn spawn<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Spawned, PrepareError>> {
        Box::pin(async move {
            let launched = self.launch.launch(id).await?;
            let mut process = launched.process;
            let dialling = dial(launched.addr, &launched.secret);
            let dialled = tokio::time::timeout(self.limits.handler_start, dialling);
            let stream = tokio::select! {
                dialled = dialled => {
                    dialled.map_err(|_elapsed| self.not_loaded(id, "it did not listen in time"))?
                }
                how = process.wait() => return Err(self.not_loaded(id, &how)),
            };
            Ok(Spawned {
                stream: Stream::Tcp(stream),
                process,
            })
        })
    }
}

impl Dialled {
    fn not_loaded(&self, id: &str, how: &str) -> PrepareError {
        not_loaded(&self.name, how).with_output(self.log.last_text(id, LAST_LINES))
    }
}

/// The first connection with a proof is the protocol's; a shim takes no other. Somebody else may be
/// there first, or answer at that address: the handler is called until it is the handler.
async fn dial(addr: SocketAddr, secret: &Secret) -> TcpStream {
    loop {
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            // Where this fails, frames come later, not never.
            let _nodelay = stream.set_nodelay(true).is_ok();
            match proof::exchange(&mut stream, secret).await {
                Ok(()) => return stream,
                Err(error) => tracing::debug!(%error, %addr, "not connected yet"),
            }
        }
        tokio::time::sleep(DIAL_PAUSE).await;
    }
}
