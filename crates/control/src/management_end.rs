//! The management service's end: has the reverse proxy call what is started here.

use crate::line::{self, LineError, OUTBOX_MAX, Reader, SPEAK_INTERVAL};
use crate::message::{Failure, ToManagement, ToProxy};
use crate::revision::{Held, Progress, RemoteHandler, Revision, lock};
use crate::table;
use faas::{BoxFuture, Handler, Limits, PrepareError, Router};
use handler_protocol::{Caller, Group, Process};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a deployment waits for a reverse proxy that is away.
const PROXY_PATIENCE: Duration = Duration::from_secs(30);

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
    shared: Arc<Shared>,
}

type Outbox = mpsc::Sender<ToProxy>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Arc<Limits>,
    pub(crate) tracker: TaskTracker,
    secret: String,
    shutdown: CancellationToken,
    /// The way to the proxy; none while it is away.
    pub(crate) link: watch::Sender<Option<Outbox>>,
    /// The number of the last table that is in force there.
    pub(crate) applied: watch::Sender<u64>,
    state: Mutex<State>,
    /// Numbers that no earlier run has given, to revisions and to instances.
    next_number: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    revisions: HashMap<u64, Arc<Revision>>,
    by_handler: HashMap<Arc<str>, Arc<Revision>>,
    /// Each with what ends it, and its revision.
    instances: HashMap<u64, (CancellationToken, u64)>,
    /// The routes that take over what the proxy counts.
    router: Option<Arc<Router>>,
}

impl ManagementEnd {
    /// Waits for the proxy from now on.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let first = since.map_or(1, |since| since.as_micros());
        let shared = Arc::new(Shared {
            limits: options.limits,
            tracker: options.tracker,
            secret: options.secret,
            shutdown: options.shutdown,
            link: watch::Sender::new(None),
            applied: watch::Sender::new(0),
            state: Mutex::default(),
            next_number: AtomicU64::new(u64::try_from(first).unwrap_or(1)),
        });
        let accepting = accept(Arc::clone(&shared), options.listener);
        shared.tracker.spawn(accepting);
        Self { shared }
    }

    /// Returns when the proxy is connected, which tells that it is healthy.
    pub async fn connected(&self) {
        let mut link = self.shared.link.subscribe();
        // The sender lives as long as `shared`.
        drop(link.wait_for(Option::is_some).await);
    }

    /// Tells when another table is in force at the proxy.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// From now on makes the proxy's table the same as that of `router`, and lets its routes take
    /// over what the proxy counts. Call it once the router knows every function.
    pub fn follow(&self, router: &Arc<Router>) {
        lock(&self.shared.state).router = Some(Arc::clone(router));
        // From here on, so that nothing counts as applied that is not.
        let follower = router.follow();
        let following = table::push(Arc::clone(&self.shared), Arc::clone(router), follower);
        let shutdown = self.shared.shutdown.clone();
        self.shared.tracker.spawn(async move {
            shutdown.run_until_cancelled(following).await;
        });
    }
}

impl Caller for ManagementEnd {
    fn start(&self, group: Group) -> BoxFuture<'_, Result<Vec<Arc<dyn Handler>>, PrepareError>> {
        Box::pin(async move {
            let revision = self.shared.add(group);
            let held = Arc::new(Held {
                shared: Arc::clone(&self.shared),
                revision: Arc::clone(&revision),
            });
            self.shared.tell(revision.start()).await;
            self.shared.made_ready(&revision).await?;
            let handler = |id: &Arc<str>| -> Arc<dyn Handler> {
                Arc::new(RemoteHandler {
                    id: Arc::clone(id),
                    held: Arc::clone(&held),
                })
            };
            Ok(revision.ids.iter().map(handler).collect())
        })
    }
}

impl Shared {
    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn add(&self, group: Group) -> Arc<Revision> {
        let revision = Arc::new(Revision::new(self.number(), group));
        let mut state = lock(&self.state);
        for id in &revision.ids {
            let revision = Arc::clone(&revision);
            state.by_handler.insert(Arc::clone(id), revision);
        }
        let number = revision.number;
        state.revisions.insert(number, Arc::clone(&revision));
        revision
    }

