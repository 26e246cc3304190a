//! Threads of the event loop that wait until there is something for them to do.

use std::sync::{Condvar, Mutex, PoisonError};

/// Holds threads back until they are called, once and for good.
///
/// Where functions run in processes of their own, the event loop only passes bytes on. One thread
/// does that with fewer wake-ups than two, and leaves the other core to the functions: a fifth more
/// calls on two cores. What computes in this process, WebAssembly and HTTP/2 for gRPC, calls the
/// others.
#[derive(Debug, Default)]
pub struct Reserve {
    is_called: Mutex<bool>,
    changed: Condvar,
}

impl Reserve {
    /// Lets all threads go that wait, and those that will.
    pub fn call(&self) {
        *self
            .is_called
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Blocks the thread until the reserve is called.
    pub fn wait(&self) {
        let is_called = self.is_called.lock();
        let is_called = is_called.unwrap_or_else(PoisonError::into_inner);
        let is_waiting = |is_called: &mut bool| !*is_called;
        drop(self.changed.wait_while(is_called, is_waiting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn threads_wait_until_they_are_called_and_never_again() {
        let reserve = Reserve::default();
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::sync_channel(1);
            let held = &reserve;
            let waiting = scope.spawn(move || {
                held.wait();
                told.try_recv()
            });
            tell.send("it was called").expect("there is room");
            reserve.call();
            assert_eq!(waiting.join().expect("no panic"), Ok("it was called"));
        });
        reserve.wait();
    }
}
