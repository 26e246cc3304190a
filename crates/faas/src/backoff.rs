//! Pauses that double.

use std::time::Duration;

/// How long to wait before the next attempt: each time twice as long, within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with a pause of `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let next = min;
        Self { min, max, next }
    }

    /// Begins without a pause; `min` comes second.
    #[must_use]
    pub fn at_once(min: Duration, max: Duration) -> Self {
        let next = Duration::ZERO;
        Self { min, max, next }
    }

    /// The pause before the attempt that comes now.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause
            .saturating_mul(2)
            .clamp(self.min, self.max.max(self.min));
        pause
    }

    /// Forgets what failed before: the next attempt comes at once.
    pub fn reset(&mut self) {
        self.next = Duration::ZERO;
    }

    /// Makes the next pause no longer than the shortest.
    pub fn ease(&mut self) {
        self.next = self.next.min(self.min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        let pauses = std::iter::repeat_with(|| backoff.pause().as_secs());
        pauses.take(count).collect()
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let bounds = (Duration::from_secs(1), Duration::from_secs(5));
        let mut backoff = Backoff::new(bounds.0, bounds.1);
        assert_eq!(pauses(&mut backoff, 5), [1, 2, 4, 5, 5]);
        backoff.ease();
        assert_eq!(pauses(&mut backoff, 2), [1, 2]);
        backoff.reset();
        assert_eq!(pauses(&mut backoff, 3), [0, 1, 2]);
        let mut backoff = Backoff::at_once(bounds.0, bounds.1);
        assert_eq!(pauses(&mut backoff, 3), [0, 1, 2]);
        backoff.reset();
        backoff.ease();
        assert_eq!(pauses(&mut backoff, 1), [0]);
    }
}
