//! The reverse proxy's end: calls what the management service starts, and goes on while it is away.

use crate::admission::Admission;
use crate::instance::{Instances, RemoteLaunch, Started};
use crate::line::{self, LineError, OUTBOX_MAX, Reader, SPEAK_INTERVAL};
use crate::link::Link;
use crate::lock::lock;
use crate::message::{Failure, Function, HandlerRow, Row, TallyRow, ToManagement, ToProxy};
use auth::Secret;
use faas::{Backoff, Deployment, FunctionLog, FunctionName, Limits, PrepareError, Router};
use handler_protocol::{Caller, Direct, Group};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a management service that is away is looked for, and how long it may take to answer.
const DIAL_PAUSE: Duration = Duration::from_millis(200);
const DIAL_PATIENCE: Duration = Duration::from_secs(2);

/// Whom to follow, and into what.
#[derive(Debug)]
pub struct Followed {
    /// Where the management service listens.
    pub addr: SocketAddr,
    /// What to show there.
    pub secret: String,
    /// The table that is to be the same as there.
    pub router: Arc<Router>,
    /// The bounds of this proxy.
    pub limits: Arc<Limits>,
    /// Where its tasks run.
    pub tracker: TaskTracker,
    /// What the management service closes.
    pub admission: Admission,
}

#[derive(Debug)]
struct Shared {
    admission: Admission,
    instances: Arc<Instances>,
    /// The way to the management service.
    link: Arc<Link<ToManagement>>,
    router: Arc<Router>,
    limits: Arc<Limits>,
    tracker: TaskTracker,
    direct: Direct,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revisions: HashMap<u64, Entry>,
    rows: Vec<Row>,
}

/// A revision: being made ready, or ready.
#[derive(Debug)]
struct Entry {
    deployment: Option<Arc<Deployment>>,
    /// Ends its start.
    cancel: CancellationToken,
}

