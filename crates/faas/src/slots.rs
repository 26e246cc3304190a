//! How many calls may be inside a deployment at once, a number that changes.

use crate::sync::{AtomicUsize, Mutex, Ordering};
use std::sync::PoisonError;
use tokio::sync::{Semaphore, TryAcquireError};

/// Slots for calls: taken first come, first served, and given back.
#[derive(Debug)]
pub(crate) struct Slots {
    /// A permit for every slot that is free.
    permits: Semaphore,
    /// How many slots there are.
    limit: Mutex<usize>,
    /// Slots that are to go as soon as they are given back.
    owed: AtomicUsize,
}

/// Why there was no slot at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// Every one is taken.
    Full,
    /// There will be none any more.
    Closed,
}

impl Slots {
    /// The most slots that there can be.
    pub(crate) const MAX: usize = Semaphore::MAX_PERMITS;

    pub(crate) fn new(limit: usize) -> Self {
        Self {
            permits: Semaphore::new(limit),
            limit: Mutex::new(limit),
            owed: AtomicUsize::new(0),
        }
    }

    /// Takes a slot, if one is free now. It must be given back.
    pub(crate) fn try_take(&self) -> Result<(), NoSlot> {
        match self.permits.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(NoSlot::Full),
            Err(TryAcquireError::Closed) => Err(NoSlot::Closed),
        }
    }

    /// Waits for a slot, first come, first served. It must be given back.
    pub(crate) async fn take(&self) -> Result<(), NoSlot> {
        match self.permits.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(_closed) => Err(NoSlot::Closed),
        }
    }

    pub(crate) fn give_back(&self) {
        if self.owed.load(Ordering::Relaxed) == 0 || !self.pay() {
            self.permits.add_permits(1);
        }
    }

    /// How many slots there are.
    pub(crate) fn limit(&self) -> usize {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes them more or fewer. Nobody is turned out: what is taken goes when it is given back.
    pub(crate) fn set_limit(&self, next: usize) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fewer) = limit.checked_sub(next) {
            let given_up = self.permits.forget_permits(fewer);
            self.owed.fetch_add(fewer - given_up, Ordering::SeqCst);
        } else {
            let more = next - *limit;
            let kept = (0..more).take_while(|_| self.pay()).count();
            self.permits.add_permits(more - kept);
        }
        *limit = next;
    }

    /// Gives none any more; those who wait are told.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// Pays one of the slots that are owed, if any is.
    fn pay(&self) -> bool {
        let (order, on_failure) = (Ordering::SeqCst, Ordering::Relaxed);
        let paid = |owed: usize| owed.checked_sub(1);
        self.owed.fetch_update(order, on_failure, paid).is_ok()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fewer_slots_turn_nobody_out_and_more_let_those_in_who_wait() {
        let slots = Slots::new(2);
        assert_eq!((slots.try_take(), slots.try_take()), (Ok(()), Ok(())));
        assert_eq!(slots.try_take(), Err(NoSlot::Full));
        slots.set_limit(1);
        slots.give_back();
        assert_eq!(slots.try_take(), Err(NoSlot::Full));
        let (taken, ()) = tokio::join!(slots.take(), async { slots.set_limit(2) });
        assert_eq!((taken, slots.limit()), (Ok(()), 2));
        slots.close();
        slots.give_back();
        assert_eq!(slots.take().await, Err(NoSlot::Closed));
    }
}

#[cfg(all(test, shuttle))]
mod models {
    use super::*;
    use shuttle::{future, thread};
    use std::sync::Arc;

    /// In every order of taking, waiting, giving back and changing: no slot is lost or made up, and
    /// whoever waits gets one.
    #[test]
    fn what_is_free_in_the_end_is_the_limit() {
        let model = || {
            let slots = Arc::new(Slots::new(2));
            let callers = (0..3).map(|number| {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let taken = match number {
                            0 => future::block_on(slots.take()),
                            _ => slots.try_take(),
                        };
                        if taken.is_ok() {
                            thread::yield_now();
                            slots.give_back();
                        }
                    }
                })
            });
            let changing = Arc::clone(&slots);
            let changer = thread::spawn(move || {
                for limit in [1, 3, 1] {
                    changing.set_limit(limit);
                }
            });
            let threads: Vec<_> = callers.chain([changer]).collect();
            for thread in threads {
                thread.join().unwrap();
            }
            let owed = slots.owed.load(Ordering::SeqCst);
            assert_eq!(slots.permits.available_permits() - owed, slots.limit());
        };
        crate::sync::check(model);
    }
}
