//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long to wait for what must come; far longer than it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something, and returns it.
///
/// # Panics
/// If it does not come within [`PATIENCE`]; `what` tells what was awaited.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], where the time is a part of what is promised, or a slow machine needs more.
///
/// # Panics
/// If it does not come within that time.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < patience, "waited in vain: {what}");
        std::thread::park_timeout(LOOK);
    }
}
