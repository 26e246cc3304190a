//! The locks and atomics of what is checked as a model: those of the standard library, or ones that try the
//! orders in which threads can use them (`RUSTFLAGS='--cfg shuttle'`).

#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Tries a model in random orders, and in those in which few switches matter.
#[cfg(all(test, shuttle))]
pub(crate) fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    let runs = std::env::var("MODEL_RUNS").ok();
    let runs = runs.and_then(|runs| runs.parse().ok()).unwrap_or(10_000);
    shuttle::check_random(model.clone(), runs);
    shuttle::check_pct(model, runs, 3);
}
