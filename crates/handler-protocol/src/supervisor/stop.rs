//! How a handler is told to stop.

use std::time::Duration;
use tokio::sync::watch;

/// Hears when a handler is to stop.
#[derive(Debug, Clone)]
pub(super) struct Stop(pub(super) watch::Receiver<Option<Duration>>);

impl Stop {
    /// Returns once the handler is to stop: how long its instance may finish what it has. That is
    /// nothing where the handler was dropped.
    pub(super) async fn told(&mut self) -> Duration {
        let grace = self.0.wait_for(Option::is_some).await;
        grace.ok().and_then(|grace| *grace).unwrap_or_default()
    }
}
