//! The proxy and its supervisors on a clock that nobody waits for, with handlers that load slowly or
//! never, die, hang, leave and give calls back, and callers that go.
//!
//! Whatever happens: every call has one end by its deadline, no more wait than may, waiting costs a
//! bounded number of steps, the function serves again once its handlers behave, and nothing is left.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to the lint"
)]

mod task;

use bytes::{Bytes, BytesMut};
use faas::{
    BoxFuture, CallTerms, Deployment, FunctionLog, Headers, Invocation, Limits, PrepareError,
    Proxy, Reply, Router,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use handler_protocol::frame::{self, FromProxy};
use handler_protocol::supervisor::{Identity, start_all};
use handler_protocol::{Spawn, Spawned, Stream};
use proptest::prelude::*;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use task::Task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

const HANDLERS: usize = 2;
/// Requests that each takes at once.
const AT_ONCE: u16 = 2;
const QUEUE_MAX: usize = 6;
const DEADLINE: Duration = Duration::from_secs(3);
/// How often a call may be looked at. There are some looks for each event that may concern it; a call
/// that spins is looked at hundreds of thousands of times a second.
const POLLS_MAX: usize = 400;

/// What an instance does, in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Life {
    /// It loads and serves.
    Serves { load: u64 },
    /// It does not get to its hello, and says so or not.
    Fails { load: u64, says_why: bool },
    /// It loads forever.
    Hangs,
    /// It serves, then dies.
    Dies { load: u64, after: u64 },
    /// It serves, then neither reads nor answers.
    Freezes { load: u64, after: u64 },
    /// It asks to be replaced when it has something to do.
    Leaves { load: u64 },
    /// It gives back every other call.
    GivesBack { load: u64 },
}

fn life() -> impl Strategy<Value = Life> {
    let (load, after) = (0u64..1500, 0u64..4000);
    prop_oneof![
        2 => load.clone().prop_map(|load| Life::Serves { load }),
        2 => (load.clone(), any::<bool>()).prop_map(|(load, says_why)| Life::Fails { load, says_why }),
        1 => Just(Life::Hangs),
        3 => (load.clone(), after.clone()).prop_map(|(load, after)| Life::Dies { load, after }),
        2 => (load.clone(), after).prop_map(|(load, after)| Life::Freezes { load, after }),
        1 => load.clone().prop_map(|load| Life::Leaves { load }),
        1 => load.prop_map(|load| Life::GivesBack { load }),
    ]
}

/// A call: how long after the one before, how long it works, and when its caller goes.
#[derive(Debug, Clone, Copy)]
struct Caller {
    gap: u64,
    work: u64,
    goes_after: Option<u64>,
}

fn caller() -> impl Strategy<Value = Caller> {
    let goes_after = proptest::option::weighted(0.2, 0u64..2500);
    let times = (0u64..400, 0u64..1200, goes_after);
    times.prop_map(|(gap, work, goes_after)| Caller {
        gap,
        work,
        goes_after,
    })
}

/// Starts instances that live as they are told, the first ones apart, which serve.
#[derive(Debug)]
struct Script {
    lives: Vec<Life>,
    started: AtomicUsize,
    tracker: TaskTracker,
}

impl Spawn for Script {
    fn spawn<'a>(&'a self, _id: &'a Arc<str>) -> BoxFuture<'a, Result<Spawned, PrepareError>> {
        Box::pin(async {
            let number = self.started.fetch_add(1, Ordering::SeqCst);
            let life = number.checked_sub(HANDLERS);
            let life = life.and_then(|number| self.lives.get(number).copied());
            let life = match number {
                // The first have something to replace.
                0 | 1 => Life::Dies {
                    load: 0,
                    after: 500,
                },
                _ => life.unwrap_or(Life::Serves { load: 0 }),
            };
            let (ours, theirs) = UnixStream::pair().unwrap();
            let task = self.tracker.spawn(live(theirs, life));
            Ok(Spawned {
                stream: Stream::Unix(ours),
                process: Box::new(Task(task)),
            })
        })
    }
}

async fn live(mut stream: UnixStream, life: Life) {
    let millis = Duration::from_millis;
    let (load, end) = match life {
        Life::Hangs => return pending().await,
        Life::Serves { load } | Life::Leaves { load } | Life::GivesBack { load } => (load, None),
        Life::Fails { load, .. } => (load, None),
        Life::Dies { load, after } | Life::Freezes { load, after } => (load, Some(after)),
    };
    sleep(millis(load)).await;
    let mut hello = BytesMut::new();
    match life {
        Life::Fails { says_why: true, .. } => frame::encode_failed(&mut hello, "as told"),
        Life::Fails { .. } => return,
        _ => frame::encode_hello(&mut hello, AT_ONCE),
    }
    if stream.write_all(&hello).await.is_err() {
        return;
    }
    let serving = serve(&mut stream, life);
    match end {
        None => serving.await,
        Some(after) => drop(timeout(millis(after), serving).await),
    }
    if matches!(life, Life::Freezes { .. }) {
        // Its end stays open.
        pending::<()>().await;
    }
}

