//! An open loop: calls begin when they are due, whether earlier ones have ended or not, and their
//! latencies count from then, so that a queue shows.

use super::Outcome;
use anyhow::{Result, ensure};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Calls that are due and not begun; those after them are late, and count so.
const UNBEGUN_MAX: usize = 1 << 16;

/// What became of one call.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// Whether the reply was what was asked for.
    pub is_right: bool,
    /// The function's own time, which is not counted.
    pub own: Duration,
}

/// When so many calls a second are due, at even intervals.
pub fn evenly(rate: f64, time: Duration) -> Vec<(Duration, ())> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let dues = std::iter::successors(Some(Duration::ZERO), |due| Some(*due + interval));
    dues.take_while(|due| *due < time)
        .map(|due| (due, ()))
        .collect()
}

/// Calls at the times of `schedule`, which is in order.
///
/// A thread keeps the times: the clock of the event loop counts in milliseconds.
///
/// # Errors
/// If a call panics.
pub async fn run<T, F>(schedule: Vec<(Duration, T)>, call: impl Fn(T) -> F) -> Result<Outcome>
where
    T: Send + 'static,
    F: Future<Output = Called> + Send + 'static,
{
    let (tell, mut told) = mpsc::channel(UNBEGUN_MAX);
    let begin = Instant::now();
    let pacer = thread::spawn(move || {
        for (offset, what) in schedule {
            let due = begin + offset;
            #[expect(
                clippy::disallowed_methods,
                reason = "it is the time that is waited for"
            )]
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if tell.blocking_send((due, what)).is_err() {
                return;
            }
        }
    });
    let mut outcome = Outcome::default();
    let mut calls = JoinSet::new();
    while let Some((due, what)) = told.recv().await {
        let called = call(what);
        calls.spawn(async move {
            let called = called.await;
            (due.elapsed().saturating_sub(called.own), called.is_right)
        });
        while let Some(ended) = calls.try_join_next() {
            let (latency, is_right) = ended?;
            outcome.reply(latency, is_right);
        }
    }
    while let Some(ended) = calls.join_next().await {
        let (latency, is_right) = ended?;
        outcome.reply(latency, is_right);
    }
    ensure!(pacer.join().is_ok(), "the pacer panicked");
    outcome.time = begin.elapsed();
    Ok(outcome)
}
