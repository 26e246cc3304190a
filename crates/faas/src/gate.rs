//! Who is inside, and how the last of them is waited for.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Lets in until it is closed, and counts those who are inside.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    is_closed: AtomicBool,
    emptied: Notify,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            inside: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            emptied: Notify::new(),
        }
    }

    /// Goes in; none where it is closed.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self);
        // The count is raised before the look: either this sees that the gate was closed, or whoever
        // closed it sees the count.
        (!self.is_closed.load(Ordering::SeqCst)).then_some(pass)
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Returns when nobody is inside. The gate must have been closed.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.inside() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Somebody who is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let before = self.0.inside.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.is_closed.load(Ordering::SeqCst) {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_out_is_waited_for_and_nobody_comes_after_it() {
        let gate = Gate::new();
        let (one, other) = (gate.enter().unwrap(), gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2);
        let leaving = async {
            drop(one);
            tokio::task::yield_now().await;
            assert_eq!(gate.inside(), 1);
            drop(other);
        };
        tokio::join!(gate.emptied(), leaving);
        gate.emptied().await;
    }
}

#[cfg(all(test, shuttle))]
mod models {
    use super::*;
    use shuttle::{future, thread};
    use std::sync::Arc;

    /// In every order of their steps: once the gate is closed and found empty, nobody works inside,
    /// and whoever waits for that is told.
    #[test]
    fn nobody_is_inside_a_gate_that_was_closed_and_found_empty() {
        let model = || {
            let gate = Arc::new(Gate::new());
            let is_over = Arc::new(AtomicBool::new(false));
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let (gate, is_over) = (Arc::clone(&gate), Arc::clone(&is_over));
                    thread::spawn(move || {
                        if let Some(_pass) = gate.enter() {
                            assert!(!is_over.load(Ordering::SeqCst), "it came in too late");
                            thread::yield_now();
                            assert!(!is_over.load(Ordering::SeqCst), "nobody waited for it");
                        }
                    })
                })
                .collect();
            let closing = Arc::clone(&gate);
            let closed = thread::spawn(move || {
                closing.close();
                // A wake-up that is lost leaves this waiting, which the model finds.
                future::block_on(closing.emptied());
                is_over.store(true, Ordering::SeqCst);
            });
            for thread in callers.into_iter().chain([closed]) {
                thread.join().unwrap();
            }
            assert_eq!(gate.inside(), 0);
        };
        crate::sync::check(model);
    }
}
