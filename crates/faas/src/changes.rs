//! Follows a router: other processes whose tables must be the same are told of every change.

use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The changes of a router, counted, and how far each of its followers is.
#[derive(Debug)]
pub(crate) struct Changes {
    made: watch::Sender<u64>,
    followers: watch::Sender<Followers>,
}

/// The followers by their number, with how many changes each has applied.
#[derive(Debug, Default)]
struct Followers {
    next: u64,
    applied: HashMap<u64, u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            made: watch::Sender::new(0),
            followers: watch::Sender::new(Followers::default()),
        }
    }
}

impl Changes {
    /// Counts a change. Call it after the change, so that whoever is woken sees it.
    pub(crate) fn count(&self) {
        self.made.send_modify(|count| *count += 1);
    }

    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        let mut number = 0;
        self.followers.send_modify(|followers| {
            number = followers.next;
            followers.next += 1;
            followers.applied.insert(number, 0);
        });
        Follower {
            number,
            made: self.made.subscribe(),
            changes: Arc::clone(self),
        }
    }

    /// Returns when every change made so far is applied by every follower; at once without one.
    pub(crate) async fn applied(&self) {
        let made = *self.made.borrow();
        let mut followers = self.followers.subscribe();
        let are_there = |followers: &Followers| followers.applied.values().all(|at| *at >= made);
        // The sender lives as long as `self`.
        drop(followers.wait_for(are_there).await);
    }
}

/// Follows a router; dropping it ends that.
#[derive(Debug)]
pub struct Follower {
    number: u64,
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
        self.changes.followers.send_modify(|followers| {
            let applied = followers.applied.entry(self.number).or_default();
            *applied = count.max(*applied);
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.changes.followers.send_modify(|followers| {
            followers.applied.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_applied(changes: &Changes) -> bool {
        changes.applied().now_or_never().is_some()
    }

    #[test]
    fn a_change_is_applied_once_the_follower_says_so() {
        let changes = Arc::new(Changes::default());
        changes.count();
        assert!(is_applied(&changes));
        let mut follower = changes.follow();
        assert_eq!(follower.made(), 1);
        assert!(!is_applied(&changes));
        follower.applied(1);
        assert!(is_applied(&changes));
        changes.count();
        assert!(follower.changed().now_or_never().is_some());
        assert!(!is_applied(&changes));
        drop(follower);
        assert!(is_applied(&changes));
    }

    #[test]
    fn every_follower_is_waited_for_and_the_end_of_one_is_not_the_end_of_another() {
        let changes = Arc::new(Changes::default());
        let (first, second) = (changes.follow(), changes.follow());
        changes.count();
        second.applied(1);
        assert!(!is_applied(&changes), "the first is behind");
        first.applied(1);
        assert!(is_applied(&changes));
        changes.count();
        drop(second);
        assert!(!is_applied(&changes), "the first is behind");
        let third = changes.follow();
        first.applied(2);
        assert!(!is_applied(&changes), "the third has nothing yet");
        third.applied(2);
        assert!(is_applied(&changes));
    }

    #[test]
    fn whoever_waits_is_woken_by_the_last_follower() {
        let changes = Arc::new(Changes::default());
        let (first, second) = (changes.follow(), changes.follow());
        changes.count();
        let mut waiting = Box::pin(changes.applied());
        assert!((&mut waiting).now_or_never().is_none());
        first.applied(1);
        assert!((&mut waiting).now_or_never().is_none());
        drop(second);
        assert!(waiting.now_or_never().is_some());
    }
}
