//! When what a build wrote is measured: from time to time, and sooner where the disk loses space.

use faas::BuildLimits;
use std::time::{Duration, Instant};

/// How often the free space of the disk is looked at, which is one system call.
pub(super) const FREE_INTERVAL: Duration = Duration::from_millis(100);

/// How often what a build wrote is measured at least, which walks through all of its folders.
const SIZE_INTERVAL: Duration = Duration::from_secs(2);

/// It is measured as soon as the disk has lost this part of what a build may write.
const PARTS: u64 = 16;

/// A measurement rests for so many times as long as it took.
const REST_FACTOR: u32 = 3;

/// The measurements of one build.
#[derive(Debug)]
pub(super) struct Looks {
    /// Space that the disk may lose before the next one.
    part_bytes: u64,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    ended: Instant,
    took: Duration,
    free_bytes: u64,
}

impl Looks {
    pub(super) fn new(limits: &BuildLimits) -> Self {
        Self {
            part_bytes: limits.bytes_max / PARTS,
            last: None,
        }
    }

    /// Whether to measure, now that the disk has so much space left.
    pub(super) fn is_due(&self, now: Instant, free_bytes: u64) -> bool {
        let Some(last) = &self.last else {
            return true;
        };
        let since = now.saturating_duration_since(last.ended);
        let has_rested = since >= last.took * REST_FACTOR;
        let lost = last.free_bytes.saturating_sub(free_bytes);
        has_rested && (since >= SIZE_INTERVAL || lost > self.part_bytes)
    }

    /// Notes that it was measured, and how much space the disk had when that began.
    pub(super) fn looked(&mut self, begun: Instant, ended: Instant, free_bytes: u64) {
        self.last = Some(Last {
            ended,
            took: ended.saturating_duration_since(begun),
            free_bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_loses_space_is_looked_at_sooner_but_not_all_the_time() {
        const FREE: u64 = 10 << 30;
        let ms = Duration::from_millis;
        let limits = BuildLimits::default();
        let part = limits.bytes_max / PARTS;
        let mut looks = Looks::new(&limits);
        let start = Instant::now();
        assert!(looks.is_due(start, FREE), "the first");
        looks.looked(start, start + ms(10), FREE);
        let at = |after: u64| start + ms(10 + after);
        assert!(!looks.is_due(at(100), FREE));
        assert!(!looks.is_due(at(100), FREE - part));
        assert!(looks.is_due(at(100), FREE - part - 1));
        assert!(looks.is_due(at(2000), FREE), "it is time");
        // One that took long rests, whatever is lost meanwhile.
        looks.looked(start, start + ms(1000), FREE);
        let at = |after: u64| start + ms(1000 + after);
        assert!(!looks.is_due(at(2999), 0));
        assert!(looks.is_due(at(3000), 0));
    }
}
