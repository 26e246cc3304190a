//! Holds work that tinyFaaS does for somebody to a share of a core.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A share of one core's time, which all that hold this work within together.
///
/// Whoever has worked tells how long, and rests until the moment that it is told: then its work and
/// that of the others is within the share. Those who work at the same time rest one after the other,
/// so that none is passed over.
#[derive(Debug)]
pub struct CoreShare {
    percent: u32,
    free: Mutex<Option<Instant>>,
}

impl CoreShare {
    /// A share of so many hundredths, at least one.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self {
            percent: percent.max(1),
            free: Mutex::new(None),
        }
    }

    /// When to work again, after work that took so long.
    pub fn rest(&self, now: Instant, took: Duration) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let from = free.map_or(now, |free| free.max(now));
        let until = from + took * 100 / self.percent;
        *free = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_work_together_they_keep_within_the_share() {
        let share_of_core = CoreShare::new(5);
        let start = Instant::now();
        let end = start + Duration::from_secs(10);
        let work = Duration::from_micros(300);
        let mut next = [start; 40];
        let mut worked = Duration::ZERO;
        while let Some(turn) = next.iter_mut().filter(|at| **at < end).min() {
            worked += work;
            *turn = share_of_core.rest(*turn + work, work);
        }
        let share = Duration::from_secs(10) * 5 / 100;
        assert!(worked >= share, "{worked:?}");
        // Each begins with a turn of its own.
        assert!(worked <= share + 40 * work, "{worked:?}");
    }

    #[test]
    fn who_works_little_does_not_rest_for_what_is_long_past() {
        let share_of_core = CoreShare::new(10);
        let start = Instant::now();
        let work = Duration::from_millis(1);
        assert_eq!(share_of_core.rest(start, work), start + 10 * work);
        let later = start + Duration::from_secs(60);
        assert_eq!(share_of_core.rest(later, work), later + 10 * work);
    }
}
