//! Overload, in simulated time: what is served in time out of what could be.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "helpers of tests are not tests to the lint"
)]

use bytes::Bytes;
use faas::{
    BoxFuture, CallTerms, Callable, Deployment, FunctionLimits, Handler, HandlerState,
    HandlerStatus, Handlers, Headers, Invocation, InvokeError, Limits, Proxy, Reply, Router,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Takes more calls at once than it works on, as handlers of interpreted languages do.
#[derive(Debug)]
struct Worker {
    at_once: usize,
    /// Calls that are worked on at the same time.
    cores: Semaphore,
    service: Duration,
    inside: AtomicUsize,
}

impl Callable for Worker {
    fn invoke<'a>(
        &'a self,
        _invocation: &'a Invocation,
        _time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async {
            self.inside.fetch_add(1, Ordering::SeqCst);
            let _inside = Inside(&self.inside);
            let _core = self.cores.acquire().await.unwrap();
            tokio::time::sleep(self.service).await;
            Ok(Reply {
                status: 200,
                headers: Headers::new(),
                payload: Bytes::new(),
            })
        })
    }

    fn concurrency(&self) -> usize {
        self.at_once
    }

    fn in_flight(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn state(&self) -> HandlerState {
        HandlerState::Ready
    }
}

impl Handler for Worker {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: "worker".into(),
            state: self.state(),
            restarts: 0,
            in_flight: self.in_flight(),
        }
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    at_once: usize,
    cores: usize,
    service: Duration,
    deadline: Duration,
}

fn world(shape: Shape) -> (Arc<Proxy>, Arc<Worker>) {
    let worker = Arc::new(Worker {
        at_once: shape.at_once,
        cores: Semaphore::new(shape.cores),
        service: shape.service,
        inside: AtomicUsize::new(0),
    });
    let router = Arc::new(Router::default());
    let terms = CallTerms {
        name: "f".parse().unwrap(),
        deadline: shape.deadline,
        queue_max: FunctionLimits::default().queue_max,
        cors: None,
    };
    let deployment = Deployment::new(terms, Handlers::here([Arc::clone(&worker)]));
    router.publish(Arc::new(deployment));
    let proxy = Proxy::new(router, Arc::new(Limits::default()));
    (Arc::new(proxy), worker)
}

/// What came of the calls of one run.
#[derive(Debug, Default)]
struct Counted {
    served: AtomicUsize,
    refused: AtomicUsize,
    late: AtomicUsize,
}

async fn call(proxy: Arc<Proxy>, counted: Arc<Counted>, deadline: Duration) {
    let begin = Instant::now();
    let invocation = Invocation::new("POST", "/f".into(), Bytes::new());
    let result = proxy.invoke("f", invocation).await;
    if let Err(error) = &result {
        proxy.hold_back(error).await;
    }
    let counter = match result {
        Ok(_) => &counted.served,
        Err(InvokeError::Overloaded { .. }) => &counted.refused,
        Err(InvokeError::Deadline { .. }) => &counted.late,
        Err(error) => panic!("{error}"),
    };
    counter.fetch_add(1, Ordering::SeqCst);
    assert!(begin.elapsed() <= deadline + Duration::from_millis(5));
}

