//! Keeps one handler alive: starts it, replaces it when it dies or hangs, stops it.

use crate::connection::{Connection, End, HelloError, Stream, Timing};
use crate::not_loaded::{LOAD_FIX, not_loaded};
use arc_swap::ArcSwap;
use faas::{
    Backoff, BoxFuture, Callable, Failure, FunctionLog, FunctionName, Handler, HandlerState,
    HandlerStatus, Handlers, Invocation, InvokeError, Limits, LogStream, PrepareError, Reply,
};
use futures_util::future::join_all;
use leave::{finish, let_leave, relieve};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stop::Stop;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

mod leave;
mod stop;

/// How many of a dead handler's last lines its status shows.
const LAST_LINES: usize = 20;

/// Starts instances of one handler; what a backend has to offer to the supervisor.
pub trait Spawn: Send + Sync + std::fmt::Debug + 'static {
    /// Starts an instance, which will say hello on its stream. Dropping the future, or an error,
    /// leaves nothing running.
    fn spawn<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Spawned, PrepareError>>;
}

/// An instance that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its end of the handler protocol.
    pub stream: Stream,
    /// The instance itself.
    pub process: Box<dyn Process>,
}

/// A running instance. Dropping it kills it.
pub trait Process: Send + std::fmt::Debug {
    /// Ends it now, with everything that it started.
    fn kill(&mut self);

    /// Waits until nothing of it is left and all its output is in the log. Says how it ended, for
    /// callers, such as `exit status 1`.
    fn wait(&mut self) -> BoxFuture<'_, String>;
}

/// What a supervised handler is and where it belongs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The handler's id, as in the log.
    pub id: Arc<str>,
    /// The function that it runs.
    pub name: FunctionName,
    /// Where its output goes.
    pub log: Arc<FunctionLog>,
}

/// A handler that is restarted when it dies.
#[derive(Debug)]
pub struct Supervised {
    shared: Arc<Shared>,
    /// Asks the supervising task to stop; dropped, it lets the instance finish nothing.
    stop: watch::Sender<Option<Duration>>,
    concurrency: usize,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    limits: Arc<Limits>,
    published: Published,
    restarts: AtomicU64,
    /// Instances that are finishing what they have while their successor serves.
    leaving: TaskTracker,
    /// How many more may do so because they asked to.
    leaving_room: Arc<Semaphore>,
}

/// What a handler is doing. Only the task that keeps it alive changes it.
#[derive(Debug)]
enum State {
    Starting,
    Serving(Arc<Connection>),
    /// It was told to stop and finishes what it has.
    Draining(Arc<Connection>),
    Pausing {
        failure: Failure,
        until: Instant,
    },
    Stopped,
}

/// The state for everybody to see, always whole.
#[derive(Debug)]
struct Published {
    state: ArcSwap<State>,
    changed: Notify,
}

impl Published {
    fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.changed.notify_waiters();
    }

    async fn wait_for(&self, is_wanted: impl Fn(&State) -> bool + Send) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_wanted(&self.state.load()) {
                return;
            }
            changed.await;
        }
    }
}

/// An instance that has said hello.
#[derive(Debug)]
struct Live {
    connection: Arc<Connection>,
    process: Box<dyn Process>,
    since: Instant,
}

impl Supervised {
    /// Starts the first instance and, once it is ready, the task that keeps the handler alive.
    /// Dropping the handler kills it.
    ///
    /// # Errors
    /// If the first instance does not get ready; nothing is left running.
    pub async fn start(
        spawn: Arc<dyn Spawn>,
        identity: Identity,
        limits: Arc<Limits>,
        tracker: &TaskTracker,
    ) -> Result<Self, PrepareError> {
        let leaving_max = limits.leaving_max;
        let shared = Arc::new(Shared {
            identity,
            limits,
            published: Published {
                state: ArcSwap::from_pointee(State::Starting),
                changed: Notify::new(),
            },
            restarts: AtomicU64::new(0),
            leaving: TaskTracker::new(),
            leaving_room: Arc::new(Semaphore::new(leaving_max)),
        });
        let live = start_instance(&*spawn, &shared).await?;
        shared.begin_serving(&live);
        let concurrency = usize::from(live.connection.at_once());
        let (stop, told) = watch::channel(None);
        let supervision = supervise(Arc::clone(&shared), spawn, live, Stop(told));
        tracker.spawn(supervision);
        Ok(Self {
            shared,
            stop,
            concurrency,
        })
    }
}

