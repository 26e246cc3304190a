//! A name in the router: what serves it, who waits for it, what is counted of it.

use crate::changes::Changes;
use crate::cors::Cors;
use crate::deployment::Deployment;
use crate::failure::Failure;
use crate::function::{CallTerms, FunctionName};
use crate::histogram::Histogram;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

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
    cors: ArcSwapOption<Cors>,
    waiting: AtomicUsize,
    /// Told when an invocation waits for the function to be prepared.
    wanted: Notify,
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
    pub(crate) fn new(terms: CallTerms, changes: &Arc<Changes>) -> Self {
        Self {
            name: terms.name,
            deployment: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            changed: Notify::new(),
            withdrawn: AtomicBool::new(false),
            queue_max: AtomicUsize::new(terms.queue_max),
            deadline_ms: AtomicU64::new(millis(terms.deadline)),
            cors: ArcSwapOption::from(terms.cors.clone()),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            changes: Arc::clone(changes),
            counters: Counters::default(),
        }
    }

    /// Lets the deployment serve from now on, and returns the one that it replaces.
    pub(crate) fn publish(&self, deployment: Arc<Deployment>) -> Option<Arc<Deployment>> {
        let terms = deployment.terms();
        self.queue_max.store(terms.queue_max, Ordering::Relaxed);
        let deadline_ms = millis(terms.deadline);
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        self.cors.store(terms.cors.clone());
        let replaced = self.deployment.swap(Some(deployment));
        self.failure.store(None);
        self.changed.notify_waiters();
        replaced
    }

    /// Takes the route out of service, and returns the deployment that served it.
    pub(crate) fn withdraw(&self) -> Option<Arc<Deployment>> {
        self.withdrawn.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        self.deployment.swap(None)
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

    /// What callers have to know of the function.
    #[must_use]
    pub fn terms(&self) -> CallTerms {
        CallTerms {
            name: self.name.clone(),
            deadline: self.deadline(),
            queue_max: self.queue_max(),
            cors: self.cors(),
        }
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

    /// Which pages of other sites may call it; none where that is the node's to say.
    #[must_use]
    pub fn cors(&self) -> Option<Arc<Cors>> {
        self.cors.load_full()
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
        if tally.waiting > 0 && self.deployment.load().is_none() {
            self.want();
        }
        self.counters.overhead.set_raw(&tally.overhead);
    }

    /// Asks for the function to be prepared before others.
    pub(crate) fn want(&self) {
        // Kept for whoever prepares it, should that begin later.
        self.wanted.notify_one();
    }

    /// Returns when an invocation waits for the function to be prepared. One at a time.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Takes a place among those that wait, behind so many; none where all are taken.
    pub(crate) fn wait_place(self: &Arc<Self>) -> Option<WaitPlace> {
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = WaitPlace {
            route: Arc::clone(self),
            ahead,
        };
        (ahead < self.queue_max.load(Ordering::Relaxed)).then_some(place)
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
pub(crate) struct WaitPlace {
    route: Arc<Route>,
    /// How many waited already.
    pub(crate) ahead: usize,
}

impl Drop for WaitPlace {
    fn drop(&mut self) {
        self.route.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
