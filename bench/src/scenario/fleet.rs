//! A realistic load: many functions of which few are called often, half of them by timers.
//!
//! The shape is that of published traces of production platforms (Shahrad et al., "Serverless in
//! the Wild", USENIX ATC 2020): rates are log-normal over six decades, bodies take 5 to 100 ms. An
//! hour is compressed into minutes; the calls are an open loop.

use super::Setting;
use crate::load::Outcome;
use crate::load::http::Paced;
use crate::node::Node;
use crate::process::{proportional_kb, resident_kb};
use crate::row::{Row, Target};
use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

const FUNCTIONS: usize = 50;
/// The share of one core that the bodies take together.
const CORES_BUSY: f64 = 0.5;
/// The spread of the rates: six decades are three standard deviations either way.
const DEVIATIONS_IN_DECADES: f64 = 1.0;
const SEED: u64 = 7;

/// A function and when it is called.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    /// Calls in a second.
    rate: f64,
    /// How long its body takes.
    body: Duration,
    /// It computes, or else it sleeps.
    is_busy: bool,
    /// It is called at even intervals, or else at random.
    is_timer: bool,
}

fn members(random: &mut StdRng) -> Vec<Member> {
    let mut members: Vec<Member> = (0..FUNCTIONS)
        .map(|number| {
            // The sum of twelve is as good as normal, within six deviations.
            let normal = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            Member {
                name: format!("fleet{number}"),
                rate: 10_f64.powf(normal.clamp(-3.0, 3.0) * DEVIATIONS_IN_DECADES),
                body: Duration::from_secs_f64(random.random_range(0.005..0.1)),
                is_busy: random.random(),
                is_timer: number % 2 == 0,
            }
        })
        .collect();
    let busy: f64 = members
        .iter()
        .filter(|member| member.is_busy)
        .map(|member| member.rate * member.body.as_secs_f64())
        .sum();
    for member in &mut members {
        member.rate *= CORES_BUSY / busy;
    }
    members
}

/// What came of the calls: latencies without the bodies' own time.
#[derive(Debug, Default)]
struct Seen {
    added: Outcome,
    failed: u64,
}

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let node = Node::start(&setting.tinyfaas)?;
    let members = members(&mut StdRng::seed_from_u64(SEED));
    for member in &members {
        node.deploy(&crate::folder().join("functions/fleet"), &member.name, &[])?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let memory_before = memory(&node)?;
    let seen = runtime.block_on(drive(&node, &members, setting.fleet))?;
    let memory_after = memory(&node)?;
    let numbers = seen.added.numbers();
    let calls = numbers.replies + seen.failed;
    let told = format!(
        "{calls} calls in {} s, {} failed, no cold start (handlers stay); p99 {:.0} µs, \
         p99.9 {:.0} µs",
        setting.fleet.as_secs(),
        seen.failed,
        numbers.p99_us,
        numbers.p999_us
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let failed = seen.failed as f64;
    let memory = format!("{memory_before:.0} MB before, {memory_after:.0} MB after");
    let row = |name, what, unit, value, target| Row::new(name, what, unit, &[value], target);
    Ok(vec![
        row(
            "fleet",
            "50 functions, log-normal rates: p50 of what is added to the functions' own time",
            "µs",
            numbers.p50_us,
            Target::None,
        )
        .seen(told),
        row(
            "fleet-failed",
            "the same: calls that failed",
            "calls",
            failed,
            Target::AtMost(0.0),
        ),
        row(
            "fleet-memory",
            "the same: memory of the node and its 50 handlers after it over before",
            "times",
            memory_after / memory_before,
            Target::None,
        )
        .seen(memory),
    ])
}

/// Megabytes of the node and its handlers.
fn memory(node: &Node) -> Result<f64> {
    let mut kilobytes = resident_kb(node.pid())?;
    for pid in node.handlers()? {
        kilobytes += proportional_kb(pid)?;
    }
    Ok(kilobytes * 1024.0 / 1e6)
}

async fn drive(node: &Node, members: &[Member], time: Duration) -> Result<Seen> {
    let paced = Arc::new(Paced::new(node.addr("http")?));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let connections = TaskTracker::new();
    let calls = TaskTracker::new();
    let mut drivers = JoinSet::new();
    for (number, member) in members.iter().cloned().enumerate() {
        let (paced, seen) = (Arc::clone(&paced), Arc::clone(&seen));
        let (connections, calls) = (connections.clone(), calls.clone());
        let mut random = StdRng::seed_from_u64(SEED + number as u64);
        drivers.spawn(async move {
            let begin = Instant::now();
            let mut due = Duration::ZERO;
            loop {
                let interval = if member.is_timer {
                    1.0
                } else {
                    -(1.0 - random.random::<f64>()).ln()
                };
                due += Duration::from_secs_f64(interval / member.rate);
                if due > time {
                    return;
                }
                tokio::time::sleep_until((begin + due).into()).await;
                let (paced, seen) = (Arc::clone(&paced), Arc::clone(&seen));
                let (connections, member) = (connections.clone(), member.clone());
                let due = begin + due;
                calls.spawn(async move {
                    let is_right = call(&paced, &connections, &member).await;
                    let added = due.elapsed().saturating_sub(member.body);
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.added.reply(added, is_right);
                    seen.failed += u64::from(!is_right);
                });
            }
        });
    }
    while let Some(ended) = drivers.join_next().await {
        ended?;
    }
    calls.close();
    calls.wait().await;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.added.time = time;
    Ok(std::mem::take(&mut *seen))
}

async fn call(paced: &Paced, connections: &TaskTracker, member: &Member) -> bool {
    let kind = if member.is_busy { "busy" } else { "sleep" };
    let payload = format!("{kind} {}", member.body.as_secs_f64());
    let called = paced.call(connections, &member.name, Bytes::from(payload));
    called.await.is_ok_and(|(status, _)| status == 200)
}
