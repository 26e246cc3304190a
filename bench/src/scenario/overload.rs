//! Goodput under overload: what is served in time out of what the function can serve, while more is
//! asked for, how long callers wait, and how a quiet function fares meanwhile.

use super::Setting;
use crate::load::coap::Pace;
use crate::load::crowd::{Counts, Crowd};
use crate::load::http::Paced;
use crate::load::open::{self, Called};
use crate::node::Node;
use crate::process::{raise_open_files, resident_kb};
use crate::row::{Row, Target};
use anyhow::Result;
use bytes::Bytes;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Waits, so that what it can serve does not depend on what else the machine does.
const BUSY: &str = "import time\n\ndef fn(input):\n    time.sleep(0.1)\n    return input\n";
const HANDLERS: &str = "16";
/// Calls in a second that sixteen handlers can serve which take a tenth of a second each.
const CAPACITY: f64 = 160.0;
const QUIET: &str = "def fn(input):\n    return input\n";
/// Deadlines of the busy function in seconds.
const DEADLINES: [u64; 3] = [2, 3, 60];
/// What is asked for, in capacities.
const LOADS: [f64; 3] = [1.2, 2.0, 10.0];
/// Callers that ask again as soon as they are answered.
const CROWD: usize = 2000;
/// The least share of the capacity that is to be served.
const GOODPUT_MIN: f64 = 0.8;
/// The longest wait over the deadline; what is more than one is the way there and back.
const WAIT_MAX: f64 = 1.1;
/// How many times slower the quiet function may be.
const QUIET_MAX: f64 = 5.0;
/// Calls of the quiet function in a second.
const QUIET_RATE: f64 = 200.0;
const QUIET_PAYLOAD: &[u8; 64] = &[b'x'; 64];
/// Its callers are another client than those that flood, with a share of their own.
const QUIET_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// A load takes so many deadlines, with the burst at its begin, and no longer than that.
const DEADLINES_LONG: u64 = 4;
const LOAD_MAX: Duration = Duration::from_secs(12);
/// What is inside and waits when a load ends is served or given up after this, or the deadline.
const REST_MAX: Duration = Duration::from_secs(9);
/// After this the memory is to be back.
const AFTER: Duration = Duration::from_secs(60);
/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    raise_open_files()?;
    let node = Node::start(&setting.tinyfaas)?;
    let folder = tempfile::tempdir()?;
    deploy(&node, folder.path(), "quiet", QUIET, &[])?;
    let http = node.addr("http")?;
    let alone = Quiet::call(http, setting.time.max(LOAD_MAX))?;
    anyhow::ensure!(
        alone.failed == 0,
        "the quiet function failed {} times without a load",
        alone.failed
    );
    let alone = alone.p99_us;
    let watched = Watched::begin(node.pid())?;
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for deadline in DEADLINES {
        let flags = ["--threads", HANDLERS, "--deadline", &format!("{deadline}s")];
        deploy(&node, folder.path(), "busy", BUSY, &flags)?;
        let deadline = Duration::from_secs(deadline);
        for endpoint in ["http", "coap", "grpc"] {
            let mut beside = Vec::new();
            for (name, pace) in paces() {
                let crowd = Crowd {
                    endpoint,
                    to: node.addr(endpoint)?,
                    function: "busy",
                    pace,
                    time: setting.time.max(length(deadline)),
                    patience: deadline.mul_f64(WAIT_MAX),
                };
                beside.push(Load::run(name, crowd, http, deadline)?);
                if endpoint == "coap" {
                    // Nobody tells the node that these callers are gone.
                    pause(deadline.min(REST_MAX));
                }
            }
            rows.push(goodput(endpoint, deadline, alone, &beside));
            all.extend(beside);
        }
    }
    rows.push(longest_wait(&all));
    rows.push(quiet(&all, alone));
    rows.push(watched.row(node.pid())?);
    Ok(rows)
}

fn paces() -> impl Iterator<Item = (String, Pace)> {
    let open = LOADS.map(|load| (format!("{load} times"), Pace::Open(CAPACITY * load)));
    open.into_iter()
        .chain([(format!("{CROWD} callers"), Pace::Closed(CROWD))])
}

fn length(deadline: Duration) -> Duration {
    let deadlines = u32::try_from(DEADLINES_LONG).unwrap_or(1);
    (deadline * deadlines).min(LOAD_MAX)
}

fn deploy(node: &Node, folder: &Path, name: &str, code: &str, flags: &[&str]) -> Result<()> {
    let code_folder = folder.join(name);
    std::fs::create_dir_all(&code_folder)?;
    std::fs::write(code_folder.join("fn.py"), code)?;
    node.deploy(&code_folder, name, flags)?;
    Ok(())
}

/// A load of the busy function, and what was seen of both meanwhile.
#[derive(Debug)]
struct Load {
    name: String,
    deadline: Duration,
    counts: Counts,
    goodput: f64,
    quiet: Quiet,
}

