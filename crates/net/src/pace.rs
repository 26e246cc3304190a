//! How fast a message has to come.

use std::time::Duration;
use tokio::time::Instant;

/// The time that a sender has for its next piece.
///
/// It has `idle` at first and never more than that; each piece earns the time that it may take at
/// the least rate. So what came quickly earns no rest: whoever sent nearly all of a large message
/// can't hold its memory for hours without sending on.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    idle: Duration,
    bytes_min: u64,
    deadline: Instant,
    /// What was left when it was paused.
    paused: Option<Duration>,
}

impl Pace {
    /// The pace of a message that begins now: `bytes_min` a second at the least, and no pause
    /// longer than `idle`.
    #[must_use]
    pub fn new(idle: Duration, bytes_min: u64) -> Self {
        Self {
            idle,
            bytes_min: bytes_min.max(1),
            deadline: Instant::now() + idle,
            paused: None,
        }
    }

    /// When the message is too slow, unless more of it comes.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Counts a piece that came now.
    pub fn came(&mut self, bytes: usize) {
        let millis = (bytes as u64).saturating_mul(1000) / self.bytes_min;
        let latest = Instant::now() + self.idle;
        // No piece earns more than the pause.
        let earned = Duration::from_millis(millis).min(self.idle);
        self.deadline = latest.min(self.deadline + earned);
    }

    /// The time does not run until [`Self::resume`]: nothing is awaited.
    pub(crate) fn pause(&mut self) {
        self.paused = Some(self.deadline.saturating_duration_since(Instant::now()));
    }

    /// The time runs again, where it was paused.
    pub(crate) fn resume(&mut self) {
        if let Some(left) = self.paused.take() {
            self.deadline = Instant::now() + left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    /// How long a message lasts that sends so many bytes after each pause.
    async fn lasts(mut pace: Pace, bytes: usize, pause: Duration) -> Option<Duration> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3600) {
            tokio::time::advance(pause).await;
            if Instant::now() > pace.deadline() {
                return Some(pace.deadline() - begin);
            }
            pace.came(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_the_least_rate_may_take_as_long_as_it_likes() {
        let pace = || Pace::new(IDLE, 1000);
        assert_eq!(lasts(pace(), 1000, Duration::from_secs(1)).await, None);
        assert_eq!(lasts(pace(), 20_000, Duration::from_secs(20)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_or_pauses_is_too_slow() {
        let pace = || Pace::new(IDLE, 1000);
        let trickling = lasts(pace(), 100, Duration::from_secs(1)).await.unwrap();
        assert!(trickling < Duration::from_secs(34), "{trickling:?}");
        let pausing = lasts(pace(), 1 << 30, Duration::from_secs(31)).await;
        assert_eq!(pausing, Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_piece_earns_no_long_rest() {
        let mut pace = Pace::new(IDLE, 1000);
        pace.came(80 << 20);
        pace.came(usize::MAX);
        assert_eq!(pace.deadline(), Instant::now() + IDLE);
        let trickling = lasts(pace, 1, Duration::from_secs(10)).await.unwrap();
        assert!(trickling < Duration::from_secs(31), "{trickling:?}");
    }
}
