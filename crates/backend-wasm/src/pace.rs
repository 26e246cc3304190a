//! The CPU limit of a function: a token bucket that its instances share.

use crate::ticker::TICK;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be used at once after a rest, as the period of a cgroup's CPU limit.
const PERIOD: Duration = Duration::from_millis(100);

/// CPU time that a function may still use.
///
/// An instance that runs at a tick is charged that tick. One that is shorter is charged as often as
/// a tick falls into it, which comes to the same for many.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Thousandths of a core for all instances together.
    millis: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds of CPU time; below zero after more was used than there was.
    left: i64,
    filled: Instant,
}

impl Pace {
    /// None where the instances can't use more anyway: each runs on one thread.
    pub(crate) fn new(cpu_millis_max: u32, instances_max: u16) -> Option<Self> {
        if cpu_millis_max >= 1000 {
            return None;
        }
        let millis = cpu_millis_max
            .saturating_mul(u32::from(instances_max))
            .max(1);
        let bucket = Bucket {
            left: share(PERIOD, millis),
            filled: Instant::now(),
        };
        Some(Self {
            millis,
            bucket: Mutex::new(bucket),
        })
    }

    /// Charges an instance that ran until now.
    pub(crate) fn charge_tick(&self) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.left -= nanos(TICK);
    }

    /// Returns when there is CPU time again.
    pub(crate) async fn wait(&self) {
        while let Some(pause) = self.pause(Instant::now()) {
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to rest; none where there is CPU time left.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = share(now.saturating_duration_since(bucket.filled), self.millis);
        bucket.left = bucket
            .left
            .saturating_add(gained)
            .min(share(PERIOD, self.millis));
        bucket.filled = now;
        if bucket.left > 0 {
            return None;
        }
        let missing = bucket.left.unsigned_abs() + 1;
        let pause = Duration::from_nanos(missing.saturating_mul(1000) / u64::from(self.millis));
        Some(pause.max(TICK))
    }
}

/// What so many thousandths of a core do in a time.
fn share(time: Duration, millis: u32) -> i64 {
    nanos(time).saturating_mul(i64::from(millis)) / 1000
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the ticks of a second run, with that limit.
    fn ticks_in_a_second(millis: u32, instances: u16) -> u32 {
        let pace = Pace::new(millis, instances).unwrap();
        let start = Instant::now();
        let (mut now, mut ran) = (start, 0);
        // What the rest before the start has saved is used up first.
        while pace.pause(now).is_none() {
            pace.charge_tick();
            now += TICK;
        }
        let end = now + Duration::from_secs(1);
        while now < end {
            match pace.pause(now) {
                Some(pause) => now += pause,
                None => {
                    pace.charge_tick();
                    now += TICK;
                    ran += 1;
                }
            }
        }
        ran
    }

    #[test]
    fn an_instance_runs_for_its_part_of_the_time() {
        let check = |millis: u32, instances: u16, expected: std::ops::RangeInclusive<u32>| {
            let ran = ticks_in_a_second(millis, instances);
            assert!(expected.contains(&ran), "{millis} x {instances}: {ran}");
        };
        check(100, 1, 95..=105);
        check(500, 1, 480..=520);
        check(10, 1, 9..=11);
        check(100, 4, 380..=420);
    }

    #[test]
    fn a_whole_core_needs_no_pace() {
        assert!(Pace::new(1000, 1).is_none());
        assert!(Pace::new(999, 1).is_some());
    }
}
