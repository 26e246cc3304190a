//! Whether something that is not trusted can reach the management service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what runs for a while and can reach the management service, such as builds in containers.
#[derive(Debug, Default)]
pub struct Exposure(AtomicUsize);

/// One that runs; it has ended when this is dropped.
#[derive(Debug)]
pub struct Exposed(Arc<Exposure>);

impl Exposure {
    /// From now on one more runs.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Exposed {
        self.0.fetch_add(1, Ordering::SeqCst);
        Exposed(Arc::clone(self))
    }

    /// Whether any runs.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_the_last_of_them() {
        let exposure = Arc::new(Exposure::default());
        assert!(!exposure.is_any());
        let (first, second) = (exposure.begin(), exposure.begin());
        drop(first);
        assert!(exposure.is_any());
        drop(second);
        assert!(!exposure.is_any());
    }
}
