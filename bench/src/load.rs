//! Load: how many calls, how long each took, what was lost or wrong.

pub mod coap;
pub mod crowd;
pub mod frames;
pub mod grpc;
pub mod http;
pub mod open;
pub mod wrk;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The longest latency that is told apart from longer ones.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Latencies in microseconds.
    pub latencies: Histogram<u64>,
    /// Replies that were not what was asked for.
    pub wrong: u64,
    /// Calls that had no reply in time.
    pub lost: u64,
    /// The longest that a reply took, or that a call has waited for one in vain.
    pub longest: Duration,
    /// How long it took.
    pub time: Duration,
}

impl Default for Outcome {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self {
            latencies: latencies.expect("the bounds are in order"),
            wrong: 0,
            lost: 0,
            longest: Duration::ZERO,
            time: Duration::ZERO,
        }
    }
}

/// Calls for that long, one after the other; `call` says whether the reply was right.
fn one_by_one(time: Duration, mut call: impl FnMut() -> Result<bool>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let sent = Instant::now();
        let is_right = call()?;
        outcome.reply(sent.elapsed(), is_right);
    }
    outcome.time = begin.elapsed();
    Ok(outcome)
}

/// The numbers of an outcome, as they are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// Right replies in a second.
    pub rate: f64,
    /// Right replies.
    pub replies: u64,
    /// Latencies in microseconds: half, 99 and 99.9 of a hundred calls took no longer.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
    /// Replies that were not what was asked for.
    pub wrong: u64,
    /// Calls that had no reply in time.
    pub lost: u64,
    /// CPU seconds of the process that served, its handlers not counted.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// CPU seconds of its handlers.
    #[serde(default)]
    pub handlers_cpu_seconds: f64,
}

impl Outcome {
    /// Notes a reply and whether it was right.
    pub fn reply(&mut self, latency: Duration, is_right: bool) {
        self.longest = self.longest.max(latency);
        if is_right {
            let latency = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latencies.saturating_record(latency.max(1));
        } else {
            self.wrong += 1;
        }
    }

    /// Adds what another task or thread saw in the same time.
    pub fn add(&mut self, other: &Self) {
        self.latencies += &other.latencies;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.longest = self.longest.max(other.longest);
        self.time = self.time.max(other.time);
    }

    /// The numbers.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn numbers(&self) -> Numbers {
        let replies = self.latencies.len();
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64;
        Numbers {
            rate: replies as f64 / self.time.as_secs_f64().max(1e-9),
            replies,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            wrong: self.wrong,
            lost: self.lost,
            ..Numbers::default()
        }
    }
}
