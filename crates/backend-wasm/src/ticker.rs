//! Counts the epochs at which running instances yield, while there are any.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Duration;
use wasmtime::Engine;

/// How long an instance computes before others get their turn.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without an instance before the thread sleeps, so that waking it is rare.
const IDLE_TICKS_MAX: u32 = 100;

/// A thread that advances the epoch of every engine once in [`TICK`].
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    is_asleep: AtomicBool,
}

/// An instance that runs; dropping it ends its count.
#[derive(Debug)]
pub(crate) struct Running(Arc<Shared>);

impl Ticker {
    /// Starts the thread; it ends when the ticker is dropped.
    pub(crate) fn start(engines: Vec<Engine>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        let ticks = thread::Builder::new().name("wasm-ticker".into());
        let handle = ticks.spawn(move || tick(&weak, &engines))?;
        let thread = handle.thread().clone();
        Ok(Self { shared, thread })
    }

    /// Ticks as long as the result lives.
    pub(crate) fn run(&self) -> Running {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.is_asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(shared: &Weak<Shared>, engines: &[Engine]) {
    let mut idle_ticks = 0;
    while let Some(now) = shared.upgrade() {
        for engine in engines {
            engine.increment_epoch();
        }
        let is_idle = now.running.load(Ordering::SeqCst) == 0;
        idle_ticks = if is_idle { idle_ticks + 1 } else { 0 };
        if idle_ticks < IDLE_TICKS_MAX {
            drop(now);
            thread::park_timeout(TICK);
            continue;
        }
        now.is_asleep.store(true, Ordering::SeqCst);
        // Whoever came since the last look did not see that we sleep.
        let is_still_idle = now.running.load(Ordering::SeqCst) == 0;
        let weak = Arc::downgrade(&now);
        drop(now);
        if is_still_idle && weak.strong_count() > 0 {
            thread::park();
        }
        if let Some(now) = weak.upgrade() {
            now.is_asleep.store(false, Ordering::SeqCst);
        }
        idle_ticks = 0;
    }
}
