//! How fast a client has sent lately.

use std::time::Instant;

/// When an upload is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// Whoever sent less than that lately gives way where others need its place or its memory.
    pub bytes: u64,
    /// What an upload is taken to have sent when it begins: it is slow when nothing came for some
    /// seconds.
    pub first_bytes: u64,
}

/// What came lately: half of it is forgotten each second, so that what came at once long ago is
/// no credit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recent {
    slow: Slow,
    bytes: u64,
    at: Instant,
}

impl Recent {
    pub(crate) fn new(slow: Slow, now: Instant) -> Self {
        Self {
            slow,
            bytes: slow.first_bytes,
            at: now,
        }
    }

    /// What came lately, seen from now.
    pub(crate) fn bytes(&self, now: Instant) -> u64 {
        let seconds = now.saturating_duration_since(self.at).as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.bytes.checked_shr(seconds).unwrap_or(0)
    }

    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        self.bytes(now) < self.slow.bytes
    }

    pub(crate) fn came(&mut self, bytes: usize, now: Instant) {
        let whole = now.saturating_duration_since(self.at).as_secs();
        self.bytes = self.bytes(now).saturating_add(bytes as u64);
        // What is left of a second counts for the next one: many small pieces are no faster.
        self.at += std::time::Duration::from_secs(whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SLOW: Slow = Slow {
        bytes: 16 << 10,
        first_bytes: 64 << 10,
    };

    #[test]
    fn what_came_at_once_long_ago_is_no_credit() {
        let begin = Instant::now();
        let after = |millis: u64| begin + Duration::from_millis(millis);
        let mut recent = Recent::new(SLOW, begin);
        assert!(!recent.is_slow(begin) && !recent.is_slow(after(2900)));
        assert!(recent.is_slow(after(3000)));
        recent.came(80 << 20, begin);
        assert!(!recent.is_slow(after(5000)));
        assert!(recent.is_slow(after(30_000)));
        let mut trickling = Recent::new(SLOW, begin);
        for tenth in 0..600 {
            trickling.came(200, after(100 * tenth));
        }
        assert!(trickling.is_slow(after(60_000)), "2 kB a second");
        for tenth in 600..660 {
            trickling.came(6400, after(100 * tenth));
        }
        assert!(!trickling.is_slow(after(66_000)), "64 kB a second");
    }
}
