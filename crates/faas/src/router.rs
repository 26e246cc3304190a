//! From a name to the deployment that serves it: reads take no lock.

use crate::backend::{Failure, Handler, HandlerState};
use crate::changes::{Changes, Follower};
use crate::function::{FunctionName, FunctionSpec};
use crate::histogram::Histogram;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::{join_all, select_all};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, TryAcquireError};

/// The table of routes. Finding a route reads a snapshot; announcing or withdrawing one copies it.
#[derive(Debug, Default)]
pub struct Router {
    routes: ArcSwap<HashMap<FunctionName, Arc<Route>>>,
    /// Held while the snapshot is replaced.
    writing: Mutex<()>,
    changes: Arc<Changes>,
}

impl Router {
    /// The route of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.load().get(name).map(Arc::clone)
    }

    /// Every route, in no order.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.load().values().map(Arc::clone).collect()
    }

    /// Makes the names known before their deployments are ready: invocations wait for them.
    pub fn announce(&self, specs: impl IntoIterator<Item = Arc<FunctionSpec>>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = HashMap::clone(&self.routes.load());
        for spec in specs {
            let name = spec.name.clone();
            routes
                .entry(name)
                .or_insert_with(|| Arc::new(Route::new(&spec, &self.changes)));
        }
        self.routes.store(Arc::new(routes));
        self.changes.count();
    }

    /// Lets the deployment serve its function's name from now on. Returns the one that it
    /// replaces, for the caller to [retire](Deployment::retire).
    pub fn publish(&self, deployment: Arc<Deployment>) -> Option<Arc<Deployment>> {
        let name = deployment.spec().name.clone();
        if self.find(name.as_str()).is_none() {
            self.announce([Arc::clone(deployment.spec())]);
        }
        let route = self.find(name.as_str())?;
        route
            .queue_max
            .store(deployment.spec().limits.queue_max, Ordering::Relaxed);
        let deadline_ms = millis(deployment.spec().limits.deadline);
        route.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        let replaced = route.deployment.swap(Some(deployment));
        route.failure.store(None);
        route.changed.notify_waiters();
        self.changes.count();
        replaced
    }

    /// Takes the name out of service. Returns the deployment that served it, for the caller to
    /// [retire](Deployment::retire), and whether the name was known.
    pub fn withdraw(&self, name: &FunctionName) -> (bool, Option<Arc<Deployment>>) {
        let route = {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut routes = HashMap::clone(&self.routes.load());
            let route = routes.remove(name);
            self.routes.store(Arc::new(routes));
            route
        };
        let Some(route) = route else {
            return (false, None);
        };
        route.withdrawn.store(true, Ordering::SeqCst);
        route.changed.notify_waiters();
        self.changes.count();
        (true, route.deployment.swap(None))
    }

    /// Follows the changes, for a process elsewhere whose table must be the same. One at a time.
    #[must_use]
    pub fn follow(&self) -> Follower {
        self.changes.follow()
    }

    /// Returns when every change made so far is in force at the follower; at once without one.
    pub async fn applied(&self) {
        self.changes.applied().await;
    }
}

/// A name in the router: what serves it now and what has been counted so far.
#[derive(Debug)]
pub struct Route {
    name: FunctionName,
    deployment: ArcSwapOption<Deployment>,
    /// Why the function has no deployment, where starting it failed.
    failure: ArcSwapOption<Failure>,
    changed: Notify,
    withdrawn: AtomicBool,
    queue_max: AtomicUsize,
    deadline_ms: AtomicU64,
    waiting: AtomicUsize,
    changes: Arc<Changes>,
    /// What is counted of this function, whatever deployment serves it.
    pub counters: Counters,
}

/// What was counted of a function at one moment, to be told to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// As in [`Counters`].
    pub invocations: u64,
    /// As in [`Counters`].
    pub function_errors: u64,
    /// As in [`Counters`].
    pub platform_errors: u64,
    /// Invocations that wait for a handler.
    pub waiting: usize,
    /// As [`Histogram::raw`] has it.
    pub overhead: Vec<u64>,
}