/// Starts handlers together, one for each identity, and returns when all are ready.
///
/// # Errors
/// If one does not get ready; then none is left running.
pub async fn start_all(
    spawn: &Arc<dyn Spawn>,
    identities: Vec<Identity>,
    limits: &Arc<Limits>,
    tracker: &TaskTracker,
) -> Result<Handlers, PrepareError> {
    let starting = identities.into_iter().map(|identity| {
        Supervised::start(Arc::clone(spawn), identity, Arc::clone(limits), tracker)
    });
    let mut handlers: Vec<Arc<Supervised>> = Vec::new();
    let mut failure = None;
    for started in join_all(starting).await {
        match started {
            Ok(handler) => handlers.push(Arc::new(handler)),
            Err(error) => failure = Some(error),
        }
    }
    let handlers = Handlers::here(handlers);
    let Some(failure) = failure else {
        return Ok(handlers);
    };
    handlers.stop(Duration::ZERO).await;
    Err(failure)
}

impl Shared {
    fn begin_serving(&self, live: &Live) {
        let connection = Arc::clone(&live.connection);
        self.published.set(State::Serving(connection));
    }
}

impl Supervised {
    /// Asks something of the connection of the instance that serves; none where none does.
    fn serving<T>(&self, ask: impl FnOnce(&Arc<Connection>) -> T) -> Option<T> {
        match &**self.shared.published.state.load() {
            State::Serving(connection) => Some(ask(connection)),
            State::Starting | State::Draining(_) | State::Pausing { .. } | State::Stopped => None,
        }
    }
}

impl Callable for Supervised {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async move {
            let Some(connection) = self.serving(Arc::clone) else {
                return Err(InvokeError::NotTaken);
            };
            connection.invoke(invocation, time_left).await
        })
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn in_flight(&self) -> usize {
        match &**self.shared.published.state.load() {
            State::Serving(connection) | State::Draining(connection) => connection.busy(),
            State::Starting | State::Pausing { .. } | State::Stopped => 0,
        }
    }

    fn load(&self) -> usize {
        self.serving(|connection| connection.load()).unwrap_or(0)
    }

    fn is_ready(&self) -> bool {
        let is_trusted = self.serving(|connection| connection.is_trusted());
        is_trusted.unwrap_or(false)
    }

    fn state(&self) -> HandlerState {
        match &**self.shared.published.state.load() {
            State::Starting => HandlerState::Starting,
            State::Serving(_) => HandlerState::Ready,
            State::Pausing { failure, until } => HandlerState::Pausing {
                failure: failure.clone(),
                retry_after: until.saturating_duration_since(Instant::now()),
            },
            State::Draining(_) | State::Stopped => HandlerState::Stopped,
        }
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        let has_settled = |state: &State| !matches!(state, State::Starting);
        Box::pin(self.shared.published.wait_for(has_settled))
    }
}

impl Handler for Supervised {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: Arc::clone(&self.shared.identity.id),
            state: self.state(),
            restarts: self.shared.restarts.load(Ordering::Relaxed),
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stop.send_replace(Some(grace));
            let has_stopped = |state: &State| matches!(state, State::Stopped);
            self.shared.published.wait_for(has_stopped).await;
        })
    }
}

