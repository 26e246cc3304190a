//! The backend: from a package to ready handlers.

use crate::cache::Cache;
use crate::dependencies::{self, Built};
use crate::handler::Template;
use crate::interpreter::{Finder, Interpreter, Interpreters};
use crate::node::Node;
use crate::process::Sandbox;
use crate::report;
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::spawner::Spawner;
use crate::sandbox::{LANDLOCK_STEP, SandboxMode};
use crate::shims::Shims;
use crate::users::{self, HOST_ID_FIRST, HostIds};
use builds::Turns;
use faas::{
    Backend, BackendReport, BoxFuture, CoreShare, Handlers, Limits, Network, Package, PrepareError,
    PrepareErrorKind,
};
use handler_protocol::Spawn;
use handler_protocol::supervisor::{Identity, start_all};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// Where the backend lives and how it isolates.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kept build results, shims and temporary files go below it.
    pub data_dir: PathBuf,
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// How far handlers are isolated.
    pub sandbox: SandboxMode,
    /// Whether reduced isolation may go on where the kernel has no Landlock, which leaves the files
    /// of this host open to functions.
    pub may_lack_landlock: bool,
    /// Which interpreters to use.
    pub interpreters: Interpreters,
    /// What builds reach of the network.
    pub build_network: Network,
    /// Variables that builds see: where packages come from, by what proxy.
    pub build_envs: Vec<(String, String)>,
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
    /// Reduced isolation would leave the host's files open.
    #[error(
        "this kernel has no Landlock, and without namespaces nothing else keeps functions from \
         this host's files. Start the kernel with lsm=landlock,… (Linux 5.13 or newer), or accept \
         that with --accept-no-landlock"
    )]
    NoLandlock,
    /// Functions, which are users of their own, could not reach their code.
    #[error(
        "with --sandbox reduced each function is a user of its own, and others than root may not \
         enter {}, above the data directory. Choose another with --data-dir, such as \
         /var/lib/tinyfaas",
        .0.display()
    )]
    OutOfReach(PathBuf),
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

/// Makes the folder, or empties it. What can't be removed now stays, as on a read-only disk.
fn empty(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return std::fs::create_dir_all(folder);
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "a temporary file could not be removed");
        }
    }
    Ok(())
}

impl ProcessBackend {
    /// Prepares the data directory, finds out what the host allows and tries the sandbox once.
    ///
    /// # Errors
    /// If the host forbids the isolation that was asked for, or a folder can't be made.
    pub async fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let node = set_up(options).await?;
        let walls = report::try_sandbox(&node).await;
        let walls = walls.map_err(|error| match error.to_string() {
            step if step.starts_with(LANDLOCK_STEP) && node.mode == SandboxMode::Reduced => {
                StartError::NoLandlock
            }
            reason => StartError::NoIsolation { reason },
        })?;
        node.walls.get_or_init(|| walls);
        let node = Arc::new(node);
        let watch = watch_disk(Arc::downgrade(&node), Arc::clone(&node.stopping));
        node.sandbox.tracker.spawn(watch);
        Ok(Arc::new(Self { node }))
    }

    async fn prepare_package(&self, package: Package) -> Result<Handlers, PrepareError> {
        let node = &self.node;
        package.check_code()?;
        let interpreter = node.finder.find(package.spec.runtime).await?;
        if let Some(found) = &interpreter {
            node.check_reach(package.spec.runtime, &found.executable)?;
        }
        node.let_in_everywhere(&package.code)
            .map_err(|error| node.explain(&package, &error))?;
        let found = interpreter.as_ref();
        let built = dependencies::install(node, &package, found).await?;
        let started = self.start_handlers(&package, found, built.clone()).await;
        let (error, built) = match (started, built) {
            (Ok(handlers), Some(built)) => {
                dependencies::prove(node, &built);
                return Ok(handlers);
            }
            (Err(error), Some(built)) if error.kind == PrepareErrorKind::Load => (error, built),
            (started, _) => return started,
        };
        let error = builds::with_notes(error, &built.kept.notes);
        match dependencies::rebuild(node, &package, found, built).await {
            None => Err(error),
            Some(built) => {
                let again = self.start_handlers(&package, found, Some(built.clone()));
                again
                    .await
                    .map_err(|error| builds::with_notes(error, &built.kept.notes))
            }
        }
    }

    async fn start_handlers(
        &self,
        package: &Package,
        interpreter: Option<&Interpreter>,
        built: Option<Built>,
    ) -> Result<Handlers, PrepareError> {
        let node = &self.node;
        let template = self.template(package, interpreter.cloned(), built);
        let spawn: Arc<dyn Spawn> = Arc::new(template);
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
        built: Option<Built>,
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

async fn set_up(options: Options) -> Result<Node, StartError> {
    let Options {
        data_dir,
        limits,
        sandbox: mode,
        may_lack_landlock,
        interpreters,
        build_network,
        build_envs,
    } = options;
    let io = |what| move |source| StartError::Io { what, source };
    let host_ids = rustix::process::geteuid().is_root().then(HostIds::new);
    if let Some(closed) = users::closed_above(&data_dir)
        && host_ids.is_some()
        && mode == SandboxMode::Reduced
    {
        return Err(StartError::OutOfReach(closed));
    }
    let scratch = data_dir.join("scratch");
    empty(&scratch).map_err(io("make a folder for temporary files"))?;
    let cache = Cache::open(&data_dir.join("builds"), &limits);
    let shims = Shims::write(&data_dir.join("shims"));
    // It may have to end what was left behind.
    let cgroups = tokio::task::spawn_blocking(Cgroups::set_up).await;
    let cgroups = cgroups.map_err(|failed| io("set up cgroups")(io::Error::other(failed)))?;
    let spawner = Spawner::start(cgroups.folders());
    Ok(Node {
        mode,
        sandbox: Sandbox {
            spawner: spawner.map_err(io("start the spawner thread"))?,
            cgroups: Arc::new(cgroups),
            group: HOST_ID_FIRST,
            may_lack_landlock,
            limits: Arc::clone(&limits),
            log_share: Arc::new(CoreShare::new(limits.logs_core_percent_max)),
            tracker: TaskTracker::new(),
        },
        finder: Finder::new(interpreters),
        cache: cache.map_err(io("open the cache of builds"))?,
        build_envs,
        shims: shims.map_err(io("write the shims"))?,
        build_turns: Turns::new(&limits.builds),
        build_network,
        scratch,
        walls: OnceLock::new(),
        stopping: Arc::default(),
        data_dir,
        host_ids,
        next_handler: AtomicU64::new(1),
        limits,
    })
}

/// Looks at the disk now and then; where it is nearly full, kept results that nothing uses go.
async fn watch_disk(node: Weak<Node>, stopping: Arc<Notify>) {
    while let Some(node) = node.upgrade() {
        let interval = node.limits.builds.disk_interval;
        dependencies::free_disk(&node).await;
        drop(node);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopping.notified() => return,
        }
    }
}

impl Backend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        Box::pin(self.prepare_package(package))
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(report::of(&self.node))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.node.stopping.notify_one();
            self.node.sandbox.tracker.close();
            self.node.sandbox.tracker.wait().await;
            self.node.sandbox.cgroups.tear_down();
            self.node.shut_out();
        })
    }
}
