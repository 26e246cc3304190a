//! Tasks that wake themselves.

use futures_util::task::AtomicWaker;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls in a row, after which others have their turn.
const IN_A_ROW_MAX: u32 = 8;

const IDLE: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

/// Polls a future again, here and now, where it was woken while it was polled.
///
/// An HTTP connection wakes itself for every request that has a body: the function's side asks the
/// connection's for it, and both are one task. The event loop would take that for more work than
/// one thread can do and wake another one, which finds nothing: two to four system calls and a
/// busy core for each call.
pub(crate) async fn polled_again<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    std::future::poll_fn(move |outer| wakes.poll(future.as_mut(), &waker, outer)).await
}

/// Whether the future is being polled, and who polls it.
#[derive(Debug, Default)]
struct Wakes {
    state: AtomicU8,
    outer: AtomicWaker,
}

impl Wakes {
    fn poll<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        waker: &Waker,
        outer: &Context<'_>,
    ) -> Poll<F::Output> {
        self.outer.register(outer.waker());
        for _ in 0..IN_A_ROW_MAX {
            self.state.store(POLLED, Ordering::SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(waker));
            let (order, on_failure) = (Ordering::SeqCst, Ordering::SeqCst);
            let slept = self.state.compare_exchange(POLLED, IDLE, order, on_failure);
            if polled.is_ready() || slept.is_ok() {
                return polled;
            }
        }
        outer.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Where it is being polled, the poller sees it; where it was woken before, it is on its way.
        if self.state.swap(WOKEN, Ordering::SeqCst) == IDLE {
            self.outer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    /// Is ready after it woke itself `times` times.
    async fn waking_itself(times: u32) -> u32 {
        let mut polls = 0;
        std::future::poll_fn(move |context| {
            polls += 1;
            if polls > times {
                return Poll::Ready(polls);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Counts the wakes that come through.
    #[derive(Default)]
    struct Counted(AtomicU32);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut future = pin!(polled_again(waking_itself(IN_A_ROW_MAX - 1)));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(IN_A_ROW_MAX));
        assert_eq!(counted.0.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn what_wakes_itself_without_end_lets_others_run() {
        let endless = polled_again(waking_itself(u32::MAX));
        let elapsed = tokio::time::timeout(Duration::from_millis(1), endless).await;
        assert!(elapsed.is_err());
        assert_eq!(polled_again(waking_itself(100)).await, 101);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wake_from_elsewhere_is_never_lost() {
        let tasks = tokio_util::task::TaskTracker::new();
        for _ in 0..2000 {
            let (tell, told) = tokio::sync::oneshot::channel();
            let waiting = tasks.spawn(polled_again(told));
            tell.send(7).expect("it waits");
            assert_eq!(waiting.await.expect("it does not fail"), Ok(7));
        }
    }
}
