//! Who may start handlers now: a few at a time work, and more wait for functions that load slowly.

use faas::{Limits, Progress};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The starts of one kind: of deployments, or of functions that are brought back.
#[derive(Debug)]
pub(crate) struct Starts {
    slots: Semaphore,
    /// Those that callers wait for, which pass the others.
    called: Semaphore,
    /// Starts that go on without a slot.
    loading: Semaphore,
    slot_time: Duration,
}

impl Starts {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            slots: Semaphore::new(limits.deployments_at_once_max),
            called: Semaphore::new(limits.deployments_at_once_max),
            loading: Semaphore::new(limits.slow_starts_max),
            slot_time: limits.start_slot,
        }
    }

    /// Waits for a slot, among those that callers wait for too as soon as `called` returns. None
    /// where no more are given.
    pub(crate) async fn slot(
        &self,
        called: impl Future<Output = ()>,
    ) -> Option<SemaphorePermit<'_>> {
        let urgent = async {
            called.await;
            self.called.acquire().await
        };
        let slot = tokio::select! {
            slot = self.slots.acquire() => slot,
            slot = urgent => slot,
        };
        slot.ok()
    }

    /// Starts something with a slot, which it keeps for [`Limits::start_slot`]: what takes longer
    /// mostly waits, and does not hold up the others, [`Limits::slow_starts_max`] at most. Builds
    /// have a line of their own and are not counted, so that what needs none never waits for one.
    pub(crate) async fn run<T>(
        &self,
        slot: SemaphorePermit<'_>,
        start: impl Future<Output = T>,
        progress: &Progress,
    ) -> T {
        let mut start = pin!(start);
        if let Ok(started) = tokio::time::timeout(self.slot_time, start.as_mut()).await {
            return started;
        }
        let _place = tokio::select! {
            started = start.as_mut() => return started,
            place = self.loading.acquire() => Some(place),
            () = progress.builds() => None,
        };
        drop(slot);
        start.await
    }
}