/// A panic of a task is one of the test.
async fn all_ended_well(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Calls at `load` times the capacity; says which share of it was served in time, from the first
/// call on. A handler that takes far more than it works on is overrun once: there, what came in
/// before anything was learnt is gone after two deadlines.
async fn goodput(shape: Shape, load: f64) -> f64 {
    let (proxy, _worker) = world(shape);
    let counted = Arc::new(Counted::default());
    let mut tasks = JoinSet::new();
    let time = (shape.deadline * 3).max(shape.service * 100);
    let step = shape.service.div_f64(load * shape.cores as f64);
    let is_overrun = shape.at_once > 16 * shape.cores;
    let warm = Instant::now() + shape.deadline * if is_overrun { 2 } else { 0 };
    let mut due = Instant::now();
    let mut served_before = None;
    while due < warm + time {
        tokio::time::sleep_until(due).await;
        if due >= warm {
            served_before.get_or_insert_with(|| counted.served.load(Ordering::SeqCst));
        }
        let (proxy, counted) = (Arc::clone(&proxy), Arc::clone(&counted));
        tasks.spawn(call(proxy, counted, shape.deadline));
        due += step;
    }
    let capacity = time.as_secs_f64() / shape.service.as_secs_f64() * shape.cores as f64;
    let served = counted.served.load(Ordering::SeqCst) - served_before.unwrap();
    all_ended_well(tasks).await;
    served as f64 / capacity
}

/// How many calls a handler takes at once, and how many it works on.
const WORKERS: [(usize, usize); 4] = [(1, 1), (16, 1), (256, 1), (64, 4)];

#[tokio::test(start_paused = true)]
async fn goodput_stays_near_capacity_however_much_is_asked() {
    for (at_once, cores) in WORKERS {
        for service_ms in [100, 400] {
            for deadline_s in [2, 3, 60] {
                for load in [1.2, 2.0, 10.0] {
                    let shape = Shape {
                        at_once,
                        cores,
                        service: Duration::from_millis(service_ms),
                        deadline: Duration::from_secs(deadline_s),
                    };
                    let share = goodput(shape, load).await;
                    assert!(
                        share >= 0.8,
                        "{shape:?} at {load} times the load: {share:.3}"
                    );
                }
            }
        }
    }
}

/// The control: a function that works on all its calls at once is not held up, however slow it is.
#[tokio::test(start_paused = true)]
async fn a_slow_function_that_works_on_all_its_calls_gets_them_all() {
    for service_ms in [10, 1500, 1900] {
        let shape = Shape {
            at_once: 256,
            cores: 256,
            service: Duration::from_millis(service_ms),
            deadline: Duration::from_secs(2),
        };
        let share = goodput(shape, 0.9).await;
        assert!((0.88..=0.92).contains(&share), "{shape:?}: {share:.3}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_thousand_who_ask_again_at_once_are_few_refusals_and_no_starvation() {
    let shape = Shape {
        at_once: 16,
        cores: 1,
        service: Duration::from_millis(10),
        deadline: Duration::from_secs(3),
    };
    let (proxy, _worker) = world(shape);
    let counted = Arc::new(Counted::default());
    let tasks = TaskTracker::new();
    let end = Instant::now() + Duration::from_secs(10);
    for _ in 0..2000 {
        let (proxy, counted) = (Arc::clone(&proxy), Arc::clone(&counted));
        tasks.spawn(async move {
            while Instant::now() < end {
                let invocation = Invocation::new("POST", "/f".into(), Bytes::new());
                match proxy.invoke("f", invocation).await {
                    Ok(_) => counted.served.fetch_add(1, Ordering::SeqCst),
                    Err(error) => {
                        proxy.hold_back(&error).await;
                        counted.refused.fetch_add(1, Ordering::SeqCst)
                    }
                };
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    let served = counted.served.load(Ordering::SeqCst);
    let refused = counted.refused.load(Ordering::SeqCst);
    assert!(served >= 800, "{counted:?}");
    // About one a second for each, and those that are free.
    assert!(refused <= 12 * 2000 + 10 * 100 + 200, "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_few_refusals_are_told_at_once() {
    let limits = Limits::default();
    let (proxy, _worker) = world(Shape {
        at_once: 1,
        cores: 1,
        service: Duration::from_secs(1),
        deadline: Duration::from_secs(3),
    });
    let refusal = InvokeError::Overloaded {
        name: "f".parse().unwrap(),
        retry_after: Duration::from_secs(1),
        time_left: Duration::MAX,
    };
    let begin = Instant::now();
    for _ in 0..limits.refusals_free_per_second {
        proxy.hold_back(&refusal).await;
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    proxy.hold_back(&refusal).await;
    assert!(begin.elapsed() >= limits.hold_back * 7 / 10);
    // What is no refusal never waits.
    let begin = Instant::now();
    proxy.hold_back(&InvokeError::Stopping).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

/// Two thousand callers who ask again as soon as they are answered; says which share of the capacity
/// was served from the first call on.
async fn crowd(shape: Shape) -> f64 {
    let (proxy, _worker) = world(shape);
    let counted = Arc::new(Counted::default());
    let mut tasks = JoinSet::new();
    let time = (4 * shape.deadline).min(Duration::from_secs(12));
    let end = Instant::now() + time;
    for _ in 0..2000 {
        let (proxy, counted) = (Arc::clone(&proxy), Arc::clone(&counted));
        tasks.spawn(async move {
            while Instant::now() < end {
                call(Arc::clone(&proxy), Arc::clone(&counted), shape.deadline).await;
            }
        });
    }
    tokio::time::sleep_until(end).await;
    let served = counted.served.load(Ordering::SeqCst);
    all_ended_well(tasks).await;
    let capacity = time.as_secs_f64() / shape.service.as_secs_f64() * shape.cores as f64;
    served as f64 / capacity
}

#[tokio::test(start_paused = true)]
async fn two_thousand_who_ask_again_at_once_are_served_from_the_first_second_on() {
    for (at_once, cores) in [(16, 1), (256, 16)] {
        for service_ms in [10, 100] {
            for deadline_s in [2, 3, 60] {
                let shape = Shape {
                    at_once,
                    cores,
                    service: Duration::from_millis(service_ms),
                    deadline: Duration::from_secs(deadline_s),
                };
                let share = crowd(shape).await;
                assert!(share >= 0.8, "{shape:?}: {share:.3}");
            }
        }
    }
}
