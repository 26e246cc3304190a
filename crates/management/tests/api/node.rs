//! A management service that a test starts, calls and kills.

use crate::backend::InProcess;
use auth::Token;
use faas::{Invocation, InvokeError, Limits, Proxy, Router};
use management::{EndpointUrl, Management, OpenError, Options};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a condition may take to come true on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) management: Management,
    pub(crate) backend: Arc<InProcess>,
    pub(crate) router: Arc<Router>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) addr: SocketAddr,
    pub(crate) runtime: Runtime,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    token: Option<String>,
    dir: Arc<TempDir>,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// What a test changes of a node.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) token: Option<String>,
    pub(crate) is_token_always: bool,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) backend: Arc<InProcess>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            token: None,
            is_token_always: false,
            data_dir: None,
            backend: InProcess::new(),
        }
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        Self::try_with(setup, Arc::new(tempfile::tempdir().unwrap())).unwrap()
    }

    pub(crate) fn try_with(setup: Setup, dir: Arc<TempDir>) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (limits, router) = (Arc::new(setup.limits), Arc::new(Router::default()));
        let endpoint = |scheme, port| EndpointUrl {
            scheme,
            addr: SocketAddr::from(([0, 0, 0, 0], port)),
        };
        let handlers_dir = dir.path().join("handlers");
        std::fs::create_dir_all(&handlers_dir).unwrap();
        let options = Options {
            data_dir: setup.data_dir.unwrap_or_else(|| dir.path().join("data")),
            handlers_dir,
            limits: Arc::clone(&limits),
            function_limits: faas::FunctionLimits::default(),
            token: setup.token.as_deref().map(Token::new),
            is_token_always: setup.is_token_always,
            endpoints: vec![endpoint("coap", 5683), endpoint("http", 8000)],
            backend: setup.backend.clone(),
            router: Arc::clone(&router),
            version: "1.2.3",
        };
        let management = runtime.block_on(Management::open(options))?;
        management_restore(&runtime, &management);
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let (serving, until) = (management.clone(), shutdown.clone());
        let serve = async move { serving.serve(listener, until).await.unwrap() };
        tasks.spawn_on(serve, runtime.handle());
        Ok(Self {
            management,
            backend: setup.backend,
            proxy: Arc::new(Proxy::new(Arc::clone(&router), limits)),
            router,
            addr,
            runtime,
            shutdown,
            tasks,
            token: setup.token,
            dir,
        })
    }

    /// The folder of this node: `data` and `handlers`.
    pub(crate) fn dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.call("POST", path, &form, body.as_bytes())
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.call("PUT", path, &[], body)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], b"")
    }

    /// What is answered to whoever has no token.
    pub(crate) fn bare(&self, path: &str) -> Answer {
        self.send("GET", path, &[], (b"", None))
    }

    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(method, path, headers, (body, self.token.as_deref()))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        (body, token): (&[u8], Option<&str>),
    ) -> Answer {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build()
            .new_agent();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            [] if method == "GET" || method == "DELETE" => {
                agent.run(request.body(()).unwrap()).unwrap()
            }
            body => agent.run(request.body(body).unwrap()).unwrap(),
        };
        let media = response.headers().get("content-type");
        let media = media.map_or(String::new(), |m| m.to_str().unwrap().to_owned());
        let answer = Answer {
            status: response.status().as_u16(),
            media,
            text: response.body_mut().read_to_string().unwrap(),
        };
        check_problem(path, &answer);
        answer
    }

    /// What the function answers.
    pub(crate) fn invoke(&self, name: &str) -> Result<String, InvokeError> {
        let invocation = Invocation::new("POST", format!("/{name}").into(), "".into());
        let reply = self.runtime.block_on(self.proxy.invoke(name, invocation))?;
        Ok(String::from_utf8(reply.payload.to_vec()).unwrap())
    }

    /// The folders of code that are kept.
    pub(crate) fn codes(&self) -> Vec<String> {
        names_in(&self.data_dir().join("code"))
    }

    /// Waits until nothing temporary is left, and as many folders of code as `count`.
    pub(crate) fn wait_for_codes(&self, count: usize) {
        wait_for("the disk to be clean", || {
            let tmp = names_in(&self.data_dir().join("tmp"));
            tmp.is_empty() && self.codes().len() == count
        });
    }

    /// Ends everything at once, as far as a process can do that to itself; the disk stays.
    pub(crate) fn kill(self) -> Arc<TempDir> {
        let dir = self.dir();
        drop(self);
        dir
    }
}

/// Every refusal of `/v1` that any test gets is a problem document, and each says what to do.
fn check_problem(path: &str, answer: &Answer) {
    let is_problem = answer.media == "application/problem+json";
    if path.starts_with("/v1/") && answer.status >= 400 {
        assert!(is_problem, "{path}: {answer:?}");
    }
    if !is_problem {
        return;
    }
    let problem: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    for member in ["type", "title", "detail", "fix"] {
        let text = problem[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{path} has no {member}: {answer:?}");
    }
    let (detail, fix) = (problem["detail"].as_str(), problem["fix"].as_str());
    assert!(!detail.unwrap().contains(fix.unwrap()), "{answer:?}");
    assert_eq!(problem["status"], answer.status);
}

fn management_restore(runtime: &Runtime, management: &Management) {
    let _in_runtime = runtime.enter();
    management.restore();
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
