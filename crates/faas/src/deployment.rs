//! The handlers that serve one version of a function, and who is let in to them.

use crate::function::CallTerms;
use crate::gate::{Gate, Pass};
use crate::handler::{Callable, Handler, HandlerState, Handlers};
use crate::pace::{Crowd, Pace};
use crate::slots::{NoSlot, Slots};
use futures_util::future::select_all;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before another look at handlers that tell nobody when they change.
const LOOK: Duration = Duration::from_millis(50);

/// The handlers that serve one version of a function.
#[derive(Debug)]
pub struct Deployment {
    terms: CallTerms,
    handlers: Handlers,
    /// How many invocations the handlers want at once.
    concurrency: usize,
    /// One for every invocation that may be inside at once: `concurrency` of them unless they would
    /// wait too long in there.
    slots: Slots,
    pace: Pace,
    /// Closed when it is retired.
    gate: Gate,
}

impl Deployment {
    /// A deployment of ready handlers, not yet published.
    #[must_use]
    pub fn new(terms: CallTerms, handlers: Handlers) -> Self {
        let callable = handlers.callable().iter();
        let wanted = callable.map(|handler| handler.concurrency()).sum();
        let concurrency = std::cmp::min(wanted, Slots::MAX);
        Self {
            terms,
            handlers,
            concurrency,
            slots: Slots::new(concurrency),
            pace: Pace::new(),
            gate: Gate::new(),
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
        self.gate.close();
        self.slots.close();
        let started = tokio::time::Instant::now();
        // Running out of grace is no failure: the handlers below are stopped all the same.
        let in_time = tokio::time::timeout(grace, self.gate.emptied())
            .await
            .is_ok();
        let rest = if in_time {
            grace.saturating_sub(started.elapsed())
        } else {
            Duration::ZERO
        };
        self.handlers.stop(rest).await;
    }

    /// Takes a place inside, if one is free now.
    pub(crate) fn try_enter(&self) -> Result<Inside<'_>, NoSlot> {
        self.slots.try_take()?;
        self.entered()
    }

    /// Waits for a place inside, first come, first served.
    pub(crate) async fn enter(&self) -> Result<Inside<'_>, NoSlot> {
        self.slots.take().await?;
        self.entered()
    }

    fn entered(&self) -> Result<Inside<'_>, NoSlot> {
        // A slot that is not given back then is missed by nobody.
        let pass = self.gate.enter().ok_or(NoSlot::Closed)?;
        Ok(Inside {
            deployment: self,
            _pass: pass,
        })
    }

    /// How long an invocation will take that has so many waiting ahead of it, as far as is known.
    pub(crate) fn expected(&self, ahead: usize) -> Duration {
        self.pace.expected(ahead, self.slots.limit())
    }

    /// How long an invocation takes once it is inside, as far as is known.
    pub(crate) fn mean(&self) -> Duration {
        self.pace.mean()
    }

    /// Learns how long an invocation took that ended or was given up at its deadline, and lets in
    /// as many as can be served in time.
    pub(crate) fn learn(&self, took: Duration, deadline: Duration) {
        let crowd = || Crowd {
            inside: self.gate.inside(),
            limit: self.slots.limit(),
            limit_min: self.handlers.callable().len().min(self.concurrency),
            limit_max: self.concurrency,
        };
        if let Some(limit) = self.pace.learn(took, deadline, crowd) {
            self.slots.set_limit(limit);
            tracing::debug!(function = %self.terms.name, limit, "lets in as many calls at once");
        }
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
pub(crate) struct Inside<'a> {
    deployment: &'a Deployment,
    _pass: Pass<'a>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.deployment.slots.give_back();
    }
}
