//! A realistic load: many functions of which few are called often, half of them by timers.
//!
//! The shape is that of published traces of production platforms (Shahrad et al., "Serverless in
//! the Wild", USENIX ATC 2020): rates are log-normal over six decades, bodies take 5 to 100 ms. An
//! hour is compressed into minutes; the calls are an open loop.

use super::Setting;
use crate::load::Outcome;
use crate::load::http::Paced;
use crate::load::open::{self, Called};
use crate::node::Node;
use crate::process::{proportional_kb, resident_kb};
use crate::row::{Row, Target};
use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

const FUNCTIONS: usize = 50;
/// The share of one core that the bodies take together.
const CORES_BUSY: f64 = 0.5;
/// The spread of the rates: six decades are three standard deviations either way.
const DEVIATIONS_IN_DECADES: f64 = 1.0;
const SEED: u64 = 7;
/// How often memory is looked at.
const SAMPLES: Duration = Duration::from_secs(5);

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

/// When whom is called, in order.
fn schedule(members: &[Member], time: Duration) -> Vec<(Duration, Member)> {
    let mut schedule = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(SEED + number as u64);
        let mut due = Duration::ZERO;
        loop {
            let interval = if member.is_timer {
                1.0
            } else {
                -(1.0 - random.random::<f64>()).ln()
            };
            due += Duration::from_secs_f64(interval / member.rate);
            if due > time {
                break;
            }
            schedule.push((due, member.clone()));
        }
    }
    schedule.sort_by_key(|(due, _)| *due);
    schedule
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
    let mut most = memory_before;
    let seen = runtime.block_on(async {
        let driving = drive(&node, &members, setting.fleet);
        tokio::pin!(driving);
        loop {
            tokio::select! {
                driven = &mut driving => return driven,
                () = tokio::time::sleep(SAMPLES) => most = most.max(memory(&node)?),
            }
        }
    })?;
    let memory_after = memory(&node)?;
    let numbers = seen.numbers();
    let calls = numbers.replies + numbers.wrong;
    let told = format!(
        "{calls} calls in {} s, {} failed, no cold start (handlers stay); p99 {:.0} µs, \
         p99.9 {:.0} µs",
        setting.fleet.as_secs(),
        numbers.wrong,
        numbers.p99_us,
        numbers.p999_us
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let failed = numbers.wrong as f64;
    let memory =
        format!("{memory_before:.0} MB before, {most:.0} MB at most, {memory_after:.0} MB after");
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
        kilobytes += proportional_kb(pid).unwrap_or_default();
    }
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Latencies without the bodies' own time.
async fn drive(node: &Node, members: &[Member], time: Duration) -> Result<Outcome> {
    let paced = Arc::new(Paced::new(node.addr("http")?));
    let connections = TaskTracker::new();
    open::run(schedule(members, time), |member| {
        let (paced, connections) = (Arc::clone(&paced), connections.clone());
        async move {
            let kind = if member.is_busy { "busy" } else { "sleep" };
            let payload = format!("{kind} {}", member.body.as_secs_f64());
            let called = paced.call(&connections, &member.name, Bytes::from(payload));
            Called {
                is_right: called.await.is_ok_and(|(status, _)| status == 200),
                own: member.body,
            }
        }
    })
    .await
}