impl Load {
    fn run(name: String, crowd: Crowd, http: SocketAddr, deadline: Duration) -> Result<Self> {
        let loading = thread::spawn(move || crowd.run());
        let quiet = Quiet::call(http, crowd.time)?;
        let counts = match loading.join() {
            Ok(counts) => counts?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let goodput = counts.served as f64 / crowd.time.as_secs_f64() / CAPACITY;
        Ok(Self {
            name,
            deadline,
            counts,
            goodput,
            quiet,
        })
    }

    /// The longest wait over the deadline.
    fn wait(&self) -> f64 {
        self.counts.longest.as_secs_f64() / self.deadline.as_secs_f64()
    }
}

/// How a function fares that has hardly anything to do.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    p99_us: f64,
    /// Calls without the right reply, whatever it was instead.
    failed: u64,
}

impl Quiet {
    fn call(to: SocketAddr, time: Duration) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let paced = Arc::new(Paced::between(QUIET_FROM, to));
        let connections = TaskTracker::new();
        let outcome = runtime.block_on(open::run(open::evenly(QUIET_RATE, time), |()| {
            let (paced, connections) = (Arc::clone(&paced), connections.clone());
            async move {
                let payload = Bytes::from_static(QUIET_PAYLOAD);
                let called = paced.call(&connections, "quiet", payload).await;
                Called {
                    is_right: called
                        .is_ok_and(|(status, body)| status == 200 && *body == QUIET_PAYLOAD[..]),
                    own: Duration::ZERO,
                }
            }
        }))?;
        Ok(Self {
            p99_us: outcome.numbers().p99_us,
            failed: outcome.wrong,
        })
    }
}

/// The least share of the capacity that was served, whatever was asked for.
fn goodput(endpoint: &str, deadline: Duration, alone: f64, loads: &[Load]) -> Row {
    let seconds = deadline.as_secs();
    let name = format!("overload-{endpoint}-{seconds}s");
    let protocol = match endpoint {
        "http" => "HTTP",
        "coap" => "CoAP",
        _ => "gRPC",
    };
    let what = format!("overload over {protocol}, deadline {seconds} s: the least goodput");
    let shares: Vec<f64> = loads.iter().map(|load| load.goodput).collect();
    let target = Target::AtLeast(GOODPUT_MIN);
    let mut row = Row::new(&name, &what, "of the capacity", &shares, target);
    row.value = row.low;
    let mut seen = String::new();
    for load in loads {
        // Writing to a string does not fail.
        let _infallible = write!(
            seen,
            "{}{}: {:.2} ({} refused, {} broken, longest {:.2} s, quiet p99 {:.1} times, {} failed)",
            if seen.is_empty() { "" } else { "; " },
            load.name,
            load.goodput,
            load.counts.refused,
            load.counts.broken,
            load.counts.longest.as_secs_f64(),
            load.quiet.p99_us / alone,
            load.quiet.failed,
        );
    }
    row.seen(seen)
}

fn longest_wait(loads: &[Load]) -> Row {
    let waits: Vec<f64> = loads.iter().map(Load::wait).collect();
    let what = "the longest that any of these callers waited, over its deadline";
    let target = Target::AtMost(WAIT_MAX);
    let mut row = Row::new("overload-wait", what, "times", &waits, target);
    row.value = row.high;
    row
}

fn quiet(loads: &[Load], alone: f64) -> Row {
    let ratios = loads.iter().map(|load| load.quiet.p99_us / alone);
    let ratios: Vec<f64> = ratios.collect();
    let failed: u64 = loads.iter().map(|load| load.quiet.failed).sum();
    let what = "p99 of a quiet function during each of these loads, over the same without them";
    let target = Target::AtMost(QUIET_MAX);
    let mut row = Row::new("overload-quiet", what, "times", &ratios, target);
    row.value = row.high;
    row.seen(format!("{alone:.0} µs without, {failed} failed"))
}

/// The memory of the node while it is flooded.
#[derive(Debug)]
struct Watched {
    before_kb: f64,
    is_over: Arc<AtomicBool>,
    most_kb: thread::JoinHandle<f64>,
}

impl Watched {
    fn begin(pid: u32) -> Result<Self> {
        let before_kb = resident_kb(pid)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let most_kb = thread::spawn(move || {
            let mut most = before_kb;
            while !over.load(Ordering::Relaxed) {
                most = resident_kb(pid).map_or(most, |now| most.max(now));
                pause(LOOK);
            }
            most
        });
        Ok(Self {
            before_kb,
            is_over,
            most_kb,
        })
    }

    /// Waits, and says what is left of it.
    fn row(self, pid: u32) -> Result<Row> {
        self.is_over.store(true, Ordering::Relaxed);
        let most_kb = self.most_kb.join().unwrap_or(f64::NAN);
        pause(AFTER);
        let after_kb = resident_kb(pid)?;
        let what = "memory of the node a minute after all of these, over that before";
        let times = after_kb / self.before_kb;
        let row = Row::new("overload-memory", what, "times", &[times], Target::None);
        let megabytes = |kb: f64| kb / 1000.0;
        Ok(row.seen(format!(
            "{:.1} MB before, {:.1} MB at most, {:.1} MB after",
            megabytes(self.before_kb),
            megabytes(most_kb),
            megabytes(after_kb)
        )))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is the time that is waited for"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}
