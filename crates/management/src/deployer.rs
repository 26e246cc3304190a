//! The sequence of a deployment, and what surrounds it: deleting, bringing back, stopping.

mod durable;
mod kept;
mod restore;

use crate::archive::{self, ArchiveError, Unpacked};
use crate::bad_field::BadField;
use crate::codes::{Code, Codes};
use crate::functions::{Function, Functions};
use crate::options::Options;
use crate::order::{self, DeployError, Deployed, Order, Source};
use crate::probe::Probe;
use crate::starts::Starts;
use crate::store::{Manifests, Record, Store};
use crate::turns::{Turn, Turns};
use crate::upload;
use faas::Package;
use faas::{Deployment, Entry, FunctionLog, FunctionName, FunctionSpec, Handlers, Network};
use futures_util::future::join_all;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Everything that the management service holds on to.
#[derive(Debug)]
pub(crate) struct Deployer {
    /// What it is made of.
    pub(crate) options: Options,
    /// The functions that are known now.
    pub(crate) functions: Functions,
    /// When this process started to serve.
    pub(crate) started: SystemTime,
    /// Downloads that run at once.
    pub(crate) downloads: Semaphore,
    /// Clients that read logs at once.
    pub(crate) log_readers: Arc<Semaphore>,
    /// Memory for the bodies of requests.
    pub(crate) bodies: net::Share,
    /// Where the API listens.
    pub(crate) addr: OnceLock<SocketAddr>,
    /// Whether the original's calls need the token too; once on, it stays on.
    is_token_always: AtomicBool,
    store: Store,
    manifests: Arc<Manifests>,
    codes: Arc<Codes>,
    probe: Probe,
    turns: Arc<Turns>,
    /// Deployments that are worked on at once.
    starts: Starts,
    /// The same for functions that are brought back, so that they don't hold up deployments.
    restores: Starts,
    /// Deployments that are worked on or wait.
    pending: AtomicUsize,
    tasks: TaskTracker,
    background: TaskTracker,
    stopping: CancellationToken,
    aborting: CancellationToken,
    /// Ends the drains of what serves no more.
    cutting: CancellationToken,
    _lock: File,
}

/// What a deployer keeps on the disk, opened.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Where the functions are kept.
    pub(crate) store: Store,
    /// What it can be rebuilt from.
    pub(crate) manifests: Arc<Manifests>,
    /// Where their code is kept.
    pub(crate) codes: Arc<Codes>,
    /// Held as long as the data directory is ours.
    pub(crate) lock: File,
    /// Where removals run.
    pub(crate) background: TaskTracker,
}

impl Deployer {
    /// A deployer that knows the stored functions and has announced them to the router.
    pub(crate) fn new(options: Options, disk: Disk, stored: Vec<(Record, Code)>) -> Arc<Self> {
        let at_once = options.limits.deployments_at_once_max;
        let deployer = Arc::new(Self {
            functions: Functions::default(),
            started: SystemTime::now(),
            downloads: Semaphore::new(at_once),
            log_readers: Arc::new(Semaphore::new(options.limits.log_readers_max)),
            bodies: upload::budget(&options.limits),
            addr: OnceLock::new(),
            is_token_always: AtomicBool::new(options.is_token_always),
            store: disk.store,
            manifests: disk.manifests,
            probe: Probe::new(disk.codes.tmp()),
            codes: disk.codes,
            turns: Arc::default(),
            starts: Starts::new(&options.limits),
            restores: Starts::new(&options.limits),
            pending: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            background: disk.background,
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            cutting: CancellationToken::new(),
            _lock: disk.lock,
            options,
        });
        let mut terms = Vec::with_capacity(stored.len());
        for (record, code) in stored {
            terms.push(record.spec.terms());
            let log = Arc::new(FunctionLog::new(&deployer.options.limits));
            deployer
                .functions
                .put(Arc::new(Function { record, code, log }));
        }
        deployer.options.router.announce(terms);
        deployer
    }

