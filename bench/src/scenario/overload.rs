//! Goodput under overload: what is served in time out of what the function can do, while an open loop
//! asks for more than that, and how a quiet function fares beside it.

use super::Setting;
use crate::load::coap::{Coap, Pace};
use crate::load::http::Paced;
use crate::load::open::{self, Called};
use crate::load::{Outcome, grpc};
use crate::node::Node;
use crate::row::{Row, Target};
use anyhow::{Result, ensure};
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

const PAYLOAD: &[u8; 64] = &[b'x'; 64];
/// What a call takes; with one handler that runs one after the other, its inverse is the capacity.
const BUSY: &str = "import time\n\ndef fn(input):\n    time.sleep(0.005)\n    return input\n";
const QUIET: &str = "def fn(input):\n    return input\n";
/// Deadlines of the busy function in seconds.
const DEADLINES: [u64; 3] = [2, 3, 60];
/// What is asked for, in capacities.
const LOADS: [f64; 3] = [1.2, 2.0, 10.0];
/// The least share of the capacity that is to be served.
const GOODPUT_MIN: f64 = 0.8;
/// The most that a quiet function may be slower beside it.
const QUIET_MAX: f64 = 5.0;
/// Calls of the quiet function in a second.
const QUIET_RATE: f64 = 50.0;
/// Connections that ask again as soon as they are answered.
const CROWD: usize = 2000;

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let node = Node::start(&setting.tinyfaas)?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    deploy(&node, folder.path(), "quiet", QUIET, 60)?;
    let http = node.addr("http")?;
    let alone = runtime.block_on(at_rate(http, "quiet", QUIET_RATE, setting.time))?;
    let alone = alone.numbers().p99_us;
    let mut rows = Vec::new();
    let mut slowest = 1.0_f64;
    for deadline in DEADLINES {
        deploy(&node, folder.path(), "busy", BUSY, deadline)?;
        let capacity = runtime.block_on(closed(http, 4, setting.time))?;
        for load in LOADS {
            for endpoint in ["http", "coap", "grpc"] {
                let to = node.addr(endpoint)?;
                let asked = Asked {
                    endpoint,
                    to,
                    rate: capacity * load,
                    // As long as it takes until the first are given up, and as long again.
                    time: setting.time.max(Duration::from_secs(2 * deadline.min(4))),
                };
                let (busy, quiet) = beside_quiet(&asked, http)?;
                let quiet = quiet.numbers().p99_us / alone;
                slowest = slowest.max(quiet);
                let name = format!("overload-{endpoint}-{deadline}s-{load}x");
                let what = format!(
                    "{endpoint} at {load} times the capacity, deadline {deadline} s: served in time"
                );
                let share = busy.numbers().rate / capacity;
                let target = Target::AtLeast(GOODPUT_MIN);
                let row = Row::new(&name, &what, "of it", &[share], target);
                rows.push(row.seen(format!(
                    "{capacity:.0} a second, {} refused, {} lost, quiet p99 {quiet:.1} times",
                    busy.wrong, busy.lost
                )));
            }
        }
        let crowd = runtime.block_on(closed(http, CROWD, setting.time))?;
        let name = format!("overload-crowd-{deadline}s");
        let what = format!("{CROWD} connections that ask again at once, deadline {deadline} s");
        let target = Target::AtLeast(GOODPUT_MIN);
        rows.push(Row::new(&name, &what, "of it", &[crowd / capacity], target));
    }
    let what = "p99 of a quiet function beside all of these";
    let target = Target::AtMost(QUIET_MAX);
    let row = Row::new("overload-quiet", what, "times", &[slowest], target);
    rows.push(row.seen(format!("{alone:.0} µs alone")));
    Ok(rows)
}

/// A load of one endpoint.
#[derive(Debug, Clone, Copy)]
struct Asked {
    endpoint: &'static str,
    to: SocketAddr,
    rate: f64,
    time: Duration,
}

fn deploy(node: &Node, folder: &Path, name: &str, code: &str, deadline: u64) -> Result<()> {
    let code_folder = folder.join(name);
    std::fs::create_dir_all(&code_folder)?;
    std::fs::write(code_folder.join("fn.py"), code)?;
    let deadline = format!("{deadline}s");
    node.deploy(&code_folder, name, &["--deadline", &deadline])?;
    Ok(())
}

/// The load, and what the quiet function did meanwhile.
fn beside_quiet(asked: &Asked, http: SocketAddr) -> Result<(Outcome, Outcome)> {
    let asked = *asked;
    let loading = std::thread::spawn(move || load(&asked));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let quiet = runtime.block_on(at_rate(http, "quiet", QUIET_RATE, asked.time))?;
    match loading.join() {
        Ok(busy) => Ok((busy?, quiet)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn load(asked: &Asked) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match asked.endpoint {
        "http" => runtime.block_on(at_rate(asked.to, "busy", asked.rate, asked.time)),
        "grpc" => runtime.block_on(over_grpc(asked)),
        _ => {
            let load = Coap {
                to: asked.to,
                path: "busy".to_owned(),
                payload: PAYLOAD.to_vec(),
                ports: 500,
                pace: Pace::Open(asked.rate),
                time: asked.time,
                patience: Duration::from_secs(60),
            };
            load.run()
        }
    }
}

async fn at_rate(
    to: SocketAddr,
    function: &'static str,
    rate: f64,
    time: Duration,
) -> Result<Outcome> {
    let paced = Arc::new(Paced::new(to));
    let connections = TaskTracker::new();
    open::run(open::evenly(rate, time), |()| {
        let (paced, connections) = (Arc::clone(&paced), connections.clone());
        async move {
            Called {
                is_right: is_echoed(&paced, &connections, function).await,
                own: Duration::ZERO,
            }
        }
    })
    .await
}

async fn is_echoed(paced: &Paced, connections: &TaskTracker, function: &str) -> bool {
    let payload = Bytes::from_static(PAYLOAD);
    let called = paced.call(connections, function, payload).await;
    called.is_ok_and(|(status, body)| status == 200 && *body == PAYLOAD[..])
}

async fn over_grpc(asked: &Asked) -> Result<Outcome> {
    // An HTTP/2 connection has so many streams at most, and a client holds back the rest.
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(grpc::Client::connect(asked.to).await?);
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    open::run(open::evenly(asked.rate, asked.time), |()| {
        let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut client = clients[turn % clients.len()].clone();
        async move {
            let payload = String::from_utf8_lossy(PAYLOAD);
            Called {
                is_right: client.call("busy", &payload).await,
                own: Duration::ZERO,
            }
        }
    })
    .await
}

/// Right replies in a second over so many connections, each of which asks again at once.
async fn closed(to: SocketAddr, connections: usize, time: Duration) -> Result<f64> {
    let tasks = TaskTracker::new();
    let served = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let begin = Instant::now();
    let callers = TaskTracker::new();
    for _ in 0..connections {
        let (tasks, served) = (tasks.clone(), Arc::clone(&served));
        callers.spawn(async move {
            let paced = Paced::new(to);
            while begin.elapsed() < time {
                if is_echoed(&paced, &tasks, "busy").await && begin.elapsed() < time {
                    served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
    }
    callers.close();
    callers.wait().await;
    let served = served.load(std::sync::atomic::Ordering::Relaxed);
    ensure!(served > 0, "nothing was served");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = served as f64 / time.as_secs_f64();
    Ok(rate)
}
