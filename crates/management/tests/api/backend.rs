//! A backend whose handlers answer with the contents of their `fn.py`, or fail as that says.

use faas::{
    Backend, BackendReport, BoxFuture, Callable, Exposure, Handler, HandlerState, HandlerStatus,
    Handlers, Headers, Invocation, InvokeError, Isolation, LogStream, Package, PrepareError, Reply,
    Runtime, RuntimeReport, Stage,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct InProcess {
    /// Where functions with a network and builds reach the management service.
    pub(crate) exposure: OnceLock<Arc<Exposure>>,
    /// Whether code that says `WAIT` may go on.
    pub(crate) gate: watch::Sender<bool>,
    /// Whether code that says `HOST FAILS` fails.
    pub(crate) host_fails: Arc<AtomicBool>,
    pub(crate) preparing: Arc<AtomicUsize>,
    pub(crate) handlers_alive: Arc<AtomicUsize>,
    /// Calls of code that says `LINGERS`, which end as the gate opens.
    pub(crate) lingering: Arc<AtomicUsize>,
    /// Those that a handler had when it was stopped.
    pub(crate) cut: Arc<AtomicUsize>,
}

impl InProcess {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            exposure: OnceLock::new(),
            gate: watch::Sender::new(false),
            host_fails: Arc::new(AtomicBool::new(true)),
            preparing: Arc::default(),
            handlers_alive: Arc::default(),
            lingering: Arc::default(),
            cut: Arc::default(),
        })
    }

    async fn start(&self, package: Package) -> Result<Handlers, PrepareError> {
        let entry = package.code.join("fn.py");
        let Ok(text) = std::fs::read_to_string(entry) else {
            return Err(PrepareError::code("there is no fn.py", "add it"));
        };
        package
            .log
            .push(&"build".into(), LogStream::Platform, "starting");
        if text.contains("WAIT") {
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.unwrap();
        }
        let in_stage = |stage| package.progress.enter(stage);
        if text.contains("BUILDS") {
            let _builds = in_stage(Stage::Builds);
            std::future::pending::<()>().await;
        }
        if text.contains("QUEUES") {
            let _waits = in_stage(Stage::WaitsForBuild);
            std::future::pending::<()>().await;
        }
        if text.contains("BUSY") {
            return Err(PrepareError::busy("it waited 1 s", "try again"));
        }
        let (detail, fix, output) = ("it did not work", "mend it", "line 1\nline 2");
        if text.contains("BUILD FAILS") {
            return Err(PrepareError::build(detail, fix).with_output(output));
        }
        if text.contains("LOAD FAILS") {
            return Err(PrepareError::load(detail, fix).with_output(output));
        }
        if text.contains("HOST FAILS") && self.host_fails.load(Ordering::SeqCst) {
            return Err(PrepareError::host("no memory is left", "wait"));
        }
        let handlers = (0..package.spec.handlers).map(|number| {
            self.handlers_alive.fetch_add(1, Ordering::SeqCst);
            let id = format!("{}-{number}", package.spec.name);
            Arc::new(Echo {
                id: id.into(),
                text: text.clone(),
                package: package.clone(),
                alive: Arc::clone(&self.handlers_alive),
                gate: self.gate.clone(),
                lingering: Arc::clone(&self.lingering),
                cut: Arc::clone(&self.cut),
                is_stopped: AtomicBool::new(false),
            })
        });
        Ok(Handlers::here(handlers))
    }
}

struct Preparing(Arc<AtomicUsize>);

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend for InProcess {
    fn name(&self) -> &'static str {
        "in-process"
    }

    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        self.preparing.fetch_add(1, Ordering::SeqCst);
        let preparing = Preparing(Arc::clone(&self.preparing));
        Box::pin(async move {
            let _preparing = preparing;
            self.start(package).await
        })
    }

    fn exposure(&self) -> Option<Arc<Exposure>> {
        self.exposure.get().cloned()
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(async {
            BackendReport {
                backend: "in-process",
                isolation: vec![Isolation {
                    name: "none",
                    is_on: false,
                    detail: "for tests".to_owned(),
                }],
                runtimes: vec![RuntimeReport {
                    runtime: Runtime::Python3,
                    version: Some("3.0".to_owned()),
                    detail: "/nowhere".to_owned(),
                }],
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[derive(Debug)]
struct Echo {
    id: Arc<str>,
    text: String,
    package: Package,
    alive: Arc<AtomicUsize>,
    gate: watch::Sender<bool>,
    lingering: Arc<AtomicUsize>,
    cut: Arc<AtomicUsize>,
    is_stopped: AtomicBool,
}

impl Callable for Echo {
    fn invoke<'a>(
        &'a self,
        _invocation: &'a Invocation,
        _time_left: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async {
            // The code stays as long as a handler of it does.
            assert!(self.package.code.join("fn.py").is_file());
            self.package.log.push(&self.id, LogStream::Stdout, "called");
            if self.text.contains("LINGERS") {
                self.lingering.fetch_add(1, Ordering::SeqCst);
                let mut gate = self.gate.subscribe();
                gate.wait_for(|open| *open).await.unwrap();
                self.lingering.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(Reply {
                status: 200,
                headers: Headers::new(),
                payload: self.text.clone().into(),
            })
        })
    }

    fn concurrency(&self) -> usize {
        16
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn is_ready(&self) -> bool {
        !self.is_stopped.load(Ordering::SeqCst)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn state(&self) -> HandlerState {
        if !self.text.contains("SICK") {
            return HandlerState::Ready;
        }
        HandlerState::Pausing {
            failure: faas::Failure::plain("exit status 1"),
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Handler for Echo {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: Arc::clone(&self.id),
            state: self.state(),
            restarts: 3,
            in_flight: 0,
        }
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.is_stopped.swap(true, Ordering::SeqCst) {
                self.alive.fetch_sub(1, Ordering::SeqCst);
                let inside = self.lingering.load(Ordering::SeqCst);
                self.cut.fetch_add(inside, Ordering::SeqCst);
            }
        })
    }
}
