//! Memory that goes back to the system after a flood.

use std::time::Duration;

/// How often it is looked for memory to give back.
const INTERVAL: Duration = Duration::from_secs(15);

/// How much more than the least that was seen makes it worth the time that it takes.
const GROWTH_BYTES_MIN: usize = 16 << 20;

/// So much must have been freed, or come to the process, since the last trim: where nothing moves,
/// what is there is in use, and another trim would bring nothing.
const CHANGE_BYTES_MIN: usize = 4 << 20;

/// Gives back what the allocator keeps, again and again: glibc keeps what was freed below
/// something that lives, up to all of a flood. Another C library gives it back by itself.
pub(super) async fn give_back() {
    let mut growth = Growth::default();
    loop {
        let Some(now) = Seen::now() else {
            return;
        };
        if growth.is_due(now) {
            // It takes milliseconds for each hundred megabytes.
            let trimmed = tokio::task::spawn_blocking(trim).await;
            let Some(after) = Seen::now() else {
                return;
            };
            growth.trimmed(after);
            tracing::debug!(
                trimmed = trimmed.is_ok(),
                resident_bytes = now.resident,
                after_bytes = after.resident,
                used_bytes = after.used,
                "trimmed the heap"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the process has of the machine's memory, and what of it is in use on the heap.
#[derive(Debug, Clone, Copy)]
struct Seen {
    resident: usize,
    used: usize,
}

impl Seen {
    fn now() -> Option<Self> {
        Some(Self {
            resident: resident_bytes()?,
            used: used_bytes(),
        })
    }
}

/// How memory compares with the least that was seen. What is still held while a flood lasts is no
/// new least: it is given back when the flood is over.
#[derive(Debug, Default)]
struct Growth {
    least: Option<usize>,
    /// What the last trim left; nothing before the first.
    left: usize,
    /// The most that was in use since then.
    used_max: usize,
}

impl Growth {
    /// Whether this round trims.
    fn is_due(&mut self, now: Seen) -> bool {
        let least = self.least.unwrap_or(now.resident).min(now.resident);
        self.least = Some(least);
        self.used_max = self.used_max.max(now.used);
        let has_come = now.resident >= self.left.saturating_add(CHANGE_BYTES_MIN);
        let was_freed = now.used.saturating_add(CHANGE_BYTES_MIN) <= self.used_max;
        now.resident > least.saturating_add(GROWTH_BYTES_MIN) && (has_come || was_freed)
    }

    fn trimmed(&mut self, after: Seen) {
        (self.left, self.used_max) = (after.resident, after.used);
    }
}

/// The memory that this process has in the machine's.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size()))
}

/// What is allocated on the heap and not freed.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe crate wraps this call")]
fn used_bytes() -> usize {
    // SAFETY: the call takes nothing and may be made by any thread at any time.
    let told = unsafe { libc::mallinfo2() };
    told.uordblks.saturating_add(told.hblkhd)
}

#[cfg(not(target_env = "gnu"))]
fn used_bytes() -> usize {
    0
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe crate wraps this call")]
fn trim() {
    // SAFETY: the call takes a number and may be made by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn seen(resident: usize, used: usize) -> Seen {
        Seen {
            resident: resident * MIB,
            used: used * MIB,
        }
    }

    #[test]
    fn a_flood_that_outlasts_a_trim_is_given_back_afterwards() {
        let mut growth = Growth::default();
        assert!(!growth.is_due(seen(30, 20)));
        assert!(!growth.is_due(seen(40, 30)), "too little to be worth it");
        assert!(growth.is_due(seen(110, 100)), "while the flood lasts");
        growth.trimmed(seen(110, 100));
        assert!(growth.is_due(seen(110, 21)), "and when it is over");
        growth.trimmed(seen(31, 21));
        assert!(!growth.is_due(seen(31, 21)));
    }

    #[test]
    fn what_is_in_use_is_trimmed_once() {
        let mut growth = Growth::default();
        assert!(!growth.is_due(seen(30, 20)));
        assert!(growth.is_due(seen(200, 190)));
        growth.trimmed(seen(199, 190));
        let due = (0..100).filter(|_| growth.is_due(seen(199, 190)));
        assert_eq!(due.count(), 0);
        assert!(growth.is_due(seen(204, 190)), "more has come and gone");
        growth.trimmed(seen(200, 190));
        assert!(growth.is_due(seen(200, 186)), "some was freed");
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn memory_below_something_that_lives_goes_back() {
        let before = Seen::now().unwrap();
        let mut flood: Vec<Vec<u8>> = (0..3200).map(|_| vec![1; 64 << 10]).collect();
        let kept = flood.pop();
        let during = Seen::now().unwrap();
        drop(flood);
        trim();
        let after = Seen::now().unwrap();
        let told = format!("{before:?} {during:?} {after:?}");
        assert!(during.resident - before.resident > 150 * MIB, "{told}");
        assert!(during.used - before.used > 150 * MIB, "{told}");
        assert!(
            after.resident.saturating_sub(before.resident) < 50 * MIB,
            "{told}"
        );
        assert!(after.used.saturating_sub(before.used) < 50 * MIB, "{told}");
        drop(kept);
    }
}
