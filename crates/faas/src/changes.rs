//! Follows a router: another process whose table must be the same is told of every change.

use std::sync::Arc;
use tokio::sync::watch;

/// The changes of a router, counted, and how far its follower is.
#[derive(Debug)]
pub(crate) struct Changes {
    made: watch::Sender<u64>,
    /// None where nobody follows.
    applied: watch::Sender<Option<u64>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            made: watch::Sender::new(0),
            applied: watch::Sender::new(None),
        }
    }
}

impl Changes {
    /// Counts a change. Call it after the change, so that whoever is woken sees it.
    pub(crate) fn count(&self) {
        self.made.send_modify(|count| *count += 1);
    }

    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        self.applied.send_replace(Some(0));
        Follower {
            made: self.made.subscribe(),
            changes: Arc::clone(self),
        }
    }

    /// Returns when every change made so far is applied by who follows; at once where nobody does.
    pub(crate) async fn applied(&self) {
        let made = *self.made.borrow();
        let mut applied = self.applied.subscribe();
        let is_applied = |applied: &Option<u64>| applied.is_none_or(|applied| applied >= made);
        // The sender lives as long as `self`.
        drop(applied.wait_for(is_applied).await);
    }
}

/// Follows a router; dropping it ends that.
#[derive(Debug)]
pub struct Follower {
    made: watch::Receiver<u64>,
    changes: Arc<Changes>,
}

impl Follower {
    /// How many changes were made so far.
    #[must_use]
    pub fn made(&mut self) -> u64 {
        *self.made.borrow_and_update()
    }

    /// Returns when there are more changes than [`Follower::made`] told last.
    pub async fn changed(&mut self) {
        // The sender lives as long as `changes`.
        drop(self.made.changed().await);
    }

    /// Tells that the first `count` changes are in force where this follower is.
    pub fn applied(&self, count: u64) {
        self.changes.applied.send_modify(|applied| {
            *applied = (*applied).max(Some(count));
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.changes.applied.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_change_is_applied_once_the_follower_says_so() {
        let changes = Arc::new(Changes::default());
        changes.count();
        assert!(changes.applied().now_or_never().is_some());
        let mut follower = changes.follow();
        assert_eq!(follower.made(), 1);
        assert!(changes.applied().now_or_never().is_none());
        follower.applied(1);
        assert!(changes.applied().now_or_never().is_some());
        changes.count();
        assert!(follower.changed().now_or_never().is_some());
        assert!(changes.applied().now_or_never().is_none());
        drop(follower);
        assert!(changes.applied().now_or_never().is_some());
    }
}
