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
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(LOOK);
    }
}