    /// Whether every call needs the token.
    pub(crate) fn demands_token_always(&self) -> bool {
        self.is_token_always.load(Ordering::Relaxed)
    }

    /// Turns the token on for every call where a function can reach this service.
    fn mind_network(&self, network: &Network) {
        let port = self.addr.get().map(SocketAddr::port);
        let is_ours = |named: &u16| Some(*named) == port;
        let is_reached = network.is_host() || network.host_ports().iter().any(is_ours);
        if is_reached && !self.is_token_always.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a function can reach the management service: every call of it needs the token now"
            );
        }
    }

    /// Notes where the API listens; the first address is the one that is shown.
    pub(crate) fn listens_at(&self, addr: SocketAddr) {
        let _is_first = self.addr.set(addr).is_ok();
        for function in self.functions.all() {
            self.mind_network(&function.record.spec.network);
        }
    }

    /// Deploys in a task of its own: whoever asked may go. Deployments of one name come one after
    /// the other, in the order of the calls.
    pub(crate) async fn deploy(self: &Arc<Self>, order: Order) -> Result<Deployed, DeployError> {
        let limits = &self.options.limits;
        order::check(&order.spec, limits)?;
        // Before its handlers start.
        self.mind_network(&order.spec.network);
        let is_known = self.functions.get(order.spec.name.as_str()).is_some();
        if !is_known && self.functions.count() >= limits.functions_max {
            let functions_max = limits.functions_max;
            return Err(DeployError::Full { functions_max });
        }
        let place = self.take_place()?;
        let turn = self.turns.take(&order.spec.name);
        let deployer = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _place = place;
            deployer.work(order, turn).await
        });
        task.await.unwrap_or(Err(DeployError::Broken))
    }

    /// Takes a function out of service and forgets it. Says whether it was known.
    pub(crate) async fn delete(self: &Arc<Self>, name: FunctionName) -> Result<bool, DeployError> {
        if self.stopping.is_cancelled() {
            return Err(DeployError::Stopping);
        }
        let turn = self.turns.take(&name);
        let deployer = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            turn.begin().await;
            if deployer.functions.get(name.as_str()).is_none() {
                return Ok(false);
            }
            deployer.forget(&name).await?;
            let (_, served) = deployer.options.router.withdraw(&name);
            let function = deployer.functions.remove(&name);
            deployer.applied().await;
            deployer.retire(served, function);
            tracing::info!(function = %name, "deleted");
            Ok(true)
        });
        task.await.unwrap_or(Err(DeployError::Broken))
    }

    /// Deletes every function that is known now. Says how many there were.
    pub(crate) async fn wipe(self: &Arc<Self>) -> Result<usize, DeployError> {
        let functions = self.functions.all();
        let names = functions
            .iter()
            .map(|function| function.record.spec.name.clone());
        let mut deleted = 0;
        for result in join_all(names.map(|name| self.delete(name))).await {
            deleted += usize::from(result?);
        }
        Ok(deleted)
    }

    /// Takes no new deployments, gives those under way `grace`, then retires every deployment.
    pub(crate) async fn stop(&self, grace: Duration) {
        let until = tokio::time::Instant::now() + grace;
        self.stopping.cancel();
        self.tasks.close();
        self.background.close();
        if tokio::time::timeout_at(until, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("deployments were still under way and are given up");
        }
        self.aborting.cancel();
        self.tasks.wait().await;
        let routes = self.options.router.routes();
        let deployments: Vec<_> = routes
            .iter()
            .filter_map(|route| route.deployment())
            .collect();
        let rest = until.saturating_duration_since(tokio::time::Instant::now());
        join_all(deployments.iter().map(|deployment| deployment.retire(rest))).await;
        // What was replaced or deleted before has had as long by now.
        self.cutting.cancel();
        self.background.wait().await;
        self.store.close();
    }

    /// Returns when no new work is taken any more.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    fn take_place(self: &Arc<Self>) -> Result<Place, DeployError> {
        if self.stopping.is_cancelled() {
            return Err(DeployError::Stopping);
        }
        let limits = &self.options.limits;
        let waiting_max = limits.deployments_waiting_max;
        let before = self.pending.fetch_add(1, Ordering::SeqCst);
        let place = Place(Arc::clone(self));
        if before >= waiting_max.saturating_add(limits.deployments_at_once_max) {
            return Err(DeployError::Busy { waiting_max });
        }
        Ok(place)
    }

    async fn work(self: &Arc<Self>, mut order: Order, turn: Turn) -> Result<Deployed, DeployError> {
        turn.begin().await;
        let Some(slot) = self.starts.slot(std::future::pending()).await else {
            return Err(DeployError::Stopping);
        };
        let known = self.functions.get(order.spec.name.as_str());
        let log = match &known {
            Some(known) => Arc::clone(&known.log),
            None => Arc::new(FunctionLog::new(&self.options.limits)),
        };
        let kept = self.keep_settings(&mut order, known.as_deref())?;
        let prepared = tokio::select! {
            prepared = self.prepare(order, known.as_ref(), (&log, slot)) => prepared?,
            () = self.aborting.cancelled() => return Err(DeployError::Stopping),
        };
        let (record, code, handlers) = prepared;
        let deployed = Deployed {
            name: record.spec.name.clone(),
            runtime: record.spec.runtime,
            digest: record.digest.clone(),
            is_replacement: known.is_some(),
            kept,
        };
        drop(known);
        self.publish(Function { record, code, log }, handlers)
            .await?;
        Ok(deployed)
    }

    /// Everything that can fail for reasons of the function. Dropping the future leaves nothing.
    async fn prepare(
        self: &Arc<Self>,
        order: Order,
        known: Option<&Arc<Function>>,
        (log, slot): (&Arc<FunctionLog>, SemaphorePermit<'_>),
    ) -> Result<(Record, Code, Handlers), DeployError> {
        let (deployer, known) = (Arc::clone(self), known.cloned());
        let unpacking = tokio::task::spawn_blocking(move || deployer.unpack(order, known.as_ref()));
        let (record, code) = unpacking.await.unwrap_or(Err(DeployError::Broken))?;
        let package = Package {
            spec: Arc::clone(&record.spec),
            code: code.path(),
            digest: record.digest.clone(),
            log: Arc::clone(log),
        };
        let starting = self.options.backend.prepare(package);
        match self.starts.run(slot, starting).await {
            Ok(handlers) => Ok((record, code, handlers)),
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// Brings the code to its folder. Blocks on the disk.
    fn unpack(
        &self,
        order: Order,
        known: Option<&Arc<Function>>,
    ) -> Result<(Record, Code), DeployError> {
        let (limits, tmp) = (&self.options.limits, self.codes.tmp());
        let Order {
            mut spec,
            undecided,
            named: _,
            source,
            subfolder,
            room: _room,
        } = order;
        let (unpacked, packed_bytes) = match source {
            Source::Kept => return self.reuse(spec, undecided, known),
            Source::Archive(archive) => {
                let unpacked = archive::unpack(&archive, subfolder.as_deref(), tmp, limits)?;
                (unpacked, Some(archive.len() as u64))
            }
            Source::Files(files) => (archive::write(&files, tmp, limits)?, None),
            Source::Folder(path) => {
                let folder = self.folder_below_handlers(&path)?;
                (archive::copy(&folder, tmp, limits)?, None)
            }
        };
        undecided.decide(&mut spec, &unpacked.root, limits)?;
        check_entry(&spec, &unpacked)?;
        let code = self.codes.adopt(&unpacked).map_err(ArchiveError::Disk)?;
        let record = Record {
            spec: Arc::new(spec),
            digest: unpacked.digest.clone(),
            files: unpacked.files,
            packed_bytes: packed_bytes.unwrap_or(unpacked.unpacked_bytes),
            unpacked_bytes: unpacked.unpacked_bytes,
            deployed_at_ms: now_ms(),
            fault: None,
        };
        Ok((record, code))
    }

    fn folder_below_handlers(&self, path: &Path) -> Result<PathBuf, BadField> {
        let bad = |reason: &str| {
            let fix = "name a folder below the handlers directory (--handlers-dir)";
            BadField::new("path", format!("{} {reason}", path.display()), fix)
        };
        let handlers_dir = self.options.handlers_dir.canonicalize();
        let handlers_dir = handlers_dir
            .map_err(|_gone| bad("is not available: there is no handlers directory"))?;
        let folder = handlers_dir.join(path).canonicalize();
        let folder = folder.map_err(|_gone| bad("is not there"))?;
        if !folder.starts_with(&handlers_dir) {
            return Err(bad("lies outside the handlers directory"));
        }
        if !folder.is_dir() {
            return Err(bad("is no folder"));
        }
        Ok(folder)
    }

    /// Makes the function durable, lets it serve, and retires the previous version.
    async fn publish(
        self: &Arc<Self>,
        function: Function,
        handlers: Handlers,
    ) -> Result<(), DeployError> {
        let record = function.record.clone();
        let deployment = Deployment::new(record.spec.terms(), handlers);
        let deployment = Arc::new(deployment);
        if let Err(error) = self.keep(&function).await {
            deployment.retire(Duration::ZERO).await;
            return Err(error);
        }
        let handlers = deployment.handlers().len();
        // Known before it is routed: whoever sees the route finds the function.
        let before = self.functions.put(Arc::new(function));
        let served = self.options.router.publish(deployment);
        self.applied().await;
        self.retire(served, before);
        let name = &record.spec.name;
        tracing::info!(function = %name, handlers, digest = record.digest, "deployed");
        Ok(())
    }

    /// Waits until a reverse proxy elsewhere has the router's table too, but not for ever: one that
    /// is away gets it when it is back.
    async fn applied(&self) {
        let patience = self.options.limits.handler_start;
        let applied = tokio::time::timeout(patience, self.options.router.applied());
        if applied.await.is_err() {
            tracing::warn!("the reverse proxy does not answer; it gets its routes when it is back");
        }
    }

    /// Lets a deployment that serves no more finish, in the background, then lets its code go. Its
    /// calls have as long as they would have had.
    fn retire(&self, served: Option<Arc<Deployment>>, function: Option<Arc<Function>>) {
        let (drain, cutting) = (self.options.limits.drain, self.cutting.clone());
        self.background.spawn(async move {
            if let Some(served) = served {
                let grace = served.terms().deadline.max(drain);
                let retired = cutting.run_until_cancelled(served.retire(grace));
                if retired.await.is_none() {
                    served.retire(Duration::ZERO).await;
                }
            }
            if let Some(function) = function {
                function.code.set_forgotten();
            }
        });
    }
}

/// A place among the deployments that are worked on or wait; dropping it frees it.
#[derive(Debug)]
struct Place(Arc<Deployer>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

fn check_entry(spec: &FunctionSpec, unpacked: &Unpacked) -> Result<(), BadField> {
    let Entry::EventHandler(file) = &spec.entry else {
        return Ok(());
    };
    let path = unpacked.root.join(file);
    let is_inside = path.canonicalize().is_ok_and(|p| {
        let root = unpacked.root.canonicalize();
        p.is_file() && root.is_ok_and(|root| p.starts_with(root))
    });
    if !is_inside {
        let reason = format!("{file:?} is no file in the function's folder");
        return Err(BadField::new(
            "entry",
            reason,
            "name the file that exports eventhandler()",
        ));
    }
    Ok(())
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