/// Starts an instance and waits for its hello.
async fn start_instance(spawn: &dyn Spawn, shared: &Shared) -> Result<Live, PrepareError> {
    let identity = &shared.identity;
    let Spawned {
        stream,
        mut process,
    } = spawn.spawn(&identity.id).await?;
    let hello = Connection::open(stream, identity.name.clone());
    let within = shared.limits.handler_start;
    let error = match tokio::time::timeout(within, hello).await {
        Ok(Ok(connection)) => {
            let connection = Arc::new(connection);
            return Ok(Live {
                connection,
                process,
                since: Instant::now(),
            });
        }
        Ok(Err(error)) => error,
        Err(_elapsed) => {
            process.kill();
            let ended = process.wait().await;
            tracing::debug!(handler = %identity.id, ended, "killed a handler that said no hello");
            let (name, seconds) = (&identity.name, within.as_secs());
            let detail = format!("function \"{name}\": not loaded within {seconds} s");
            let fix = "do less while the function loads, then deploy it again";
            return Err(PrepareError::load(detail, fix).with_output(last_lines(identity)));
        }
    };
    if !matches!(error, HelloError::Ended) {
        process.kill();
    }
    let ended = process.wait().await;
    let name = &identity.name;
    Err(match error {
        HelloError::Failed(reason) => {
            let detail = format!("function \"{name}\" could not be loaded");
            PrepareError::load(detail, LOAD_FIX).with_output(reason)
        }
        HelloError::Ended => not_loaded(name, &ended).with_output(last_lines(identity)),
        HelloError::Protocol(what) => {
            let detail = format!("function \"{name}\": its handler broke the protocol ({what})");
            let fix = "let the function leave the handler's descriptor 3 or socket alone";
            PrepareError::load(detail, fix).with_output(last_lines(identity))
        }
    })
}

fn last_lines(identity: &Identity) -> String {
    identity.log.last_text(&identity.id, LAST_LINES)
}

/// Serves with one instance after the other until told to stop.
async fn supervise(shared: Arc<Shared>, spawn: Arc<dyn Spawn>, first: Live, mut stop: Stop) {
    let limits = &shared.limits;
    let mut next = Some(first);
    // The first restart comes at once.
    let mut backoff = Backoff::at_once(limits.restart_pause_min, limits.restart_pause_max);
    while let Some(live) = next {
        let (since, connection) = (live.since, Arc::clone(&live.connection));
        let reason = match serve(&shared, live, &mut stop).await {
            Served::Stopped => break,
            Served::Ended(reason) => reason,
            Served::Hung(reason) => {
                // It does not die: its successor need not wait.
                backoff.reset();
                reason
            }
        };
        if since.elapsed() >= limits.restart_forget {
            backoff.reset();
        } else if connection.has_answered() {
            // It works, and dies of some calls: the others should not wait long.
            backoff.ease();
        }
        let failure = Failure::plain(reason);
        next = replace(&shared, &*spawn, failure, &mut backoff, &mut stop).await;
    }
    shared.leaving.close();
    shared.leaving.wait().await;
    shared.published.set(State::Stopped);
}

enum Served {
    Stopped,
    Ended(String),
    Hung(String),
}

/// Lets the instance serve until it ends or is to stop.
async fn serve(shared: &Arc<Shared>, mut live: Live, stop: &mut Stop) -> Served {
    shared.begin_serving(&live);
    let connection = Arc::clone(&live.connection);
    let timing = Timing {
        cancel_grace: shared.limits.cancel_grace,
        health_interval: shared.limits.health_interval,
        health_timeout: shared.limits.health_timeout,
    };
    let end = {
        let running = connection.run(timing);
        tokio::pin!(running);
        tokio::select! {
            end = &mut running => end,
            grace = stop.told() => {
                connection.stop_taking();
                shared.published.set(State::Draining(Arc::clone(&connection)));
                tokio::select! {
                    _end = &mut running => {}
                    () = connection.drained() => {}
                    () = tokio::time::sleep(grace) => {}
                }
                // From here on the handler is told to go and is not heard any more.
                finish(shared, live).await;
                return Served::Stopped;
            }
        }
    };
    shared.published.set(State::Starting);
    let reason = match end {
        End::Closed => end_of_closed(shared, live).await,
        End::Protocol(what) => {
            let name = shared.identity.name.clone();
            live.process.kill();
            live.connection.close(&InvokeError::Protocol {
                name,
                reason: what.clone(),
            });
            live.process.wait().await;
            format!("it broke the protocol: {what}")
        }
        End::Stuck => {
            let_leave(shared, live, timing, stop.clone());
            return Served::Hung("it did not let go of a call past its deadline".into());
        }
        End::Leaving => {
            relieve(shared, live, timing, stop.clone()).await;
            "it asked to be replaced".into()
        }
        End::Deaf => {
            live.process.kill();
            live.process.wait().await;
            // Another handler runs what this one has not seen.
            live.connection.close(&InvokeError::NotTaken);
            "it did not answer any more".into()
        }
        End::Silent => {
            live.process.kill();
            live.process.wait().await;
            live.connection
                .close(&died(shared, "it did not answer any more"));
            "it did not answer any more".into()
        }
    };
    Served::Ended(reason)
}

