//! Refusals that come too fast are held back, so that asking again at once costs whoever asks and
//! not those who are served.

use crate::limits::Limits;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The refusals of this node.
#[derive(Debug)]
pub(crate) struct Refusals {
    origin: Instant,
    /// When the refusals so far would all have been made at the rate that is free, in nanoseconds
    /// since the origin (the generic cell rate algorithm of ITU-T I.371).
    due_nanos: AtomicU64,
    held: AtomicUsize,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            due_nanos: AtomicU64::new(0),
            held: AtomicUsize::new(0),
        }
    }

    /// Returns at once while refusals are rare, and within [`Limits::hold_back`] where they are not,
    /// or when the caller's time is up; at once again where too many are held back already.
    pub(crate) async fn hold_back(&self, limits: &Limits, time_left: Duration) {
        if self.is_free(limits.refusals_free_per_second) {
            return;
        }
        let held = Held::begin(&self.held);
        if held.before < limits.held_back_max {
            tokio::time::sleep(spread(limits.hold_back, held.before).min(time_left)).await;
        }
    }

    fn is_free(&self, per_second: u32) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(self.origin.elapsed());
        let step = nanos(SECOND / per_second.max(1));
        let next = |due: u64| (due < now + nanos(SECOND)).then(|| due.max(now) + step);
        let (order, on_failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.due_nanos.fetch_update(order, on_failure, next).is_ok()
    }
}

/// From seven tenths of a time to all of it, so that those who were refused together do not ask again
/// together: neighbouring numbers come far apart (a Weyl sequence of the golden ratio).
fn spread(time: Duration, number: usize) -> Duration {
    const GOLDEN: u32 = 0x9e37_79b9;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are what counts"
    )]
    let part = (number as u32).wrapping_mul(GOLDEN) >> 16;
    time * 7 / 10 + time * 3 / 10 * part / (1 << 16)
}

/// A refusal that is held back; dropping it lets go of it.
struct Held<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Held<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_refused_together_come_back_apart() {
        let time = Duration::from_secs(1);
        let mut pauses: Vec<_> = (0..2000).map(|number| spread(time, number)).collect();
        pauses.sort_unstable();
        assert!(pauses[0] >= time * 7 / 10 && pauses[1999] < time);
        let widest = pauses.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest.unwrap() < Duration::from_millis(1), "{widest:?}");
    }
}
