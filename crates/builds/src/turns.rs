//! Which builds run now: a few at once, as they are heavy, and never all of them of one client.

use faas::{Asker, BuildLimits, InStage, Package, PrepareError, Stage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The builds of a node, of which each waits for its turn.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    client_at_once_max: usize,
    /// The shares of those who build now, or wait for it.
    shares: Mutex<HashMap<Asker, Weak<Semaphore>>>,
    wait: Duration,
}

/// A place among the builds that run at once; dropping it frees it.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
    _stage: InStage,
}

impl Turns {
    /// As many at once as these bounds have.
    #[must_use]
    pub fn new(limits: &BuildLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.at_once_max)),
            client_at_once_max: limits.client_at_once_max,
            shares: Mutex::default(),
            wait: limits.wait,
        }
    }

    /// Waits for a place, for a bounded time, and tells of it. Who has its share waits for its own
    /// builds first, so that those in line for the places of all are few of each client.
    ///
    /// # Errors
    /// If there was none in time.
    pub async fn take(&self, package: &Package) -> Result<Turn, PrepareError> {
        let until = Instant::now() + self.wait;
        let share = self.share_of(&package.asker);
        let share = self.permit(share, (package, until), "of the same client");
        let share = share.await?;
        let all = self.permit(Arc::clone(&self.all), (package, until), "to end");
        Ok(Turn {
            _all: all.await?,
            _share: share,
            _stage: package.progress.enter(Stage::Builds),
        })
    }

    async fn permit(
        &self,
        of: Arc<Semaphore>,
        (package, until): (&Package, Instant),
        waited_for: &str,
    ) -> Result<OwnedSemaphorePermit, PrepareError> {
        if let Ok(permit) = Arc::clone(&of).try_acquire_owned() {
            return Ok(permit);
        }
        let _waits = package.progress.enter(Stage::WaitsForBuild);
        let permit = timeout_at(until, of.acquire_owned()).await;
        permit.map_or_else(
            |_elapsed| Err(self.too_late(package, waited_for)),
            |permit| permit.map_err(|_closed| stopping()),
        )
    }

    fn share_of(&self, asker: &Asker) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = shares.get(asker).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(self.client_at_once_max));
        shares.insert(asker.clone(), Arc::downgrade(&share));
        share
    }

    /// Why a build, or what is as long, was not waited for any longer.
    #[must_use]
    pub fn too_late(&self, package: &Package, waited_for: &str) -> PrepareError {
        let (name, seconds) = (&package.spec.name, self.wait.as_secs());
        PrepareError::busy(
            format!("function \"{name}\": it waited {seconds} s for other builds {waited_for}"),
            "deploy it again when they have ended, or delete the functions that hold them",
        )
    }
}

fn stopping() -> PrepareError {
    PrepareError::host("this node is stopping", "deploy again when it has started")
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas::PrepareErrorKind;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    fn turns() -> Turns {
        Turns::new(&BuildLimits {
            at_once_max: 3,
            client_at_once_max: 2,
            ..BuildLimits::default()
        })
    }

    fn package(asker: &str) -> Package {
        let asker = Asker::Client(asker.into());
        Package {
            asker,
            ..crate::tests::package()
        }
    }

    /// What comes of a future by now.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn one_client_leaves_places_to_others_however_many_it_waits_for() {
        let (turns, one, other) = (turns(), package("one"), package("other"));
        let first = now(turns.take(&one)).await.unwrap().unwrap();
        let _second = now(turns.take(&one)).await.unwrap().unwrap();
        let third_package = package("one");
        let mut third = pin!(turns.take(&third_package));
        assert!(now(third.as_mut()).await.is_none(), "its share is spent");
        assert_eq!(third_package.progress.now().0, Stage::WaitsForBuild);
        let _theirs = now(turns.take(&other)).await.unwrap().unwrap();
        let theirs_too = package("other");
        let mut theirs_too = pin!(turns.take(&theirs_too));
        assert!(now(theirs_too.as_mut()).await.is_none(), "all are taken");
        drop(first);
        // It has waited for the places of all for longer.
        assert!(now(third.as_mut()).await.is_none());
        assert!(now(theirs_too.as_mut()).await.unwrap().is_ok());
        drop(one);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_for_whose_builds() {
        let (turns, one) = (turns(), package("one"));
        let _held = [
            turns.take(&one).await.unwrap(),
            turns.take(&one).await.unwrap(),
        ];
        let error = turns.take(&package("one")).await.unwrap_err();
        assert_eq!(error.kind, PrepareErrorKind::Busy);
        assert!(error.detail.contains("of the same client"), "{error:?}");
        let _theirs = turns.take(&package("other")).await.unwrap();
        let error = turns.take(&package("third")).await.unwrap_err();
        assert!(error.detail.contains("to end"), "{error:?}");
    }

    #[tokio::test]
    async fn a_client_that_waits_no_more_is_forgotten() {
        let turns = turns();
        drop(turns.take(&package("one")).await.unwrap());
        let _held = turns.take(&package("other")).await.unwrap();
        assert_eq!(turns.shares.lock().unwrap().len(), 1);
    }
}
