//! The handlers that serve one version of a function, and who is let in to them.

use crate::function::CallTerms;
use crate::handler::{Callable, Handler, HandlerState, Handlers};
use crate::pace::{Crowd, Pace};
use futures_util::future::select_all;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, TryAcquireError};

/// How long to wait before another look at handlers that tell nobody when they change.
const LOOK: Duration = Duration::from_millis(50);

/// The handlers that serve one version of a function.
#[derive(Debug)]
pub struct Deployment {
    terms: CallTerms,
    handlers: Handlers,
    /// How many invocations the handlers want at once.
    concurrency: usize,
    /// A permit for every invocation that may come in now.
    permits: Semaphore,
    /// How many may be inside at once; `concurrency` unless they would wait too long in there.
    limit: Mutex<usize>,
    /// Permits that are to be given up by those who leave.
    owed: AtomicUsize,
    pace: Pace,
    entered: AtomicUsize,
    retired: AtomicBool,
    left: Notify,
}

/// Why a deployment did not take an invocation at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// As many invocations are inside as may be.
    Full,
    /// It was replaced.
    Retired,
}

impl Deployment {
    /// A deployment of ready handlers, not yet published.
    #[must_use]
    pub fn new(terms: CallTerms, handlers: Handlers) -> Self {
        let callable = handlers.callable().iter();
        let wanted = callable.map(|handler| handler.concurrency()).sum();
        let concurrency = std::cmp::min(wanted, Semaphore::MAX_PERMITS);
        Self {
            terms,
            handlers,
            concurrency,
            permits: Semaphore::new(concurrency),
            limit: Mutex::new(concurrency),
            owed: AtomicUsize::new(0),
            pace: Pace::new(),
            entered: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    /// What callers have to know of the function.
    #[must_use]
    pub fn terms(&self) -> &CallTerms {
        &self.terms
    }

    /// The handlers, dead and alive.
    #[must_use]
    pub fn handlers(&self) -> &[Arc<dyn Handler>] {
        self.handlers.living()
    }

    /// Lets the invocations that are inside finish, up to `grace`, and stops the handlers.
    /// Returns when nothing of them is left. The deployment must not be published any more.
    /// Dropping the future and calling it again with less grace cuts it short.
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
        self.handlers.stop(rest).await;
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

    /// How long an invocation will take that has so many waiting ahead of it, as far as is known.
    pub(crate) fn expected(&self, ahead: usize) -> Duration {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        self.pace.expected(ahead, limit)
    }

    /// How long an invocation takes once it is inside, as far as is known.
    pub(crate) fn mean(&self) -> Duration {
        self.pace.mean()
    }

    /// Learns how long an invocation took that ended or was given up at its deadline, and lets in
    /// as many as can be served in time.
    pub(crate) fn learn(&self, took: Duration, deadline: Duration) {
        let crowd = || Crowd {
            inside: self.entered.load(Ordering::Relaxed),
            limit: *self.limit.lock().unwrap_or_else(PoisonError::into_inner),
            limit_min: self.handlers.callable().len().min(self.concurrency),
            limit_max: self.concurrency,
        };
        if let Some(limit) = self.pace.learn(took, deadline, crowd) {
            self.set_limit(limit);
        }
    }

    fn set_limit(&self, next: usize) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fewer) = limit.checked_sub(next) {
            let given_up = self.permits.forget_permits(fewer);
            self.owed.fetch_add(fewer - given_up, Ordering::SeqCst);
        } else {
            let more = next - *limit;
            let kept = (0..more).take_while(|_| self.is_owed()).count();
            self.permits.add_permits(more - kept);
        }
        *limit = next;
        tracing::debug!(function = %self.terms.name, limit = next, "lets in as many calls at once");
    }

    /// Pays one of the permits that are owed, if any is.
    fn is_owed(&self) -> bool {
        let (order, on_failure) = (Ordering::SeqCst, Ordering::Relaxed);
        let paid = |owed: usize| owed.checked_sub(1);
        self.owed.fetch_update(order, on_failure, paid).is_ok()
    }

    /// The ready handler with the least to do.
    pub(crate) fn least_busy(&self) -> Option<&Arc<dyn Callable>> {
        let callable = self.handlers.callable().iter();
        let ready = callable.filter(|handler| handler.is_ready());
        ready.min_by_key(|handler| handler.load())
    }

    /// Returns when it is worth looking for a ready handler again, or says why none will be ready
    /// within `patience`, and for how long.
    pub(crate) async fn handler_settled(
        &self,
        patience: Duration,
    ) -> Result<(), (String, Duration)> {
        let mut soonest: Option<(String, Duration)> = None;
        let mut starting = Vec::new();
        let mut has_doubted = false;
        for handler in self.handlers.callable() {
            match handler.state() {
                HandlerState::Ready if handler.is_ready() => return Ok(()),
                HandlerState::Ready => has_doubted = true,
                HandlerState::Starting => starting.push(handler.settled()),
                HandlerState::Pausing {
                    failure,
                    retry_after,
                } => {
                    let sooner = |(_, pause): &(String, Duration)| retry_after < *pause;
                    if soonest.as_ref().is_none_or(sooner) {
                        soonest = Some((failure.reason, retry_after));
                    }
                }
                HandlerState::Stopped => {}
            }
        }
        let pause = soonest.as_ref().map(|(_, pause)| *pause);
        match soonest {
            Some(soonest) if soonest.1 > patience && starting.is_empty() && !has_doubted => {
                return Err(soonest);
            }
            Some(_) | None => {}
        }
        let pause = if has_doubted { Some(LOOK) } else { pause };
        let paused = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause.max(LOOK)).await,
                // Only another deployment helps, or one of those that start.
                None => std::future::pending().await,
            }
        };
        let started = async {
            if starting.is_empty() {
                std::future::pending().await
            } else {
                select_all(starting).await;
            }
        };
        tokio::select! {
            () = started => {}
            () = paused => {}
        }
        Ok(())
    }
}

/// A place inside a deployment; dropping it lets the next invocation in.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Deployment);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let deployment = self.0;
        if deployment.owed.load(Ordering::Relaxed) == 0 || !deployment.is_owed() {
            deployment.permits.add_permits(1);
        }
        let before = deployment.entered.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && deployment.retired.load(Ordering::SeqCst) {
            deployment.left.notify_waiters();
        }
    }
}
