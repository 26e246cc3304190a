//! The backend: from a package to ready handlers.

use crate::cache::{Cache, Kept};
use crate::dependencies;
use crate::handler::Template;
use crate::interpreter::{Finder, Interpreter, Interpreters};
use crate::process::Sandbox;
use crate::report;
use crate::sandbox::SandboxMode;
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::spawner::Spawner;
use crate::shims::Shims;
use faas::{Backend, BackendReport, BoxFuture, Handler, Limits, Package, PrepareError};
use handler_protocol::Spawn;
use handler_protocol::supervisor::{Identity, start_all};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// The first of the host's user ids that functions get when tinyFaaS runs as root, one each. It
/// is above every range that Linux distributions and systemd hand out.
const HOST_ID_FIRST: u32 = 1_900_000_000;
const HOST_ID_COUNT: u32 = 1_000_000;
/// Where the backend lives and how it isolates.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kept build results, shims and temporary files go below it.
    pub data_dir: PathBuf,
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// How far handlers are isolated.
    pub sandbox: SandboxMode,
    /// Which interpreters to use.
    pub interpreters: Interpreters,
}

/// Why the backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder or thread could not be made.
    #[error("could not {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// This host does not let us isolate handlers.
    #[error(
        "this host does not let tinyFaaS isolate functions ({reason}). {}",
        report::fix()
    )]
    NoIsolation {
        /// The step that failed and what the system said.
        reason: String,
    },
}

/// Runs handlers as sandboxed processes of this host.
#[derive(Debug)]
pub struct ProcessBackend {
    node: Arc<Node>,
}

/// What all handlers and builds share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) limits: Arc<Limits>,
    pub(crate) mode: SandboxMode,
    pub(crate) sandbox: Sandbox,
    pub(crate) finder: Finder,
    pub(crate) cache: Cache,
    pub(crate) shims: Shims,
    pub(crate) build_turns: Semaphore,
    /// Writable folders of handlers in reduced isolation.
    pub(crate) scratch: PathBuf,
    is_root: bool,
    next_host_id: AtomicU32,
    next_handler: AtomicU64,
}

impl Node {
    /// An id for a handler or build, for logs.
    pub(crate) fn next_id(&self, what: &str) -> Arc<str> {
        let number = self.next_handler.fetch_add(1, Ordering::Relaxed);
        format!("{what}-{number}").into()
    }

    /// The host's user that builds are.
    pub(crate) fn build_id(&self) -> Option<u32> {
        (self.is_root && self.mode == SandboxMode::Full).then_some(HOST_ID_FIRST)
    }

    /// A user of the host for a function, which no other has.
    fn function_id(&self) -> Option<u32> {
        let number = self.next_host_id.fetch_add(1, Ordering::Relaxed) % HOST_ID_COUNT;
        self.build_id().map(|first| first + 1 + number)
    }

    /// What a failed start means and what to do about it.
    pub(crate) fn explain(&self, package: &Package, error: &io::Error) -> PrepareError {
        let name = &package.spec.name;
        PrepareError::Host(format!(
            "function \"{name}\": its sandbox could not be made ({error}); run tinyfaas doctor"
        ))
    }
}

impl ProcessBackend {
    /// Prepares the data directory, finds out what the host allows and tries the sandbox once.
    ///
    /// # Errors
    /// Where the host forbids the isolation that was asked for, or a folder can't be made.
    pub async fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let Options {
            data_dir,
            limits,
            sandbox: mode,
            interpreters,
        } = options;
        let io = |what| move |source| StartError::Io { what, source };
        let is_root = rustix::process::geteuid().is_root();
        let build_id = (is_root && mode == SandboxMode::Full).then_some(HOST_ID_FIRST);
        let scratch = data_dir.join("scratch");
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch)
                .map_err(io("empty the folder for temporary files"))?;
        }
        std::fs::create_dir_all(&scratch).map_err(io("make a folder for temporary files"))?;
        let cache = Cache::open(&data_dir.join("builds"), build_id, &limits);
        let shims = Shims::write(&data_dir.join("shims"));
        let node = Node {
            mode,
            sandbox: Sandbox {
                spawner: Spawner::start().map_err(io("start the spawner thread"))?,
                cgroups: Arc::new(Cgroups::set_up()),
                tracker: TaskTracker::new(),
            },
            finder: Finder::new(interpreters),
            cache: cache.map_err(io("open the cache of builds"))?,
            shims: shims.map_err(io("write the shims"))?,
            build_turns: Semaphore::new(limits.builds_at_once_max),
            scratch,
            is_root,
            next_host_id: AtomicU32::new(0),
            next_handler: AtomicU64::new(1),
            limits,
        };
        report::try_sandbox(&node)
            .await
            .map_err(|error| StartError::NoIsolation {
                reason: error.to_string(),
            })?;
        Ok(Arc::new(Self {
            node: Arc::new(node),
        }))
    }

    async fn prepare_package(
        &self,
        package: Package,
    ) -> Result<Vec<Arc<dyn Handler>>, PrepareError> {
        let node = &self.node;
        package.check_code()?;
        let interpreter = node.finder.find(package.spec.runtime).await?;
        let built = dependencies::install(node, &package, interpreter.as_ref()).await?;
        let spawn: Arc<dyn Spawn> = Arc::new(self.template(&package, interpreter, built));
        let spec = &package.spec;
        let identities = (0..spec.handlers).map(|_| Identity {
            id: node.next_id(&spec.name.as_str().replace('/', "-")),
            name: spec.name.clone(),
            log: Arc::clone(&package.log),
        });
        let tracker = &node.sandbox.tracker;
        start_all(&spawn, identities.collect(), &node.limits, tracker).await
    }

    fn template(
        &self,
        package: &Package,
        interpreter: Option<Interpreter>,
        built: Option<Arc<Kept>>,
    ) -> Template {
        Template {
            node: Arc::clone(&self.node),
            package: package.clone(),
            host_id: self.node.function_id(),
            interpreter,
            built,
        }
    }
}

impl Backend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare(
        &self,
        package: Package,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Handler>>, PrepareError>> {
        Box::pin(self.prepare_package(package))
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(report::of(&self.node))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.node.sandbox.tracker.close();
            self.node.sandbox.tracker.wait().await;
            self.node.sandbox.cgroups.tear_down();
        })
    }
}