/// The handler closed its stream: it has ended, or is about to be ended.
async fn end_of_closed(shared: &Shared, mut live: Live) -> String {
    live.connection.stop_taking();
    let waited = tokio::time::timeout(shared.limits.stop_grace, live.process.wait()).await;
    let reason = match waited {
        Ok(reason) => reason,
        Err(_elapsed) => {
            live.process.kill();
            live.process.wait().await;
            "it closed its connection".into()
        }
    };
    live.connection.close(&died(shared, &reason));
    reason
}

/// Starts instances, with growing pauses, until one is ready; none where told to stop.
async fn replace(
    shared: &Shared,
    spawn: &dyn Spawn,
    mut failure: Failure,
    backoff: &mut Backoff,
    stop: &mut Stop,
) -> Option<Live> {
    let identity = &shared.identity;
    loop {
        tell(identity, &failure);
        pause(shared, failure, backoff.pause(), stop).await?;
        shared.restarts.fetch_add(1, Ordering::Relaxed);
        shared.published.set(State::Starting);
        let started = tokio::select! {
            started = start_instance(spawn, shared) => started,
            _grace = stop.told() => return None,
        };
        match started {
            Ok(live) => return Some(live),
            Err(error) => failure = Failure::from(&error),
        }
    }
}

/// Tells why a handler ended. What it printed while loading comes with it, unless the function's
/// log has that already: from the handler itself, or from the start before.
fn tell(identity: &Identity, failure: &Failure) {
    let (log, id, reason) = (&identity.log, &identity.id, &failure.reason);
    let detail: Vec<&str> = failure.detail.lines().collect();
    // Where there are more, the first only says that it was not loaded.
    let printed = detail.get(1..).filter(|rest| !rest.is_empty());
    let printed = printed.unwrap_or(&detail);
    let known = log.last_of(id, printed.len() + LAST_LINES);
    let is_known = |line: &&str| known.iter().any(|known| known.text == **line);
    if !printed.iter().all(is_known) {
        for line in &detail {
            log.push(id, LogStream::Platform, line);
        }
    }
    let note = format!("handler ended ({reason}); it is started again");
    log.push(id, LogStream::Platform, &note);
    let detail = detail.first().copied().unwrap_or_default();
    tracing::warn!(function = %identity.name, handler = %id, reason, detail, "handler ended");
}

/// Waits before the next instance is started, and says for what; none where told to stop.
async fn pause(
    shared: &Shared,
    mut failure: Failure,
    pause: Duration,
    stop: &mut Stop,
) -> Option<()> {
    if pause.is_zero() {
        return Some(());
    }
    if failure.detail.is_empty() {
        failure.detail = last_lines(&shared.identity);
    }
    shared.published.set(State::Pausing {
        failure,
        until: Instant::now() + pause,
    });
    tokio::select! {
        () = tokio::time::sleep(pause) => Some(()),
        _grace = stop.told() => None,
    }
}

fn died(shared: &Shared, reason: &str) -> InvokeError {
    InvokeError::HandlerDied {
        name: shared.identity.name.clone(),
        reason: reason.to_owned(),
    }
}