/// Answers each request after the time that it names.
async fn serve(stream: &mut UnixStream, life: Life) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut working = FuturesUnordered::new();
    let (mut is_leaving, mut count) = (false, 0);
    loop {
        if stream.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
        tokio::select! {
            read = stream.read_buf(&mut input) => if read.unwrap_or(0) == 0 { return },
            Some(id) = working.next(), if !working.is_empty() => {
                let reply = Reply { status: 200, headers: Headers::new(), payload: Bytes::new() };
                frame::encode_reply(&mut output, id, &reply).unwrap();
            }
        }
        while let Some(said) = frame::decode_from_proxy(&mut input).unwrap() {
            match said {
                FromProxy::Request { id, payload, .. } => {
                    count += 1;
                    if matches!(life, Life::GivesBack { .. }) && count % 2 == 0 {
                        frame::encode_not_begun(&mut output, id);
                        continue;
                    }
                    let work = std::str::from_utf8(&payload).unwrap().parse().unwrap();
                    working.push(async move {
                        sleep(Duration::from_millis(work)).await;
                        id
                    });
                    if matches!(life, Life::Leaves { .. }) && !is_leaving {
                        is_leaving = true;
                        frame::encode_leaving(&mut output);
                    }
                }
                // What is cancelled is confirmed by its answer.
                FromProxy::Cancel { .. } => {}
                FromProxy::Ping(body) => frame::encode_pong(&mut output, &body),
            }
        }
    }
}

fn limits() -> Limits {
    Limits {
        handler_start: Duration::from_secs(4),
        restart_pause_min: Duration::from_millis(100),
        restart_pause_max: Duration::from_secs(2),
        stop_grace: Duration::from_secs(1),
        ..Limits::default()
    }
}

/// Calls, and returns whether the function answered and how often the call was looked at.
async fn call(proxy: &Proxy, caller: Caller) -> (Option<bool>, usize) {
    let payload = Bytes::from(caller.work.to_string());
    let invocation = Invocation::new("POST", Bytes::from_static(b"/f"), payload);
    let mut polls = 0;
    let begun = Instant::now();
    let ended = {
        let mut calling = pin!(proxy.invoke("f", invocation));
        let counted = poll_fn(|context| {
            polls += 1;
            calling.as_mut().poll(context)
        });
        let patience = caller.goes_after.map(Duration::from_millis);
        timeout(patience.unwrap_or(DEADLINE * 2), counted).await
    };
    let is_served = match ended {
        Ok(result) => {
            let latest = DEADLINE + Duration::from_millis(5);
            assert!(begun.elapsed() <= latest, "it ended after its deadline");
            Some(result.is_ok())
        }
        Err(_gone) => {
            assert!(caller.goes_after.is_some(), "it had no end");
            None
        }
    };
    (is_served, polls)
}

async fn simulate(lives: Vec<Life>, callers: Vec<Caller>) {
    let limits = Arc::new(limits());
    let tracker = TaskTracker::new();
    let script = Arc::new(Script {
        lives,
        started: AtomicUsize::new(0),
        tracker: tracker.clone(),
    });
    let log = Arc::new(FunctionLog::new(&limits));
    let identity = |number| Identity {
        id: format!("f-{number}").into(),
        name: "f".parse().unwrap(),
        log: Arc::clone(&log),
    };
    let identities = (0..HANDLERS).map(identity).collect();
    let spawn: Arc<dyn Spawn> = script;
    let handlers = start_all(&spawn, identities, &limits, &tracker)
        .await
        .unwrap();
    let terms = CallTerms {
        name: "f".parse().unwrap(),
        deadline: DEADLINE,
        queue_max: QUEUE_MAX,
        cors: None,
    };
    let router = Arc::new(Router::default());
    let deployment = Arc::new(Deployment::new(terms, handlers));
    router.publish(Arc::clone(&deployment));
    let route = router.find("f").unwrap();
    let proxy = Arc::new(Proxy::new(Arc::clone(&router), limits));
    let mut calls = Vec::new();
    for caller in callers {
        sleep(Duration::from_millis(caller.gap)).await;
        let proxy = Arc::clone(&proxy);
        calls.push(tracker.spawn(async move { call(&proxy, caller).await }));
        tokio::task::yield_now().await;
        assert!(route.waiting() <= QUEUE_MAX, "more wait than may");
    }
    for call in calls {
        let (_is_served, polls) = call.await.unwrap();
        assert!(polls <= POLLS_MAX, "a call was looked at {polls} times");
    }
    assert_eq!((proxy.in_flight(), route.waiting()), (0, 0));
    // Every life of the script may end before one that serves begins, each with a pause before it.
    let patient = Instant::now() + Duration::from_secs(600);
    let last = Caller {
        gap: 0,
        work: 1,
        goes_after: None,
    };
    while call(&proxy, last).await.0 != Some(true) {
        assert!(Instant::now() < patient, "it does not come back");
        sleep(Duration::from_millis(500)).await;
    }
    proxy.stop(Duration::from_secs(1)).await;
    deployment.retire(Duration::from_secs(1)).await;
    tracker.close();
    timeout(Duration::from_secs(60), tracker.wait())
        .await
        .expect("nothing is left");
}

/// How many worlds are tried: more where the environment says so.
fn worlds() -> u32 {
    let worlds = std::env::var("SIMULATED_WORLDS").ok();
    worlds.and_then(|worlds| worlds.parse().ok()).unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: worlds(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn calls_have_one_end_whatever_handlers_do(
        lives in proptest::collection::vec(life(), 0..12),
        callers in proptest::collection::vec(caller(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(simulate(lives, callers));
    }
}