/// What is counted of a function since this process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Invocations that found the function, refused ones too.
    pub invocations: AtomicU64,
    /// Those that brought no reply through the function's fault.
    pub function_errors: AtomicU64,
    /// Those that brought no reply through the platform's fault.
    pub platform_errors: AtomicU64,
    /// What invocations took from decoded to replied, the handler's time not counted.
    pub overhead: Histogram,
}

impl Route {
    fn new(spec: &FunctionSpec, changes: &Arc<Changes>) -> Self {
        Self {
            name: spec.name.clone(),
            deployment: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            changed: Notify::new(),
            withdrawn: AtomicBool::new(false),
            queue_max: AtomicUsize::new(spec.limits.queue_max),
            deadline_ms: AtomicU64::new(millis(spec.limits.deadline)),
            waiting: AtomicUsize::new(0),
            changes: Arc::clone(changes),
            counters: Counters::default(),
        }
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &FunctionName {
        &self.name
    }

    /// What serves the name now; none while it is being prepared.
    #[must_use]
    pub fn deployment(&self) -> Option<Arc<Deployment>> {
        self.deployment.load_full()
    }

    /// Why the function has no deployment, where starting it failed.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.load_full()
    }

    /// Tells callers and `list` why the function can't be started, until something is published.
    pub fn set_failure(&self, failure: Failure) {
        self.failure.store(Some(Arc::new(failure)));
        self.changed.notify_waiters();
        self.changes.count();
    }

    /// Whether the name was taken out of service.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    /// How long an invocation may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.load(Ordering::Relaxed))
    }

    /// How many invocations may wait for a handler.
    #[must_use]
    pub fn queue_max(&self) -> usize {
        self.queue_max.load(Ordering::Relaxed)
    }

    /// Invocations that wait for a handler.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What was counted of this function so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            invocations: load(&self.counters.invocations),
            function_errors: load(&self.counters.function_errors),
            platform_errors: load(&self.counters.platform_errors),
            waiting: self.waiting(),
            overhead: self.counters.overhead.raw(),
        }
    }

    /// Makes what another process counted the counts of this route, which itself counts nothing.
    pub fn take_over(&self, tally: &Tally) {
        let store = |counter: &AtomicU64, count| counter.store(count, Ordering::Relaxed);
        store(&self.counters.invocations, tally.invocations);
        store(&self.counters.function_errors, tally.function_errors);
        store(&self.counters.platform_errors, tally.platform_errors);
        self.waiting.store(tally.waiting, Ordering::Relaxed);
        self.counters.overhead.set_raw(&tally.overhead);
    }

    /// Takes a place among those that wait; none where all are taken.
    pub(crate) fn wait_place(&self) -> Option<WaitPlace<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = WaitPlace(self);
        (before < self.queue_max.load(Ordering::Relaxed)).then_some(place)
    }

    /// Returns when the deployment is another one than `seen`, or the route failed or went.
    pub(crate) async fn changed_from(&self, seen: Option<&Arc<Deployment>>) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Registers before the look, so that no change is missed.
        changed.as_mut().enable();
        let now = self.deployment.load();
        let same = match (now.as_ref(), seen) {
            (Some(now), Some(seen)) => Arc::ptr_eq(now, seen),
            (None, None) => self.failure.load().is_none(),
            (Some(_), None) | (None, Some(_)) => false,
        };
        drop(now);
        if same && !self.is_withdrawn() {
            changed.await;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A place among the invocations that wait for a handler; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct WaitPlace<'a>(&'a Route);

impl Drop for WaitPlace<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The handlers that serve one version of a function.
#[derive(Debug)]
pub struct Deployment {
    spec: Arc<FunctionSpec>,
    digest: String,
    handlers: Vec<Arc<dyn Handler>>,
    /// A permit for every invocation that the handlers want to have at once.
    permits: Semaphore,
    entered: AtomicUsize,
    retired: AtomicBool,
    left: Notify,
}

