//! The management service's end: has the reverse proxy call what is started here.

use crate::line::{self, LineError, OUTBOX_MAX, Reader, SPEAK_INTERVAL};
use crate::message::{Failure, ToManagement, ToProxy};
use crate::registry::Registry;
use crate::remote_handler::{Held, RemoteHandler};
use crate::revision::{Progress, Revision};
use crate::table;
use faas::{BoxFuture, Handler, Handlers, Limits, PrepareError, Router};
use handler_protocol::{Caller, Group, Process};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait before connections are accepted again where that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the end is made of.
#[derive(Debug)]
pub struct Options {
    /// Where the proxy connects; nobody else should reach it.
    pub listener: TcpListener,
    /// What the proxy shows.
    pub secret: String,
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// Where its tasks run.
    pub tracker: TaskTracker,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// The management service's end. A clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct ManagementEnd {
    registry: Arc<Registry>,
    shutdown: CancellationToken,
}

impl ManagementEnd {
    /// Waits for the proxy from now on.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let registry = Arc::new(Registry::new(options.limits, options.tracker));
        let accepting = accept(Arc::clone(&registry), options.listener, options.secret);
        let shutdown = options.shutdown.clone();
        registry.tracker.spawn(async move {
            shutdown.run_until_cancelled(accepting).await;
        });
        Self {
            registry,
            shutdown: options.shutdown,
        }
    }

    /// Returns when the proxy is connected, which tells that it is healthy.
    pub async fn connected(&self) {
        self.registry.link.linked().await;
    }

    /// Has the proxy take no more calls, and waits until those that it took have finished. Returns
    /// whether they have within `patience`; at once where there is no proxy.
    pub async fn close(&self, patience: Duration) -> bool {
        let closing = async {
            self.registry.link.tell(ToProxy::Close).await
                && self
                    .registry
                    .link
                    .while_linked(self.registry.closed.cancelled())
                    .await
        };
        let closed = tokio::time::timeout(patience, closing).await;
        closed.is_ok_and(|is_closed| is_closed)
    }

    /// Tells when another table is in force at the proxy.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.registry.applied.subscribe()
    }

    /// From now on makes the proxy's table the same as that of `router`, and lets its routes take
    /// over what the proxy counts. Call it once the router knows every function.
    pub fn follow(&self, router: &Arc<Router>) {
        self.registry.count_into(router);
        // From here on, so that nothing counts as applied that is not.
        let follower = router.follow();
        let following = table::push(Arc::clone(&self.registry), Arc::clone(router), follower);
        let shutdown = self.shutdown.clone();
        self.registry.tracker.spawn(async move {
            shutdown.run_until_cancelled(following).await;
        });
    }
}

impl Caller for ManagementEnd {
    fn start(&self, group: Group) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        Box::pin(async move {
            let revision = self.registry.add(group);
            let held = Arc::new(Held {
                registry: Arc::clone(&self.registry),
                revision: Arc::clone(&revision),
            });
            self.registry.link.tell(revision.start()).await;
            self.registry.made_ready(&revision).await?;
            let handler = |id: &Arc<str>| -> Arc<dyn Handler> {
                Arc::new(RemoteHandler {
                    id: Arc::clone(id),
                    held: Arc::clone(&held),
                })
            };
            Ok(Handlers::elsewhere(
                revision.ids.iter().map(handler).collect(),
            ))
        })
    }
}

async fn accept(registry: Arc<Registry>, listener: TcpListener, secret: String) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // One after the other: there is one proxy, and one that is half gone is silent.
        match converse(&registry, stream, &secret).await {
            Ok(()) | Err(LineError::Closed) => tracing::info!("the reverse proxy went"),
            Err(error) => tracing::warn!(%error, "the reverse proxy was lost"),
        }
        registry.link.close();
    }
}

