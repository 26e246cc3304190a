//! How many invocations a deployment lets in at once, and whether one more can be served in time:
//! learnt from those that ended.
//!
//! Handlers name how many invocations they want at once, and many of them work these off one after
//! the other. Where that takes longer than callers wait, each is given up just before its turn, and
//! nothing is served any more. So, as in `CoDel` (RFC 8289), a queue is recognized by the quickest of
//! a window of invocations being slow, and then fewer are let in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many invocations the mean time with a handler is taken over.
const MEAN_OVER: u64 = 8;

/// Invocations that a window has at least, unless it takes half of a deadline.
const WINDOW_ENDS: u32 = 4;

/// What is known of the invocations of one deployment.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The recent mean time with a handler; 0 as long as none has ended.
    mean_nanos: AtomicU64,
    /// The quickest of all, which had nothing to wait for in its handler.
    quickest_nanos: AtomicU64,
    /// Whether the window is open.
    is_watching: AtomicBool,
    window: Mutex<Window>,
}

/// Invocations that ended lately.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    /// What ends before belongs to a time when more were let in.
    not_before: Option<Instant>,
    quickest: Duration,
    ended: u32,
}

/// How many a deployment lets in now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    /// Those inside.
    pub(crate) inside: usize,
    /// The most that are let in.
    pub(crate) limit: usize,
    /// The fewest that it may be: one for each handler.
    pub(crate) limit_min: usize,
    /// What the handlers want.
    pub(crate) limit_max: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            mean_nanos: AtomicU64::new(0),
            quickest_nanos: AtomicU64::new(u64::MAX),
            is_watching: AtomicBool::new(false),
            window: Mutex::default(),
        }
    }

    /// The recent mean time with a handler.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_nanos.load(Ordering::Relaxed))
    }

    /// How long an invocation will take that has so many ahead of it, with some allowance.
    pub(crate) fn expected(&self, ahead: usize, limit: usize) -> Duration {
        let mean = self.mean();
        let ahead = u32::try_from(ahead.saturating_add(1)).unwrap_or(u32::MAX);
        let limit = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        let waiting = mean.saturating_mul(ahead) / limit;
        waiting.saturating_add(mean + mean / 4)
    }

    /// Learns from an invocation that ended, or was given up at its deadline. Returns how many
    /// are to be let in from now on, where that changes.
    ///
    /// What is quick costs two loads and a store.
    pub(crate) fn learn(
        &self,
        took: Duration,
        deadline: Duration,
        crowd: impl FnOnce() -> Crowd,
    ) -> Option<usize> {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mean = match self.mean_nanos.load(Ordering::Relaxed) {
            0 => nanos,
            mean => mean - mean / MEAN_OVER + nanos / MEAN_OVER,
        };
        self.mean_nanos.store(mean, Ordering::Relaxed);
        if nanos < self.quickest_nanos.load(Ordering::Relaxed) {
            self.quickest_nanos.store(nanos, Ordering::Relaxed);
        }
        if took < deadline / 4 && !self.is_watching.load(Ordering::Relaxed) {
            return None;
        }
        self.watch(took, deadline, crowd())
    }

    fn watch(&self, took: Duration, deadline: Duration, crowd: Crowd) -> Option<usize> {
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.not_before.is_some_and(|begin| now < begin) {
            return None;
        }
        let began = *window.began.get_or_insert(now);
        window.quickest = match window.ended {
            0 => took,
            _ => window.quickest.min(took),
        };
        window.ended += 1;
        let age = now - began;
        let is_over = (age >= deadline / 8 && window.ended >= WINDOW_ENDS) || age >= deadline / 2;
        let mut limit = None;
        if is_over {
            let quickest = window.quickest;
            *window = Window::default();
            let next = self.next_limit(quickest, deadline, crowd);
            if next < crowd.limit {
                window.not_before = Some(now + quickest);
            }
            limit = (next != crowd.limit).then_some(next);
        }
        let is_limited = limit.unwrap_or(crowd.limit) < crowd.limit_max;
        let is_open = window.began.is_some();
        self.is_watching
            .store(is_limited || is_open, Ordering::Relaxed);
        limit
    }

    /// How many are to be let in after a window whose quickest invocation took so long.
    fn next_limit(&self, quickest: Duration, deadline: Duration, crowd: Crowd) -> usize {
        let alone = Duration::from_nanos(self.quickest_nanos.load(Ordering::Relaxed));
        // Between what it takes alone and what callers wait, at least half of that.
        let slow = (deadline / 2).max(alone + deadline.saturating_sub(alone) / 2);
        if quickest > slow {
            if crowd.inside <= crowd.limit_min {
                // It is as slow alone: that is the function itself.
                let nanos = u64::try_from(quickest.as_nanos()).unwrap_or(u64::MAX);
                self.quickest_nanos.store(nanos, Ordering::Relaxed);
                return crowd.limit_max;
            }
            let share = slow.as_secs_f64() * 0.75 / quickest.as_secs_f64();
            return scaled(crowd.inside.min(crowd.limit), share).max(crowd.limit_min);
        }
        if crowd.limit >= crowd.limit_max {
            return crowd.limit;
        }
        let next = match quickest {
            quickest if quickest < slow / 4 => crowd.limit * 2,
            quickest if quickest < slow * 3 / 4 => crowd.limit + 1,
            _ => crowd.limit,
        };
        next.min(crowd.limit_max)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of invocations, far below 2^52, times a share of at most one"
)]
fn scaled(count: usize, share: f64) -> usize {
    (count as f64 * share) as usize
}
