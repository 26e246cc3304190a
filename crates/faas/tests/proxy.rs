//! The hot path with handlers that do as they are told.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to the lint"
)]

use bytes::Bytes;
use faas::{
    BoxFuture, CallTerms, Callable, Deployment, Failure, FunctionLimits, Handler, HandlerState,
    HandlerStatus, Handlers, Headers, Invocation, InvokeError, Limits, PrepareError, Proxy, Reply,
    RequestPart, Router,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Answers with its id; holds every call until its gate has a permit.
#[derive(Debug)]
struct FakeHandler {
    id: Arc<str>,
    at_once: usize,
    gate: Semaphore,
    calls: AtomicUsize,
    is_ready: AtomicBool,
    is_stopped: AtomicBool,
    pause: Option<Duration>,
    became_ready: Notify,
    /// How often it was asked how it does.
    looks: AtomicUsize,
}

impl FakeHandler {
    fn open(id: &str) -> Arc<Self> {
        let handler = Self::gated(id, 1000);
        handler.gate.add_permits(1_000_000);
        handler
    }

    fn gated(id: &str, at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            at_once,
            gate: Semaphore::new(0),
            calls: AtomicUsize::new(0),
            is_ready: AtomicBool::new(true),
            is_stopped: AtomicBool::new(false),
            pause: None,
            became_ready: Notify::new(),
            looks: AtomicUsize::new(0),
        })
    }

    /// Loads without end.
    fn starting(id: &str) -> Arc<Self> {
        let handler = Self::gated(id, 1);
        handler.is_ready.store(false, Ordering::SeqCst);
        handler
    }

    fn pausing(id: &str, pause: Duration) -> Arc<Self> {
        let mut handler = Self::gated(id, 1);
        let inner = Arc::get_mut(&mut handler).unwrap();
        inner.pause = Some(pause);
        inner.is_ready = AtomicBool::new(false);
        handler
    }
}

struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Callable for FakeHandler {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        _time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let _busy = Busy(&self.calls);
            self.gate.acquire().await.unwrap().forget();
            if invocation.payload == "fail" {
                return Err(InvokeError::Function("ValueError: as told".into()));
            }
            let payload = Bytes::copy_from_slice(self.id.as_bytes());
            Ok(Reply {
                status: 200,
                headers: Headers::new(),
                payload,
            })
        })
    }

    fn concurrency(&self) -> usize {
        self.at_once
    }

    fn in_flight(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::SeqCst)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while !self.is_ready() && self.pause.is_none() {
                self.became_ready.notified().await;
            }
        })
    }

    fn state(&self) -> HandlerState {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.is_stopped.load(Ordering::SeqCst) {
            return HandlerState::Stopped;
        }
        match (self.is_ready(), self.pause) {
            (true, _) => HandlerState::Ready,
            (false, None) => HandlerState::Starting,
            (false, Some(retry_after)) => HandlerState::Pausing {
                failure: Failure {
                    reason: "exit status 1".into(),
                    detail: "password=hunter2 /srv/host".into(),
                },
                retry_after,
            },
        }
    }
}

impl Handler for FakeHandler {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: Arc::clone(&self.id),
            state: self.state(),
            restarts: 0,
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.is_ready.store(false, Ordering::SeqCst);
        })
    }
}

struct World {
    router: Arc<Router>,
    proxy: Arc<Proxy>,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let router = Arc::new(Router::default());
        let proxy = Arc::new(Proxy::new(Arc::clone(&router), Arc::new(limits)));
        Self { router, proxy }
    }

    fn publish(&self, terms: CallTerms, handlers: &[Arc<FakeHandler>]) -> Option<Arc<Deployment>> {
        let handlers = Handlers::here(handlers.iter().map(Arc::clone));
        let deployment = Deployment::new(terms, handlers);
        self.router.publish(Arc::new(deployment))
    }

    async fn call(&self, payload: &'static str) -> Result<String, InvokeError> {
        let invocation = Invocation::new("POST", "/f".into(), payload.into());
        let reply = self.proxy.invoke("f", invocation).await?;
        Ok(String::from_utf8(reply.payload.to_vec()).unwrap())
    }
}

fn terms() -> CallTerms {
    terms_with(&FunctionLimits::default())
}

