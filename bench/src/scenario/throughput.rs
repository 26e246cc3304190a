//! How many calls, beside a reference point in the same minute.

use super::Setting;
use crate::load::coap::{Coap, LOST_AFTER, Pace};
use crate::load::{Numbers, grpc, wrk};
use crate::node::Node;
use crate::process::{cpu_seconds, cpu_seconds_of_tree};
use crate::reference::{Kind, Reference};
use crate::row::{Row, Target};
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of a call.
const PAYLOAD: usize = 64;
/// Calls that are under way at once.
const OPEN: usize = 16;
/// Ports that CoAP calls come from.
const COAP_PORTS: usize = 2000;

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// HTTP/1.1, kept connections.
    Http,
    /// CoAP, confirmable.
    Coap,
    /// gRPC.
    Grpc,
}

/// What a function is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// A server, by its rate.
    Rate(Kind),
    /// A server, by its rate for each second of CPU time of the process that serves.
    RatePerCpu(Kind),
    /// Starting the same script over and over, on every core.
    Spawning,
}

/// A scenario: a function of ours and what it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// The example that is called.
    pub example: &'static str,
    /// How.
    pub endpoint: Endpoint,
    /// With what it is compared.
    pub against: Against,
    /// The ratio that is wanted.
    pub at_least: f64,
}

/// The scenarios.
pub const PAIRS: [Pair; 12] = [
    Pair {
        name: "http-python",
        what: "HTTP → Python echo, over `ThreadingHTTPServer` with HTTP/1.1",
        example: "echo-python3",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::PythonKept),
        at_least: 3.0,
    },
    Pair {
        name: "http-python-default",
        what: "HTTP → Python echo, over `ThreadingHTTPServer` as it is by default (HTTP/1.0)",
        example: "echo-python3",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::PythonDefault),
        at_least: 20.0,
    },
    Pair {
        name: "http-node",
        what: "HTTP → Node echo, over node's `http`",
        example: "echo-nodejs",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::NodeHttp),
        at_least: 1.0,
    },
    Pair {
        name: "http-node-express",
        what: "HTTP → Node echo, over Express",
        example: "echo-nodejs",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::Express),
        at_least: 4.0,
    },
    Pair {
        name: "http-wasm",
        what: "HTTP → wasm echo (a command in C), over a bare hyper server",
        example: "echo-wasm",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::BareHyper),
        at_least: 0.6,
    },
    Pair {
        name: "http-python-bare",
        what: "HTTP → Python echo, over a bare hyper server",
        example: "echo-python3",
        endpoint: Endpoint::Http,
        against: Against::Rate(Kind::BareHyper),
        at_least: 0.0,
    },
    Pair {
        name: "coap-python",
        what: "CoAP → Python echo, over a bare CoAP responder, for each CPU second of the proxy",
        example: "echo-python3",
        endpoint: Endpoint::Coap,
        against: Against::RatePerCpu(Kind::BareCoap),
        at_least: 0.35,
    },
    Pair {
        name: "coap-node",
        what: "CoAP → Node echo, over a bare CoAP responder, for each CPU second of the proxy",
        example: "echo-nodejs",
        endpoint: Endpoint::Coap,
        against: Against::RatePerCpu(Kind::BareCoap),
        at_least: 0.35,
    },
    Pair {
        name: "coap-wasm",
        what: "CoAP → wasm echo, over a bare CoAP responder",
        example: "echo-wasm",
        endpoint: Endpoint::Coap,
        against: Against::Rate(Kind::BareCoap),
        at_least: 0.0,
    },
    Pair {
        name: "grpc-node",
        what: "gRPC → Node echo, over a bare tonic server",
        example: "echo-nodejs",
        endpoint: Endpoint::Grpc,
        against: Against::Rate(Kind::BareTonic),
        at_least: 0.5,
    },
    Pair {
        name: "grpc-python",
        what: "gRPC → Python echo, over a bare tonic server",
        example: "echo-python3",
        endpoint: Endpoint::Grpc,
        against: Against::Rate(Kind::BareTonic),
        at_least: 0.0,
    },
    Pair {
        name: "http-binary",
        what: "HTTP → `sh` echo, over starting the same script on every core",
        example: "echo-binary",
        endpoint: Endpoint::Http,
        against: Against::Spawning,
        at_least: 1.0,
    },
];

/// Those that two revisions are compared with.
pub const COMPARED: [&str; 6] = [
    "http-python",
    "http-node",
    "http-wasm",
    "coap-python",
    "grpc-node",
    "http-binary",
];

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    PAIRS.iter().map(|pair| run_pair(pair, setting)).collect()
}

/// A node with the pair's function, warm.
fn deployed(pair: &Pair, setting: &Setting) -> Result<Node> {
    let node = Node::start(&setting.tinyfaas)?;
    let threads = std::thread::available_parallelism()?.to_string();
    let flags = ["--threads", &threads];
    let flags = if pair.against == Against::Spawning {
        &flags[..]
    } else {
        &[]
    };
    node.deploy(&example(pair), "bench", flags)?;
    // Interpreters and caches warm up.
    ours(pair, &node, setting.time / 4)?;
    Ok(node)
}

fn example(pair: &Pair) -> PathBuf {
    crate::folder().join("../examples").join(pair.example)
}

