//! More calls than a function can serve, over each endpoint: what was served in time, what was
//! refused, and how long the longest wait was.

use super::coap::{Coap, Pace};
use super::grpc;
use super::http::Paced;
use super::open::{self, Called};
use anyhow::{Result, bail};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;
use tonic::Code;

const PAYLOAD: &[u8; 64] = &[b'x'; 64];
/// HTTP/2 connections: each has so many streams at most, and a client holds back the rest.
const HTTP2_CONNECTIONS: usize = 24;
const COAP_PORTS: usize = 500;

/// What to call, and how.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// `http`, `coap` or `grpc`.
    pub endpoint: &'static str,
    /// Its address.
    pub to: SocketAddr,
    /// What is called.
    pub function: &'static str,
    /// When calls are sent.
    pub pace: Pace,
    /// How long.
    pub time: Duration,
    /// After this a CoAP call counts as lost.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Right replies before the time was over.
    pub served: u64,
    /// Calls that were refused or given up by the server.
    pub refused: u64,
    /// Calls whose connection broke, that had no reply, or another one than these.
    pub broken: u64,
    /// The longest that a caller waited, whatever the answer.
    pub longest: Duration,
}

impl Crowd {
    /// Calls, and tells what came of it.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn run(&self) -> Result<Counts> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        match self.endpoint {
            "http" => runtime.block_on(async {
                let caller = Caller::Http(Paced::new(self.to), TaskTracker::new());
                self.over(caller).await
            }),
            "grpc" => runtime.block_on(async {
                let mut clients = Vec::new();
                for _ in 0..HTTP2_CONNECTIONS {
                    clients.push(grpc::Client::connect(self.to).await?);
                }
                self.over(Caller::Grpc(clients, AtomicU64::new(0))).await
            }),
            _ => self.over_coap(),
        }
    }

    async fn over(&self, caller: Caller) -> Result<Counts> {
        let seen = Arc::new(Seen::until(Instant::now() + self.time));
        let (caller, function) = (Arc::new(caller), self.function);
        match self.pace {
            Pace::Open(rate) => {
                let _counted_by_seen = open::run(open::evenly(rate, self.time), |()| {
                    let (caller, seen) = (Arc::clone(&caller), Arc::clone(&seen));
                    async move {
                        seen.call(&caller, function).await;
                        Called {
                            is_right: true,
                            own: Duration::ZERO,
                        }
                    }
                })
                .await?;
            }
            Pace::Closed(callers) => {
                let tasks = TaskTracker::new();
                for _ in 0..callers {
                    let (caller, seen) = (Arc::clone(&caller), Arc::clone(&seen));
                    tasks.spawn(async move {
                        while Instant::now() < seen.end {
                            seen.call(&caller, function).await;
                        }
                    });
                }
                tasks.close();
                tasks.wait().await;
            }
        }
        Ok(seen.counts())
    }

    fn over_coap(&self) -> Result<Counts> {
        let load = Coap {
            to: self.to,
            path: self.function.to_owned(),
            payload: PAYLOAD.to_vec(),
            ports: COAP_PORTS,
            pace: self.pace,
            time: self.time,
            patience: self.patience,
        };
        let outcome = load.run()?;
        Ok(Counts {
            served: outcome.latencies.len(),
            refused: outcome.wrong,
            broken: outcome.lost,
            longest: outcome.longest,
        })
    }
}

/// What a caller was told.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Right,
    Refused,
}

#[derive(Debug)]
enum Caller {
    Http(Paced, TaskTracker),
    /// With how many calls there were.
    Grpc(Vec<grpc::Client>, AtomicU64),
}

impl Caller {
    async fn call(&self, function: &str) -> Result<Answer> {
        match self {
            Self::Http(paced, connections) => {
                let payload = Bytes::from_static(PAYLOAD);
                match paced.call(connections, function, payload).await? {
                    (200, body) if *body == PAYLOAD[..] => Ok(Answer::Right),
                    (503 | 504, _) => Ok(Answer::Refused),
                    (status, body) => bail!("{status} {}", String::from_utf8_lossy(&body)),
                }
            }
            Self::Grpc(clients, calls) => {
                let turn = usize::try_from(calls.fetch_add(1, Ordering::Relaxed))?;
                let mut client = clients[turn % clients.len()].clone();
                let payload = String::from_utf8_lossy(PAYLOAD);
                match client.ask(function, &payload).await {
                    Ok(response) if response == payload => Ok(Answer::Right),
                    Ok(response) => bail!("{response}"),
                    Err(status) => match status.code() {
                        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded => {
                            Ok(Answer::Refused)
                        }
                        _ => Err(status.into()),
                    },
                }
            }
        }
    }
}

/// What is seen while it runs.
#[derive(Debug)]
struct Seen {
    end: Instant,
    served: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    longest_us: AtomicU64,
}

impl Seen {
    fn until(end: Instant) -> Self {
        Self {
            end,
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
        }
    }

    async fn call(&self, caller: &Caller, function: &str) {
        let begin = Instant::now();
        let answer = caller.call(function).await;
        let took = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest_us.fetch_max(took, Ordering::Relaxed);
        let counter = match answer {
            Ok(Answer::Right) if Instant::now() < self.end => &self.served,
            Ok(Answer::Right) => return,
            Ok(Answer::Refused) => &self.refused,
            Err(_broken) => &self.broken,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            served: load(&self.served),
            refused: load(&self.refused),
            broken: load(&self.broken),
            longest: Duration::from_micros(load(&self.longest_us)),
        }
    }
}