fn terms_with(limits: &FunctionLimits) -> CallTerms {
    CallTerms {
        name: "f".parse().unwrap(),
        deadline: limits.deadline,
        queue_max: limits.queue_max,
        cors: None,
    }
}

/// Waits until as many invocations are with the handler.
async fn until_busy(handler: &FakeHandler, count: usize) {
    while handler.in_flight() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_unknown_name_is_not_found() {
    let world = World::new();
    assert_eq!(world.call("").await, Err(InvokeError::NotFound("f".into())));
}

#[tokio::test]
async fn the_least_busy_handler_is_chosen() {
    let world = World::new();
    let (a, b) = (FakeHandler::gated("a", 8), FakeHandler::open("b"));
    world.publish(terms(), &[Arc::clone(&a), b]);
    let first = world.call("");
    tokio::pin!(first);
    tokio::select! {
        biased;
        _ = &mut first => panic!("a's gate is shut"),
        () = until_busy(&a, 1) => {}
    }
    for _ in 0..5 {
        assert_eq!(world.call("").await.as_deref(), Ok("b"));
    }
    a.gate.add_permits(1);
    assert_eq!(first.await.as_deref(), Ok("a"));
}

#[tokio::test]
async fn more_than_the_queue_holds_is_refused() {
    let world = World::new();
    let handler = FakeHandler::gated("a", 1);
    let limits = FunctionLimits {
        queue_max: 2,
        ..FunctionLimits::default()
    };
    world.publish(terms_with(&limits), &[Arc::clone(&handler)]);
    let calls: Vec<_> = (0..3).map(|_| world.call("")).collect();
    let mut waiting = futures_util::future::join_all(calls);
    let route = world.router.find("f").unwrap();
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the gate is shut"),
        () = async { while route.waiting() < 2 { tokio::task::yield_now().await } } => {}
    }
    let refused = world.call("").await.unwrap_err();
    assert!(
        matches!(refused, InvokeError::Overloaded { .. }),
        "{refused}"
    );
    assert_eq!(refused.retry_after_seconds(), Some(1));
    handler.gate.add_permits(3);
    assert!(waiting.await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_frees_its_place() {
    let world = World::new();
    let handler = FakeHandler::gated("a", 1);
    let limits = FunctionLimits {
        deadline: Duration::from_secs(3),
        ..FunctionLimits::default()
    };
    world.publish(terms_with(&limits), &[Arc::clone(&handler)]);
    let late = world.call("").await.unwrap_err();
    assert!(matches!(late, InvokeError::Deadline { .. }), "{late}");
    assert_eq!(handler.in_flight(), 0);
    handler.gate.add_permits(1);
    assert_eq!(world.call("").await.as_deref(), Ok("a"));
}

#[tokio::test]
async fn calls_that_come_early_wait_for_their_function() {
    let world = World::new();
    world.router.announce([terms()]);
    let early = world.call("");
    tokio::pin!(early);
    let route = world.router.find("f").unwrap();
    tokio::select! {
        biased;
        _ = &mut early => panic!("nothing serves yet"),
        () = async { while route.waiting() < 1 { tokio::task::yield_now().await } } => {}
    }
    world.publish(terms(), &[FakeHandler::open("a")]);
    assert_eq!(early.await.as_deref(), Ok("a"));
}

#[tokio::test]
async fn a_function_that_cannot_be_started_says_why() {
    let world = World::new();
    world.router.announce([terms()]);
    world.router.find("f").unwrap().set_failure(Failure::from(
        &PrepareError::load("its handler ended while loading (exit status 1)", "mend it")
            .with_output("password=hunter2 /srv/host"),
    ));
    let refused = world.call("").await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("it could not be loaded"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn handlers_that_all_pause_refuse_at_once_with_the_reason() {
    let world = World::new();
    let pauses = [Duration::from_secs(9), Duration::from_secs(4)];
    let handlers = pauses.map(|pause| FakeHandler::pausing("a", pause));
    world.publish(terms(), &handlers);
    let refused = world.call("").await.unwrap_err();
    assert!(refused.to_string().contains("exit status 1"), "{refused}");
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    assert_eq!(refused.retry_after_seconds(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_is_waited_for() {
    let world = World::new();
    let handler = FakeHandler::pausing("a", Duration::from_millis(100));
    world.publish(terms(), &[Arc::clone(&handler)]);
    handler.gate.add_permits(1);
    let (answer, ()) = tokio::join!(world.call(""), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        handler.is_ready.store(true, Ordering::SeqCst);
    });
    assert_eq!(answer.as_deref(), Ok("a"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_looks_a_few_times_and_is_counted() {
    let check = async |handlers: [Arc<FakeHandler>; 2], looks_max: usize| {
        let world = World::new();
        let limits = FunctionLimits {
            deadline: Duration::from_secs(5),
            ..FunctionLimits::default()
        };
        world.publish(terms_with(&limits), &handlers);
        let route = world.router.find("f").unwrap();
        let waiting = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            route.waiting()
        };
        let (late, waiting) = tokio::join!(world.call(""), waiting);
        let late = late.unwrap_err();
        assert!(matches!(late, InvokeError::Deadline { .. }), "{late}");
        assert_eq!(waiting, 1);
        let looks = handlers.map(|handler| handler.looks.load(Ordering::SeqCst));
        assert!(looks.iter().all(|&count| count <= looks_max), "{looks:?}");
    };
    let starting = || FakeHandler::starting("a");
    let pausing = |ms| FakeHandler::pausing("b", Duration::from_millis(ms));
    check([starting(), starting()], 4).await;
    // One that pauses for longer than anybody waits, and one whose pause ends again and again.
    check([starting(), pausing(30_000)], 4).await;
    check([starting(), pausing(900)], 20).await;
    check([starting(), pausing(0)], 120).await;
    // Handlers that have stopped, of a deployment that is not retired.
    let stopped = || {
        let handler = FakeHandler::starting("c");
        handler.is_stopped.store(true, Ordering::SeqCst);
        handler
    };
    check([stopped(), stopped()], 4).await;
}

#[tokio::test]
async fn a_waiting_call_moves_to_the_new_deployment() {
    let world = World::new();
    let old = FakeHandler::gated("old", 1);
    world.publish(terms(), &[Arc::clone(&old)]);
    let (first, second) = (world.call(""), world.call(""));
    tokio::pin!(first, second);
    let route = world.router.find("f").unwrap();
    tokio::select! {
        biased;
        _ = &mut first => panic!("the gate is shut"),
        _ = &mut second => panic!("the gate is shut"),
        () = async { while route.waiting() < 1 { tokio::task::yield_now().await } } => {}
    }
    let replaced = world.publish(terms(), &[FakeHandler::open("new")]).unwrap();
    let retire = replaced.retire(Duration::from_secs(5));
    let (retired, moved, finished) = tokio::join!(retire, second, async {
        until_busy(&old, 1).await;
        old.gate.add_permits(1);
        first.await
    });
    let () = retired;
    assert_eq!(moved.as_deref(), Ok("new"));
    assert_eq!(finished.as_deref(), Ok("old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_deployments_replace_each_other() {
    let world = Arc::new(World::new());
    world.publish(terms(), &[FakeHandler::open("0")]);
    let callers = (0..4).map(|_| {
        let world = Arc::clone(&world);
        async move {
            for _ in 0..2000 {
                world.call("").await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let deployer = async {
        for n in 1..200 {
            let replaced = world
                .publish(terms(), &[FakeHandler::open(&n.to_string())])
                .unwrap();
            replaced.retire(Duration::from_secs(5)).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(futures_util::future::join_all(callers), deployer);
    let route = world.router.find("f").unwrap();
    assert_eq!(route.counters.invocations.load(Ordering::Relaxed), 8000);
    assert_eq!(route.counters.platform_errors.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn errors_are_counted_by_whose_fault_they_are() {
    let world = World::new();
    world.publish(terms(), &[FakeHandler::open("a")]);
    let failed = world.call("fail").await;
    assert_eq!(
        failed,
        Err(InvokeError::Function("ValueError: as told".into()))
    );
    let counters = &world.router.find("f").unwrap().counters;
    assert_eq!(counters.function_errors.load(Ordering::Relaxed), 1);
    assert_eq!(counters.platform_errors.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_run() {
    let world = World::with(Limits {
        payload_bytes_max: 3,
        ..Limits::default()
    });
    world.publish(terms(), &[FakeHandler::open("a")]);
    assert!(world.call("abc").await.is_ok());
    let refused = world.call("abcd").await.unwrap_err();
    assert_eq!(
        refused,
        InvokeError::TooLarge {
            part: RequestPart::Body,
            bytes_max: 3
        }
    );
}

#[tokio::test]
async fn a_withdrawn_function_is_not_found_by_those_who_wait_either() {
    let world = World::new();
    world.router.announce([terms()]);
    let early = world.call("");
    tokio::pin!(early);
    let route = world.router.find("f").unwrap();
    tokio::select! {
        biased;
        _ = &mut early => panic!("nothing serves yet"),
        () = async { while route.waiting() < 1 { tokio::task::yield_now().await } } => {}
    }
    world.router.withdraw(&"f".parse().unwrap());
    assert_eq!(early.await, Err(InvokeError::NotFound("f".into())));
}

#[tokio::test]
async fn stopping_finishes_what_is_inside_and_takes_no_more() {
    let world = World::new();
    let handler = FakeHandler::gated("a", 8);
    world.publish(terms(), &[Arc::clone(&handler)]);
    let inside = world.call("");
    tokio::pin!(inside);
    tokio::select! {
        biased;
        _ = &mut inside => panic!("the gate is shut"),
        () = until_busy(&handler, 1) => {}
    }
    let stopped = world.proxy.stop(Duration::from_secs(5));
    let (left, finished) = tokio::join!(stopped, async {
        while world.call("").await != Err(InvokeError::Stopping) {
            tokio::task::yield_now().await;
        }
        handler.gate.add_permits(1);
        inside.await
    });
    assert_eq!((left, finished.as_deref()), (0, Ok("a")));
}

#[tokio::test]
async fn detached_invocations_run_within_their_bound() {
    let world = World::with(Limits {
        async_invocations_max: 2,
        ..Limits::default()
    });
    let handler = FakeHandler::gated("a", 8);
    world.publish(terms(), &[Arc::clone(&handler)]);
    let detach = || {
        world
            .proxy
            .invoke_detached("f", Invocation::new("POST", "/f".into(), Bytes::new()))
    };
    assert_eq!((detach(), detach()), (Ok(()), Ok(())));
    assert!(matches!(detach(), Err(InvokeError::Overloaded { .. })));
    until_busy(&handler, 2).await;
    handler.gate.add_permits(2);
    assert_eq!(world.proxy.stop(Duration::from_secs(5)).await, 0);
    assert_eq!(handler.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_is_run_before_the_node_stops_and_nothing_else_is() {
    let world = World::new();
    let handler = FakeHandler::gated("a", 1);
    world.publish(terms(), &[Arc::clone(&handler)]);
    let invocation = || Invocation::new("POST", "/f".into(), Bytes::new());
    for _ in 0..20 {
        world.proxy.invoke_detached("f", invocation()).unwrap();
    }
    let stopped = world.proxy.stop(Duration::from_secs(10));
    let (left, ()) = tokio::join!(stopped, async {
        tokio::task::yield_now().await;
        let refused = world.proxy.invoke_detached("f", invocation());
        assert_eq!(refused, Err(InvokeError::Stopping));
        assert_eq!(world.call("").await, Err(InvokeError::Stopping));
        // Two seconds each: longer than callers who wait are given.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            handler.gate.add_permits(1);
        }
    });
    assert_eq!(left, 0);
    let counters = &world.router.find("f").unwrap().counters;
    assert_eq!(counters.invocations.load(Ordering::Relaxed), 20);
    assert_eq!(counters.platform_errors.load(Ordering::Relaxed), 0);
    assert_eq!(counters.function_errors.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_was_accepted_has_its_place_in_the_queue() {
    let world = World::new();
    let handler = FakeHandler::gated("a", 1);
    let limits = FunctionLimits {
        queue_max: 3,
        ..FunctionLimits::default()
    };
    world.publish(terms_with(&limits), &[Arc::clone(&handler)]);
    let detach = || {
        world
            .proxy
            .invoke_detached("f", Invocation::new("POST", "/f".into(), Bytes::new()))
    };
    assert_eq!((detach(), detach(), detach()), (Ok(()), Ok(()), Ok(())));
    // A fourth would be refused after its caller was told that it is run.
    assert!(matches!(detach(), Err(InvokeError::Overloaded { .. })));
    handler.gate.add_permits(3);
    assert_eq!(world.proxy.stop(Duration::from_secs(5)).await, 0);
    let counters = &world.router.find("f").unwrap().counters;
    assert_eq!(counters.platform_errors.load(Ordering::Relaxed), 0);
}
