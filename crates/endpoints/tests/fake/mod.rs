//! A handler inside this process that answers by the function's method and query.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it"
)]

pub mod door;

use bytes::Bytes;
use faas::{
    BoxFuture, CallTerms, Callable, Cors, Deployment, Failure, FunctionLimits, Handler,
    HandlerState, HandlerStatus, Handlers, Headers, Invocation, InvokeError, Limits, PrepareError,
    Proxy, Reply, Router,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What the fake function has seen.
#[derive(Debug)]
pub struct Seen {
    /// Invocations that have begun.
    pub begun: watch::Sender<usize>,
    /// Invocations whose future was dropped before it ended.
    pub cancelled: watch::Sender<usize>,
    /// Lets those end that asked to wait.
    pub release: Notify,
    last: std::sync::Mutex<Option<Invocation>>,
}

impl Seen {
    /// The last invocation.
    pub fn last(&self) -> Invocation {
        self.last.lock().unwrap().clone().unwrap()
    }

    /// Waits until a count has been reached.
    pub async fn reached(count: &watch::Sender<usize>, at_least: usize) {
        let mut seen = count.subscribe();
        let reached = seen.wait_for(|n| *n >= at_least);
        let within = tokio::time::timeout(Duration::from_secs(20), reached).await;
        within.expect("the count is reached in time").unwrap();
    }
}

/// What a handler printed before it died.
pub const SECRET: &str = "password=hunter2";

/// A handler that is always ready, but for that of `sick`. The path decides: `/echo` replies with the payload, and so on.
#[derive(Debug)]
pub struct FakeHandler {
    seen: Arc<Seen>,
    in_flight: AtomicUsize,
    is_sick: bool,
}

struct Cancelled<'a>(&'a Seen, bool);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.send_modify(|n| *n += 1);
        }
    }
}

impl FakeHandler {
    async fn answer(&self, invocation: &Invocation) -> Result<Reply, InvokeError> {
        let reply = |status, headers: &[(&str, &str)], payload: Bytes| {
            let fields = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            Ok(Reply {
                status,
                headers: Headers::collect(fields).unwrap(),
                payload,
            })
        };
        match &invocation.path[..] {
            b"/fail" => Err(InvokeError::Function("it threw".to_owned())),
            b"/full" => Err(InvokeError::Overloaded {
                name: "full".parse().unwrap(),
                retry_after: Duration::from_millis(1500),
                time_left: Duration::MAX,
            }),
            b"/teapot" => reply(
                418,
                &[
                    ("content-type", "text/tea"),
                    ("x-pot", "1"),
                    ("connection", "x"),
                ],
                Bytes::from_static(b"short and stout"),
            ),
            b"/binary" => reply(200, &[], Bytes::from((0..=255).collect::<Vec<u8>>())),
            b"/wait" => {
                self.seen.release.notified().await;
                reply(200, &[], Bytes::from_static(b"released"))
            }
            b"/smuggler" => reply(
                200,
                &[
                    ("content-length", "5"),
                    ("transfer-encoding", "chunked"),
                    ("connection", "close"),
                    ("x-tinyfaas-error", "caller"),
                    ("x-tinyfaas-status", "418"),
                    ("x-tinyfaas-anything", "1"),
                    ("x-own", "1"),
                ],
                Bytes::from_static(b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
            ),
            b"/answers" | b"/app-answers" | b"/any-answers" => reply(
                200,
                &[
                    ("access-control-allow-origin", "https://own.example"),
                    ("access-control-allow-credentials", "true"),
                    ("access-control-expose-headers", "x-own"),
                    ("vary", "Accept"),
                ],
                Bytes::from_static(b"answered"),
            ),
            b"/large" => reply(200, &[], Bytes::from(vec![b'x'; 4 << 20])),
            _ => reply(200, &[], invocation.payload.clone()),
        }
    }
}

impl Callable for FakeHandler {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        _time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async move {
            *self.seen.last.lock().unwrap() = Some(invocation.clone());
            self.seen.begun.send_modify(|n| *n += 1);
            let mut guard = Cancelled(&self.seen, false);
            let reply = self.answer(invocation).await;
            guard.1 = true;
            reply
        })
    }

    fn concurrency(&self) -> usize {
        1000
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn is_ready(&self) -> bool {
        !self.is_sick
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn state(&self) -> HandlerState {
        if !self.is_sick {
            return HandlerState::Ready;
        }
        HandlerState::Pausing {
            failure: Failure {
                reason: "exit status 1".to_owned(),
                detail: format!("/srv/host/fn.py, line 1: {SECRET}"),
            },
            retry_after: Duration::from_secs(9),
        }
    }
}

impl Handler for FakeHandler {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: "fake".into(),
            state: self.state(),
            restarts: 0,
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Which pages may call the function of that name.
fn cors(name: &str) -> Option<Cors> {
    let text = match name {
        "none" => "none",
        "function" => "function",
        "any" | "any-answers" => "*",
        "app" | "app-answers" => "https://app.example,https://b.example:8443",
        _ => return None,
    };
    Some(text.parse().unwrap())
}

fn terms(name: &str) -> CallTerms {
    let limits = FunctionLimits::default();
    CallTerms {
        name: name.parse().unwrap(),
        deadline: limits.deadline,
        queue_max: limits.queue_max,
        cors: cors(name).map(Arc::new),
    }
}

/// A proxy whose functions are all the fake one, and what it has seen.
pub fn proxy(limits: Limits) -> (Arc<Proxy>, Arc<Seen>) {
    let seen = Arc::new(Seen {
        begun: watch::Sender::new(0),
        cancelled: watch::Sender::new(0),
        release: Notify::new(),
        last: std::sync::Mutex::new(None),
    });
    let router = Arc::new(Router::default());
    for name in [
        "echo",
        "fail",
        "full",
        "teapot",
        "binary",
        "wait",
        "large",
        "a/b",
        "sick",
        "smuggler",
        "answers",
        "none",
        "function",
        "any",
        "any-answers",
        "app",
        "app-answers",
    ] {
        let handler = Arc::new(FakeHandler {
            seen: Arc::clone(&seen),
            in_flight: AtomicUsize::new(0),
            is_sick: name == "sick",
        });
        let deployment = Deployment::new(terms(name), Handlers::here([handler]));
        router.publish(Arc::new(deployment));
    }
    router.announce([terms("unloaded")]);
    let error = PrepareError::load("/srv/host: exit status 1", "mend it").with_output(SECRET);
    let failure = Failure::from(&error);
    router.find("unloaded").unwrap().set_failure(failure);
    (Arc::new(Proxy::new(router, Arc::new(limits))), seen)
}
