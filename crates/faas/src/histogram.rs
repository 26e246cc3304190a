//! How often something took how long, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets that have an end.
pub const BUCKETS: usize = 18;
/// The end of the first one; each of the others ends twice as late, the last at 1.3 s.
const FIRST_END_US: u64 = 10;

/// Counts durations in [`BUCKETS`] buckets, and one more for what is longer.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

/// What a histogram has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The end of each bucket, and how many took no longer.
    pub up_to: [(Duration, u64); BUCKETS],
    /// All of them.
    pub count: u64,
    /// How long all took together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let index = match us.div_ceil(FIRST_END_US) {
            0 => 0,
            firsts => firsts.next_power_of_two().trailing_zeros() as usize,
        };
        self.counts[index.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The count of each bucket, then the sum in nanoseconds.
    #[must_use]
    pub fn raw(&self) -> Vec<u64> {
        let numbers = self.counts.iter().chain([&self.sum_ns]);
        numbers
            .map(|number| number.load(Ordering::Relaxed))
            .collect()
    }

    /// Sets what [`Histogram::raw`] of another told.
    pub fn set_raw(&self, raw: &[u64]) {
        let numbers = self.counts.iter().chain([&self.sum_ns]);
        for (number, value) in numbers.zip(raw) {
            number.store(*value, Ordering::Relaxed);
        }
    }

    /// What was counted so far; one that is counted meanwhile may be in some of the numbers.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut count = 0;
        let up_to = std::array::from_fn(|index| {
            count += self.counts[index].load(Ordering::Relaxed);
            (Duration::from_micros(FIRST_END_US << index), count)
        });
        Counted {
            up_to,
            count: count + self.counts[BUCKETS].load(Ordering::Relaxed),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_bucket_that_ends_no_earlier() {
        let check = |us: u64, bucket: usize| {
            let histogram = Histogram::default();
            histogram.record(Duration::from_micros(us));
            let counted = histogram.counted();
            for (index, (_, count)) in counted.up_to.iter().enumerate() {
                assert_eq!(
                    *count,
                    u64::from(index >= bucket),
                    "{us} µs, bucket {index}"
                );
            }
            assert_eq!(counted.count, 1);
            assert_eq!(counted.sum, Duration::from_micros(us));
        };
        check(0, 0);
        check(10, 0);
        check(11, 1);
        check(20, 1);
        check(21, 2);
        check(10 << 17, 17);
        check((10 << 17) + 1, BUCKETS);
        check(u64::MAX / 1000, BUCKETS);
    }
}