/// Follows a management service until `shutdown`: its table is the router's, and what it starts is
/// called from here. While it is away, everything goes on as it is; one that has closed the
/// admission and goes is not waited for.
pub async fn follow(followed: Followed, shutdown: CancellationToken) {
    let link = Arc::new(Link::new());
    let shared = Arc::new(Shared {
        admission: followed.admission,
        instances: Arc::new(Instances::new(Arc::clone(&link))),
        link,
        router: followed.router,
        direct: Direct {
            limits: Arc::clone(&followed.limits),
            tracker: followed.tracker.clone(),
        },
        limits: followed.limits,
        tracker: followed.tracker,
        state: Mutex::default(),
    });
    let following = async {
        loop {
            let connecting = TcpStream::connect(followed.addr);
            if let Ok(Ok(stream)) = tokio::time::timeout(DIAL_PATIENCE, connecting).await {
                let error = match converse(&shared, stream, &followed.secret).await {
                    Ok(()) => LineError::Closed,
                    Err(error) => error,
                };
                shared.link.close();
                if shared.admission.is_closing() {
                    return;
                }
                tracing::warn!(%error, "the management service is away; what is deployed goes on");
            }
            tokio::time::sleep(DIAL_PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(following).await;
}

async fn converse(shared: &Arc<Shared>, stream: TcpStream, secret: &str) -> Result<(), LineError> {
    let (mut writer, mut reader) = line::split(stream);
    line::send(&mut writer, &shared.hello(secret)).await?;
    let welcome: ToProxy = line::receive(&mut reader).await?;
    let ToProxy::Welcome {
        revisions,
        instances,
    } = welcome
    else {
        return Err(LineError::Closed);
    };
    for ready in shared.welcomed(&revisions, &instances) {
        line::send(&mut writer, &ready).await?;
    }
    let (outbox, waiting) = mpsc::channel(OUTBOX_MAX);
    shared.link.open(outbox.clone());
    tracing::info!("the management service is here");
    let reporting = async {
        loop {
            tokio::time::sleep(SPEAK_INTERVAL).await;
            if outbox.send(shared.report()).await.is_err() {
                return;
            }
        }
    };
    let closing = async {
        shared.admission.closed().await;
        shared.link.tell(ToManagement::Closed).await;
        std::future::pending().await
    };
    tokio::select! {
        ended = hear(shared, &mut reader) => ended,
        ended = line::write(writer, waiting) => ended,
        () = reporting => Ok(()),
        () = closing => Ok(()),
    }
}

async fn hear(shared: &Arc<Shared>, reader: &mut Reader) -> Result<(), LineError> {
    loop {
        match line::receive(reader).await? {
            ToProxy::Welcome { .. } | ToProxy::Alive => {}
            ToProxy::Close => shared.admission.close(),
            ToProxy::Start {
                revision,
                function,
                handlers,
                is_live,
            } => shared.start(revision, function, handlers, is_live),
            ToProxy::Retire { revision, grace_ms } => {
                shared.retire(revision, Duration::from_millis(grace_ms));
            }
            ToProxy::Table { number, rows } => {
                lock(&shared.state).rows = rows;
                shared.apply();
                shared.tell(ToManagement::Applied { table: number }).await;
            }
            ToProxy::Launched {
                call,
                instance,
                addr,
                secret,
            } => {
                let secret = Secret::from_hex(&secret).ok_or(LineError::Secret)?;
                let answer = Started {
                    id: instance,
                    addr,
                    secret,
                };
                if !shared.instances.launched(call, answer) {
                    shared.tell(ToManagement::Kill { instance }).await;
                }
            }
            ToProxy::NotLaunched { call, failure } => shared.instances.not_launched(call, failure),
            ToProxy::Ended { instance, how } => shared.instances.ended(instance, how),
        }
    }
}

impl Shared {
    async fn tell(&self, message: ToManagement) {
        // One that is gone asks again when it is back.
        let _is_heard = self.link.tell(message).await;
    }

    fn hello(&self, secret: &str) -> ToManagement {
        let revisions = lock(&self.state).revisions.keys().copied().collect();
        ToManagement::Hello {
            secret: secret.to_owned(),
            revisions,
            instances: self.instances.ids(),
        }
    }

    /// Lets go of what the management service does not know, and tells what is ready.
    fn welcomed(&self, revisions: &[u64], instances: &[u64]) -> Vec<ToManagement> {
        let known: HashSet<_> = revisions.iter().collect();
        let mut state = lock(&self.state);
        // What serves a name goes on until the table says what does next.
        let unknown = state
            .revisions
            .extract_if(|number, _| !known.contains(number));
        for (_, entry) in unknown {
            entry.cancel.cancel();
        }
        let ready = state.revisions.iter();
        let ready = ready.filter(|(_, entry)| entry.deployment.is_some());
        let ready = ready.map(|(number, _)| ToManagement::Ready { revision: *number });
        let ready = ready.collect();
        drop(state);
        self.instances.keep(instances);
        ready
    }

    fn start(
        self: &Arc<Self>,
        revision: u64,
        function: Function,
        handlers: Vec<String>,
        is_live: bool,
    ) {
        let cancel = CancellationToken::new();
        let entry = Entry {
            deployment: None,
            cancel: cancel.clone(),
        };
        if lock(&self.state).revisions.contains_key(&revision) {
            return;
        }
        lock(&self.state).revisions.insert(revision, entry);
        let shared = Arc::clone(self);
        self.tracker.spawn(async move {
            let starting = shared.make_ready(revision, &function, &handlers, is_live);
            cancel.run_until_cancelled(starting).await;
        });
    }

    async fn make_ready(
        self: &Arc<Self>,
        revision: u64,
        function: &Function,
        handlers: &[String],
        is_live: bool,
    ) {
        let limits = &self.limits;
        let mut backoff = Backoff::new(limits.restart_pause_min, limits.restart_pause_max);
        loop {
            match self.deploy(function, handlers).await {
                Ok(deployment) => {
                    if let Some(entry) = lock(&self.state).revisions.get_mut(&revision) {
                        entry.deployment = Some(Arc::new(deployment));
                    }
                    self.apply();
                    return self.tell(ToManagement::Ready { revision }).await;
                }
                Err(error) if is_live => {
                    tracing::warn!(function = function.name, %error, "is tried again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => {
                    lock(&self.state).revisions.remove(&revision);
                    let failure = Failure::from(&error);
                    return self.tell(ToManagement::Refused { revision, failure }).await;
                }
            }
        }
    }

    async fn deploy(
        self: &Arc<Self>,
        function: &Function,
        handlers: &[String],
    ) -> Result<Deployment, PrepareError> {
        let terms = function.terms();
        let terms = terms.map_err(|error| {
            PrepareError::host(error.to_string(), "run the same tinyfaas on both sides")
        })?;
        let group = Group {
            terms: terms.clone(),
            ids: handlers.iter().map(|id| id.as_str().into()).collect(),
            // What handlers print goes to the management service.
            log: Arc::new(FunctionLog::new(&self.limits)),
            launch: Arc::new(RemoteLaunch(Arc::clone(&self.instances))),
        };
        let handlers = self.direct.start(group).await?;
        Ok(Deployment::new(terms, handlers))
    }

    fn retire(self: &Arc<Self>, revision: u64, grace: Duration) {
        let entry = lock(&self.state).revisions.remove(&revision);
        let shared = Arc::clone(self);
        self.tracker.spawn(async move {
            if let Some(entry) = entry {
                entry.cancel.cancel();
                if let Some(deployment) = entry.deployment {
                    deployment.retire(grace).await;
                }
            }
            shared.tell(ToManagement::Retired { revision }).await;
        });
    }

    /// Makes the router the same as the table, as far as what it names is ready.
    fn apply(&self) {
        // Held throughout: one table after the other.
        let state = lock(&self.state);
        let mut named = HashSet::new();
        for row in &state.rows {
            let Ok(terms) = row.function.terms() else {
                continue;
            };
            let name = terms.name.clone();
            named.insert(name.clone());
            if self.router.find(name.as_str()).is_none() {
                self.router.announce([terms]);
            }
            let entry = row.revision.and_then(|it| state.revisions.get(&it));
            let ready = entry.and_then(|entry| entry.deployment.as_ref());
            self.set(&name, ready, row.failure.as_deref());
        }
        for route in self.router.routes() {
            if !named.contains(route.name()) {
                let (_, served) = self.router.withdraw(route.name());
                self.let_finish(served);
            }
        }
    }

    fn set(&self, name: &FunctionName, ready: Option<&Arc<Deployment>>, failure: Option<&str>) {
        let Some(route) = self.router.find(name.as_str()) else {
            return;
        };
        let serving = route.deployment();
        match (ready, failure) {
            (Some(ready), _) => {
                let is_new = serving.is_none_or(|serving| !Arc::ptr_eq(&serving, ready));
                if is_new {
                    self.let_finish(self.router.publish(Arc::clone(ready)));
                }
            }
            (None, Some(failure)) if serving.is_none() => {
                route.set_failure(faas::Failure::plain(failure));
            }
            // What serves goes on: it is replaced as soon as its successor is ready.
            (None, _) => {}
        }
    }

    fn let_finish(&self, served: Option<Arc<Deployment>>) {
        if let Some(served) = served {
            let grace = served.terms().deadline.max(self.limits.drain);
            self.tracker
                .spawn(async move { served.retire(grace).await });
        }
    }

    /// How everything does.
    fn report(&self) -> ToManagement {
        let routes = self.router.routes();
        let deployments = routes.iter().filter_map(|route| route.deployment());
        let handlers = deployments.flat_map(|deployment| {
            let rows = deployment.handlers().iter();
            rows.map(|handler| HandlerRow::from(handler.status()))
                .collect::<Vec<_>>()
        });
        let functions = routes
            .iter()
            .map(|route| TallyRow::new(route.name(), route.tally()));
        ToManagement::Report {
            handlers: handlers.collect(),
            functions: functions.collect(),
        }
    }
}