fn ours(pair: &Pair, node: &Node, time: Duration) -> Result<Numbers> {
    let part = match pair.endpoint {
        Endpoint::Http => "http",
        Endpoint::Coap => "coap",
        Endpoint::Grpc => "grpc",
    };
    let numbers = served(pair.endpoint, node.addr(part)?, "bench", node.pid(), time)?;
    ensure!(numbers.wrong == 0, "{}: {numbers:?}", pair.name);
    Ok(numbers)
}

/// Measures one program at one pair's load, without the reference.
///
/// # Errors
/// If it can't be started, or answers wrongly.
pub fn run_alone(pair: &Pair, setting: &Setting) -> Result<f64> {
    let node = deployed(pair, setting)?;
    Ok(pair.value(&ours(pair, &node, setting.time)?))
}

/// Measures one pair: ours, the reference, ours, the reference, …
///
/// # Errors
/// If one of them can't be started, or answers wrongly.
pub fn run_pair(pair: &Pair, setting: &Setting) -> Result<Row> {
    let node = deployed(pair, setting)?;
    let reference = match pair.against {
        Against::Rate(kind) | Against::RatePerCpu(kind) => {
            Some(Reference::start(kind, &setting.tools)?)
        }
        Against::Spawning => None,
    };
    let theirs = || match &reference {
        Some(server) => served(pair.endpoint, server.addr, "", server.pid(), setting.time),
        None => spawning(&example(pair).join("fn.sh"), setting.time),
    };
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        rounds.push((ours(pair, &node, setting.time)?, theirs()?));
    }
    Ok(row(pair, rounds))
}

impl Pair {
    fn value(&self, numbers: &Numbers) -> f64 {
        match self.against {
            Against::Rate(_) | Against::Spawning => numbers.rate,
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            Against::RatePerCpu(_) => numbers.replies as f64 / numbers.cpu_seconds.max(0.01),
        }
    }

    fn unit(&self) -> &'static str {
        match self.against {
            Against::Rate(_) | Against::Spawning => "a second",
            Against::RatePerCpu(_) => "a CPU second",
        }
    }
}

fn row(pair: &Pair, rounds: Vec<(Numbers, Numbers)>) -> Row {
    let (unit, value) = (pair.unit(), |numbers: &Numbers| pair.value(numbers));
    let each = |of: &dyn Fn(&(Numbers, Numbers)) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
    let ratios = each(&|(ours, theirs)| value(ours) / value(theirs));
    let median = |values: &[f64]| Row::new("", "", "", values, Target::None).value;
    let seen = format!(
        "{:.0} against {:.0} {unit}",
        median(&each(&|(ours, _)| value(ours))),
        median(&each(&|(_, theirs)| value(theirs)))
    );
    let target = if pair.at_least > 0.0 {
        Target::AtLeast(pair.at_least)
    } else {
        Target::None
    };
    let mut row = Row::new(pair.name, pair.what, "times", &ratios, target).seen(seen);
    row.loads = rounds;
    row
}

fn served(
    endpoint: Endpoint,
    to: SocketAddr,
    path: &str,
    pid: u32,
    time: Duration,
) -> Result<Numbers> {
    let (before, before_all) = (cpu_seconds(pid)?, cpu_seconds_of_tree(pid)?);
    let mut numbers = match endpoint {
        Endpoint::Http => wrk::run(&format!("http://{to}/{path}"), PAYLOAD, OPEN, time)?,
        Endpoint::Coap => {
            let load = Coap {
                to,
                path: path.to_owned(),
                payload: vec![b'x'; PAYLOAD],
                ports: COAP_PORTS,
                pace: Pace::Closed(OPEN * 4),
                time,
                patience: LOST_AFTER,
            };
            load.run()?.numbers()
        }
        Endpoint::Grpc => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let payload = "x".repeat(PAYLOAD);
            runtime
                .block_on(grpc::run(to, path, &payload, OPEN, time))?
                .numbers()
        }
    };
    numbers.cpu_seconds = cpu_seconds(pid)? - before;
    let all = cpu_seconds_of_tree(pid)? - before_all;
    numbers.handlers_cpu_seconds = (all - numbers.cpu_seconds).max(0.0);
    Ok(numbers)
}

/// Starts a script over and over, as many at once as there are cores.
fn spawning(script: &std::path::Path, time: Duration) -> Result<Numbers> {
    let cores = std::thread::available_parallelism()?.get();
    let begin = Instant::now();
    let counted = std::thread::scope(|scope| {
        let one = || {
            scope.spawn(|| -> Result<u64> {
                let mut count = 0;
                while begin.elapsed() < time {
                    let mut command = Command::new(script);
                    command.stdin(std::process::Stdio::piped());
                    command.stdout(std::process::Stdio::piped());
                    let mut child = command.spawn()?;
                    if let Some(mut stdin) = child.stdin.take() {
                        std::io::Write::write_all(&mut stdin, &[b'x'; PAYLOAD])?;
                    }
                    let output = child.wait_with_output()?;
                    ensure!(output.stdout.len() == PAYLOAD, "the script did not echo");
                    count += 1;
                }
                Ok(count)
            })
        };
        let threads: Vec<_> = (0..cores).map(|_| one()).collect();
        let counts = threads.into_iter().map(|thread| match thread.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        counts.sum::<Result<u64>>()
    })?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = counted as f64 / begin.elapsed().as_secs_f64();
    Ok(Numbers {
        rate,
        replies: counted,
        ..Numbers::default()
    })
}