    /// Ends a revision: its instances here, and at the proxy what may be left of it.
    pub(crate) fn forget(&self, revision: &Arc<Revision>) {
        let mut state = lock(&self.state);
        if state.revisions.remove(&revision.number).is_none() {
            return;
        }
        state
            .by_handler
            .retain(|_, of| of.number != revision.number);
        for (end, of) in state.instances.values() {
            if *of == revision.number {
                end.cancel();
            }
        }
        drop(state);
        revision.let_go();
        let retire = ToProxy::Retire {
            revision: revision.number,
            grace_ms: 0,
        };
        // Where this is not heard, the next welcome tells.
        if let Some(outbox) = &*self.link.borrow() {
            let _is_queued = outbox.try_send(retire).is_ok();
        }
    }

    /// The revision that a handler belongs to.
    pub(crate) fn of_handler(&self, id: &str) -> Option<Arc<Revision>> {
        lock(&self.state).by_handler.get(id).map(Arc::clone)
    }

    /// Says something to the proxy; whether there is one to hear it.
    pub(crate) async fn tell(&self, message: ToProxy) -> bool {
        let outbox = self.link.borrow().clone();
        match outbox {
            Some(outbox) => outbox.send(message).await.is_ok(),
            None => false,
        }
    }

    async fn made_ready(&self, revision: &Revision) -> Result<(), PrepareError> {
        let mut progress = revision.progress.subscribe();
        let is_settled = |progress: &Progress| *progress != Progress::Starting;
        loop {
            let mut link = self.link.subscribe();
            let is_away = link.borrow_and_update().is_none();
            tokio::select! {
                settled = progress.wait_for(is_settled) => {
                    // The sender lives as long as the revision.
                    return match settled.as_deref() {
                        Ok(Progress::Refused(failure)) => Err(revision.error(failure.clone())),
                        Ok(Progress::Ready) => Ok(()),
                        Ok(Progress::Starting | Progress::Retired) | Err(_) => {
                            Err(PrepareError::Host("the handlers were stopped".to_owned()))
                        }
                    };
                }
                _ = link.changed() => {}
                () = tokio::time::sleep(PROXY_PATIENCE), if is_away => {
                    return Err(PrepareError::Host(
                        "the reverse proxy does not answer; see what its container says \
                         (docker logs)".to_owned(),
                    ));
                }
            }
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // One after the other: there is one proxy, and one that is half gone is silent.
            let (conversation, link) = (converse(&shared, stream), &shared.link);
            match conversation.await {
                Ok(()) | Err(LineError::Closed) => tracing::info!("the reverse proxy went"),
                Err(error) => tracing::warn!(%error, "the reverse proxy was lost"),
            }
            link.send_replace(None);
        }
    };
    shared.shutdown.run_until_cancelled(accepting).await;
}

async fn converse(shared: &Arc<Shared>, stream: TcpStream) -> Result<(), LineError> {
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
    if !is_same(&secret, &shared.secret) {
        return Err(LineError::Secret);
    }
    let (welcome, starts) = shared.welcome(&revisions, &instances);
    line::send(&mut writer, &welcome).await?;
    for start in starts {
        line::send(&mut writer, &start).await?;
    }
    let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
    shared.link.send_replace(Some(outbox.clone()));
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
        ended = hear(shared, &mut reader) => ended,
        ended = line::write(writer, waiting) => ended,
        () = speaking => Ok(()),
    }
}

impl Shared {
    /// What the proxy should know, after ending what it no longer has.
    fn welcome(&self, revisions: &[u64], instances: &[u64]) -> (ToProxy, Vec<ToProxy>) {
        let state = lock(&self.state);
        let theirs: HashSet<_> = instances.iter().collect();
        for (instance, (end, _)) in &state.instances {
            if !theirs.contains(instance) {
                end.cancel();
            }
        }
        let welcome = ToProxy::Welcome {
            revisions: state.revisions.keys().copied().collect(),
            instances: state.instances.keys().copied().collect(),
        };
        let theirs: HashSet<_> = revisions.iter().collect();
        let missing = state
            .revisions
            .values()
            .filter(|revision| !theirs.contains(&revision.number));
        (welcome, missing.map(|revision| revision.start()).collect())
    }