async fn converse(
    registry: &Arc<Registry>,
    stream: TcpStream,
    expected: &str,
) -> Result<(), LineError> {
    let (mut writer, mut reader) = line::split(stream);
    let hello: ToManagement = line::receive(&mut reader).await?;
    let ToManagement::Hello {
        secret,
        revisions,
        instances,
    } = hello
    else {
        return Err(LineError::Secret);
    };
    if !auth::is_same(secret.as_bytes(), expected.as_bytes()) {
        return Err(LineError::Secret);
    }
    let (welcome, starts) = registry.welcome(&revisions, &instances);
    line::send(&mut writer, &welcome).await?;
    for start in starts {
        line::send(&mut writer, &start).await?;
    }
    let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
    registry.link.open(outbox.clone());
    tracing::info!("the reverse proxy is here");
    let speaking = async {
        loop {
            tokio::time::sleep(SPEAK_INTERVAL).await;
            if outbox.send(ToProxy::Alive).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        ended = hear(registry, &mut reader) => ended,
        ended = line::write(writer, waiting) => ended,
        () = speaking => Ok(()),
    }
}

async fn hear(registry: &Arc<Registry>, reader: &mut Reader) -> Result<(), LineError> {
    loop {
        let progress = |number: u64, progress: Progress| {
            if let Some(revision) = registry.revision(number) {
                revision.progress.send_replace(progress);
            }
        };
        match line::receive(reader).await? {
            ToManagement::Hello { .. } => {}
            ToManagement::Launch { call, handler } => {
                let launching = launch(Arc::clone(registry), call, handler);
                registry.tracker.spawn(launching);
            }
            ToManagement::Kill { instance } => {
                registry.end_instance(instance);
            }
            ToManagement::Ready { revision } => {
                if let Some(revision) = registry.revision(revision) {
                    revision.made_ready();
                }
            }
            ToManagement::Refused { revision, failure } => {
                progress(revision, Progress::Refused(failure));
            }
            ToManagement::Retired { revision } => progress(revision, Progress::Retired),
            ToManagement::Closed => registry.closed.cancel(),
            ToManagement::Applied { table } => {
                registry.applied.send_replace(table);
            }
            ToManagement::Report {
                handlers,
                functions,
            } => {
                for row in handlers {
                    if let Some(revision) = registry.of_handler(&row.id) {
                        revision.report(row);
                    }
                }
                for row in functions {
                    if let Some(route) = registry.route(&row.name) {
                        route.take_over(&row.tally());
                    }
                }
            }
        }
    }
}

/// Starts an instance for the proxy.
async fn launch(registry: Arc<Registry>, call: u64, handler: String) {
    let handler: Arc<str> = handler.into();
    let revision = registry.of_handler(&handler);
    let starter = revision.and_then(|revision| Some((revision.launch()?, revision)));
    let Some((starter, revision)) = starter else {
        let gone = PrepareError::host("the handler was retired", "deploy the function again");
        let failure = Failure::from(&gone);
        registry
            .link
            .tell(ToProxy::NotLaunched { call, failure })
            .await;
        return;
    };
    revision.tell_restart(&handler);
    let launched = match starter.launch(&handler).await {
        Ok(launched) => launched,
        Err(error) => {
            let failure = Failure::from(&error);
            registry
                .link
                .tell(ToProxy::NotLaunched { call, failure })
                .await;
            return;
        }
    };
    let end = CancellationToken::new();
    let Some(instance) = registry.add_instance(&revision, end.clone()) else {
        // Retired meanwhile: dropping the instance ends it.
        return;
    };
    let (addr, secret) = (launched.addr, launched.secret.to_hex());
    let attending = attend(
        (Arc::clone(&registry), Arc::clone(&revision)),
        (instance, handler),
        launched.process,
        end,
    );
    let attending = revision.instances.track_future(attending);
    registry.tracker.spawn(attending);
    let launched = ToProxy::Launched {
        call,
        instance,
        addr,
        secret,
    };
    registry.link.tell(launched).await;
}

/// Waits for the end of an instance, or brings it about.
async fn attend(
    (registry, revision): (Arc<Registry>, Arc<Revision>),
    (instance, handler): (u64, Arc<str>),
    mut process: Box<dyn Process>,
    end: CancellationToken,
) {
    let ended = tokio::select! {
        how = process.wait() => Some(how),
        () = end.cancelled() => None,
    };
    let how = match ended {
        Some(how) => how,
        None => {
            process.kill();
            process.wait().await
        }
    };
    registry.remove_instance(instance);
    revision.note_end(&handler, &how);
    registry.link.tell(ToProxy::Ended { instance, how }).await;
}
