//! Memory that goes back to the system after a flood.

use std::time::Duration;

/// How often it is looked for memory to give back.
const INTERVAL: Duration = Duration::from_secs(15);

/// How much more than after the last time makes it worth the time that it takes.
const GROWTH_BYTES_MIN: usize = 16 << 20;

/// Gives back what the allocator keeps, again and again: glibc keeps what was freed below
/// something that lives, up to all of a flood. Another C library gives it back by itself.
pub(super) async fn give_back() {
    let mut before = resident_bytes().unwrap_or(usize::MAX);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(now) = resident_bytes() else {
            return;
        };
        if now > before.saturating_add(GROWTH_BYTES_MIN) {
            // It takes milliseconds for each hundred megabytes.
            let trimmed = tokio::task::spawn_blocking(trim).await;
            tracing::debug!(
                trimmed = trimmed.is_ok(),
                resident_bytes = now,
                "trimmed the heap"
            );
            before = resident_bytes().unwrap_or(now);
        } else {
            before = before.min(now);
        }
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