/// Why a deployment did not take an invocation at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Every handler has as many invocations as it wants.
    Full,
    /// It was replaced.
    Retired,
}

impl Deployment {
    /// A deployment of ready handlers, not yet published.
    #[must_use]
    pub fn new(spec: Arc<FunctionSpec>, digest: String, handlers: Vec<Arc<dyn Handler>>) -> Self {
        let at_once = handlers.iter().map(|handler| handler.at_once_max()).sum();
        Self {
            spec,
            digest,
            handlers,
            permits: Semaphore::new(std::cmp::min(at_once, Semaphore::MAX_PERMITS)),
            entered: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    /// What the user asked for.
    #[must_use]
    pub fn spec(&self) -> &Arc<FunctionSpec> {
        &self.spec
    }

    /// The digest of the code.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The handlers, dead and alive.
    #[must_use]
    pub fn handlers(&self) -> &[Arc<dyn Handler>] {
        &self.handlers
    }

    /// Lets the invocations that are inside finish, up to `grace`, and stops the handlers.
    /// Returns when nothing of them is left. The deployment must not be published any more.
    pub async fn retire(&self, grace: Duration) {
        self.retired.store(true, Ordering::SeqCst);
        self.permits.close();
        let emptied = async {
            loop {
                let left = self.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.entered.load(Ordering::SeqCst) == 0 {
                    return;
                }
                left.await;
            }
        };
        let started = tokio::time::Instant::now();
        // Running out of grace is no failure: the handlers below are stopped all the same.
        let in_time = tokio::time::timeout(grace, emptied).await.is_ok();
        let rest = if in_time {
            grace.saturating_sub(started.elapsed())
        } else {
            Duration::ZERO
        };
        join_all(self.handlers.iter().map(|handler| handler.stop(rest))).await;
    }

    /// Takes a place inside, if one is free now.
    pub(crate) fn try_enter(&self) -> Result<Inside<'_>, Busy> {
        match self.permits.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.entered()
            }
            Err(TryAcquireError::NoPermits) => Err(Busy::Full),
            Err(TryAcquireError::Closed) => Err(Busy::Retired),
        }
    }

    /// Waits for a place inside, first come, first served.
    pub(crate) async fn enter(&self) -> Result<Inside<'_>, Busy> {
        let Ok(permit) = self.permits.acquire().await else {
            return Err(Busy::Retired);
        };
        permit.forget();
        self.entered()
    }

    fn entered(&self) -> Result<Inside<'_>, Busy> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        // The count is raised before the look: either this sees the retirement, or the
        // retirement sees the count.
        if self.retired.load(Ordering::SeqCst) {
            Err(Busy::Retired)
        } else {
            Ok(inside)
        }
    }

    /// The ready handler with the fewest invocations.
    pub(crate) fn least_busy(&self) -> Option<&Arc<dyn Handler>> {
        let ready = self.handlers.iter().filter(|handler| handler.is_ready());
        ready.min_by_key(|handler| handler.in_flight())
    }

    /// Returns when a handler is ready, or says why and for how long none will be.
    pub(crate) async fn handler_settled(&self) -> Result<(), (String, Duration)> {
        let mut soonest: Option<(String, Duration)> = None;
        for handler in &self.handlers {
            match handler.status().state {
                HandlerState::Ready => return Ok(()),
                HandlerState::Starting => {
                    select_all(self.handlers.iter().map(|handler| handler.settled())).await;
                    return Ok(());
                }
                HandlerState::Pausing {
                    failure,
                    retry_after,
                } => {
                    if soonest
                        .as_ref()
                        .is_none_or(|(_, pause)| retry_after < *pause)
                    {
                        soonest = Some((failure.reason, retry_after));
                    }
                }
                HandlerState::Stopped => {}
            }
        }
        soonest.map_or(Ok(()), Err)
    }
}

/// A place inside a deployment; dropping it lets the next invocation in.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Deployment);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
        let before = self.0.entered.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.retired.load(Ordering::SeqCst) {
            self.0.left.notify_waiters();
        }
    }
}