    fn revision(&self, number: u64) -> Option<Arc<Revision>> {
        lock(&self.state).revisions.get(&number).map(Arc::clone)
    }
}

async fn hear(shared: &Arc<Shared>, reader: &mut Reader) -> Result<(), LineError> {
    loop {
        let progress = |number: u64, progress: Progress| {
            if let Some(revision) = shared.revision(number) {
                revision.progress.send_replace(progress);
            }
        };
        match line::receive(reader).await? {
            ToManagement::Hello { .. } => {}
            ToManagement::Launch { call, handler } => {
                let launching = launch(Arc::clone(shared), call, handler);
                shared.tracker.spawn(launching);
            }
            ToManagement::Kill { instance } => {
                if let Some((end, _)) = lock(&shared.state).instances.get(&instance) {
                    end.cancel();
                }
            }
            ToManagement::Ready { revision } => {
                if let Some(revision) = shared.revision(revision) {
                    revision.made_ready();
                }
            }
            ToManagement::Refused { revision, failure } => {
                progress(revision, Progress::Refused(failure));
            }
            ToManagement::Retired { revision } => progress(revision, Progress::Retired),
            ToManagement::Applied { table } => {
                shared.applied.send_replace(table);
            }
            ToManagement::Report {
                handlers,
                functions,
            } => {
                for row in handlers {
                    if let Some(revision) = shared.of_handler(&row.id) {
                        revision.report(row);
                    }
                }
                let router = lock(&shared.state).router.clone();
                for row in functions {
                    let router = router.as_ref();
                    if let Some(route) = router.and_then(|router| router.find(&row.name)) {
                        route.take_over(&row.tally());
                    }
                }
            }
        }
    }
}

/// Starts an instance for the proxy.
async fn launch(shared: Arc<Shared>, call: u64, handler: String) {
    let handler: Arc<str> = handler.into();
    let revision = shared.of_handler(&handler);
    let starter = revision.and_then(|revision| Some((revision.launch()?, revision)));
    let Some((starter, revision)) = starter else {
        let gone = PrepareError::Host("the handler was retired".to_owned());
        let failure = Failure::from(&gone);
        shared.tell(ToProxy::NotLaunched { call, failure }).await;
        return;
    };
    revision.tell_restart(&handler);
    let launched = match starter.launch(&handler).await {
        Ok(launched) => launched,
        Err(error) => {
            let failure = Failure::from(&error);
            shared.tell(ToProxy::NotLaunched { call, failure }).await;
            return;
        }
    };
    let (instance, end) = (shared.number(), CancellationToken::new());
    {
        let mut state = lock(&shared.state);
        // Retired meanwhile: dropping the instance ends it.
        if !state.revisions.contains_key(&revision.number) {
            return;
        }
        let entry = (end.clone(), revision.number);
        state.instances.insert(instance, entry);
    }
    let addr = launched.addr;
    let attending = attend(
        (Arc::clone(&shared), Arc::clone(&revision)),
        (instance, handler),
        launched.process,
        end,
    );
    let attending = revision.instances.track_future(attending);
    shared.tracker.spawn(attending);
    let launched = ToProxy::Launched {
        call,
        instance,
        addr,
    };
    shared.tell(launched).await;
}

/// Waits for the end of an instance, or brings it about.
async fn attend(
    (shared, revision): (Arc<Shared>, Arc<Revision>),
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
    lock(&shared.state).instances.remove(&instance);
    revision.note_end(&handler, &how);
    shared.tell(ToProxy::Ended { instance, how }).await;
}

/// Compares in a time that does not tell where they differ.
fn is_same(shown: &str, secret: &str) -> bool {
    let pairs = shown.bytes().zip(secret.bytes());
    let differences = pairs.fold(0, |differences, (a, b)| differences | (a ^ b));
    shown.len() == secret.len() && differences == 0
}
