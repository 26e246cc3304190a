//! Memory that goes back to the system after a flood.

use std::time::Duration;

/// How often it is looked for memory to give back.
const INTERVAL: Duration = Duration::from_secs(15);

/// How much more than the least that was seen makes it worth the time that it takes.
const GROWTH_BYTES_MIN: usize = 16 << 20;

/// Where that much stays, the memory may be in use: from this round on, only one of three trims.
const PROMPT_ROUNDS: u32 = 4;

/// Gives back what the allocator keeps, again and again: glibc keeps what was freed below
/// something that lives, up to all of a flood. Another C library gives it back by itself.
pub(super) async fn give_back() {
    let mut growth = Growth {
        least: resident_bytes().unwrap_or(usize::MAX),
        rounds: 0,
    };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(now) = resident_bytes() else {
            return;
        };
        if growth.is_due(now) {
            // It takes milliseconds for each hundred megabytes.
            let trimmed = tokio::task::spawn_blocking(trim).await;
            tracing::debug!(
                trimmed = trimmed.is_ok(),
                resident_bytes = now,
                "trimmed the heap"
            );
        }
    }
}

/// How resident memory compares with the least that was seen. What is still held while a flood
/// lasts is no new least: it is given back when the flood is over.
struct Growth {
    least: usize,
    rounds: u32,
}

impl Growth {
    /// Whether this round trims.
    fn is_due(&mut self, now: usize) -> bool {
        self.least = self.least.min(now);
        if now <= self.least.saturating_add(GROWTH_BYTES_MIN) {
            self.rounds = 0;
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        self.rounds <= PROMPT_ROUNDS || self.rounds.is_multiple_of(3)
    }
}

/// The memory that this process has in the machine's.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size()))
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

    #[test]
    fn a_flood_that_outlasts_a_trim_is_given_back_afterwards() {
        const MIB: usize = 1 << 20;
        let mut growth = Growth {
            least: 30 * MIB,
            rounds: 0,
        };
        assert!(!growth.is_due(40 * MIB));
        assert!(growth.is_due(110 * MIB), "while the flood lasts");
        assert!(growth.is_due(110 * MIB), "and when it is over");
        assert!(!growth.is_due(31 * MIB));
        let due = (0..100).filter(|_| growth.is_due(200 * MIB)).count();
        assert!(
            (30..40).contains(&due),
            "what is in use is left alone: {due}"
        );
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn memory_below_something_that_lives_goes_back() {
        let before = resident_bytes().unwrap();
        let mut flood: Vec<Vec<u8>> = (0..3200).map(|_| vec![1; 64 << 10]).collect();
        let kept = flood.pop();
        let during = resident_bytes().unwrap();
        drop(flood);
        trim();
        let after = resident_bytes().unwrap();
        assert!(during - before > 150 << 20, "{before} {during}");
        assert!(
            after.saturating_sub(before) < 50 << 20,
            "{before} {during} {after}"
        );
        drop(kept);
    }
}
