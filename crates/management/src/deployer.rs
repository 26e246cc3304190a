//! The sequence of a deployment, and what surrounds it: deleting, bringing back, stopping.

mod durable;
mod kept;
mod restore;

use crate::applies;
use crate::archive::{self, ArchiveError, Unpacked};
use crate::bad_field::BadField;
use crate::codes::{Code, Codes};
use crate::functions::{Function, Functions};
use crate::options::Options;
use crate::order::{self, DeployError, Deployed, Order, Source};
use crate::probe::Probe;
use crate::reach::{Reach, Reaches};
use crate::starts::Starts;
use crate::store::{Manifests, Record, Store};
use crate::turns::{Turn, Turns};
use crate::underway::{Underway, Work};
use crate::upload::Uploads;
use faas::Package;
use faas::{Deployment, Entry, FunctionLog, FunctionName, FunctionSpec, Handlers};
use futures_util::future::join_all;
use net::Budget;
use std::collections::HashSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Backups that are written at once.
    pub(crate) backups: Arc<Semaphore>,
    /// Places for clients that read logs, half of them for one address or the socket.
    pub(crate) log_readers: Arc<Budget>,
    /// The bodies of requests.
    pub(crate) uploads: Arc<Uploads>,
    /// Where the API listens.
    pub(crate) addr: OnceLock<SocketAddr>,
    /// The functions that can reach this service.
    reaches: Arc<Reaches>,
    store: Store,
    manifests: Arc<Manifests>,
    codes: Arc<Codes>,
    probe: Probe,
    turns: Arc<Turns>,
    /// The functions that are being made ready.
    pub(crate) underway: Arc<Underway>,
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
            backups: Arc::new(Semaphore::new(options.limits.backups_at_once_max)),
            log_readers: Budget::new(
                options.limits.log_readers_max,
                options.limits.log_readers_max.div_ceil(2),
            ),
            uploads: Uploads::new(&options.limits),
            addr: OnceLock::new(),
            reaches: Arc::default(),
            store: disk.store,
            manifests: disk.manifests,
            probe: Probe::new(disk.codes.tmp()),
            codes: disk.codes,
            turns: Arc::default(),
            underway: Arc::default(),
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
        let is_near = deployer.options.backend.exposure().is_some();
        let mut terms = Vec::with_capacity(stored.len());
        for (record, code) in stored {
            terms.push(record.spec.terms());
            let log = Arc::new(FunctionLog::new(&deployer.options.limits));
            let reach = deployer.reaches.note(&record.spec, is_near);
            deployer.functions.put(Arc::new(Function {
                record,
                code,
                log,
                _reach: reach,
            }));
        }
        deployer.options.router.announce(terms);
        deployer
    }

    /// Whether every call needs the token.
    pub(crate) fn demands_token_always(&self) -> bool {
        self.options.is_token_always || self.is_reached()
    }

    /// Whether a build runs that can reach this service.
    pub(crate) fn is_exposed(&self) -> bool {
        let exposure = self.options.backend.exposure();
        exposure.is_some_and(|exposure| exposure.is_any())
    }

    /// Whether a function can reach this service, or one that was replaced or deleted still may.
    fn is_reached(&self) -> bool {
        self.reaches.any(self.addr.get().map(SocketAddr::port))
    }

    /// Counts in what a function reaches, before its handlers start.
    fn mind_network(&self, spec: &FunctionSpec) -> Option<Reach> {
        let was_reached = self.is_reached();
        // Where the backend's networks lead to this service, each of them does.
        let is_near = self.options.backend.exposure().is_some();
        let reach = self.reaches.note(spec, is_near);
        if !was_reached && self.is_reached() {
            tracing::warn!(
                function = %spec.name,
                "a function can reach the management service: as long as it is there, every call needs the token"
            );
        }
        reach
    }

    /// Notes where the API listens; the first address is the one that is shown.
    pub(crate) fn listens_at(&self, addr: SocketAddr) {
        let _is_first = self.addr.set(addr).is_ok();
        if self.is_reached() {
            tracing::warn!(
                "a function can reach the management service: as long as it is there, every call needs the token"
            );
        }
    }

    /// Deploys in a task of its own, which ends in order where whoever asked has gone: a build that
    /// runs or waits is cut, anything else finishes. Deployments of one name come one after the
    /// other, in the order of the calls; one that brings its code cuts the builds before it.
    pub(crate) async fn deploy(self: &Arc<Self>, order: Order) -> Result<Deployed, DeployError> {
        let limits = &self.options.limits;
        order::check(&order.spec, limits)?;
        order::check_sizes(&order.spec, &order.named, limits)?;
        let is_known = self.functions.get(order.spec.name.as_str()).is_some();
        if !is_known && self.functions.count() >= limits.functions_max {
            let functions_max = limits.functions_max;
            return Err(DeployError::Full { functions_max });
        }
        let place = self.take_place()?;
        let supersedes = !matches!(order.source, Source::Kept);
        let work = self.underway.begin(&order.spec.name, supersedes);
        let turn = self.turns.take(&order.spec.name);
        let gone = CancellationToken::new();
        let _tells = gone.clone().drop_guard();
        let deployer = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _place = place;
            deployer.work(order, turn, (&work, &gone)).await
        });
        task.await.unwrap_or(Err(DeployError::Broken))
    }

    /// Takes a function out of service and forgets it; a build of it is cut. Says whether it was
    /// known, or was being deployed.
    pub(crate) async fn delete(self: &Arc<Self>, name: FunctionName) -> Result<bool, DeployError> {
        if self.stopping.is_cancelled() {
            return Err(DeployError::Stopping);
        }
        let was_underway = self.underway.supersede(&name);
        let turn = self.turns.take(&name);
        let deployer = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            turn.begin().await;
            if deployer.functions.get(name.as_str()).is_none() {
                return Ok(was_underway);
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

    /// Deletes every function that is known or being deployed now. Says how many there were.
    pub(crate) async fn wipe(self: &Arc<Self>) -> Result<usize, DeployError> {
        let functions = self.functions.all();
        let known = functions
            .iter()
            .map(|function| function.record.spec.name.clone());
        let names: HashSet<_> = known.chain(self.underway.names()).collect();
        let names = names.into_iter();
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

    async fn work(
        self: &Arc<Self>,
        mut order: Order,
        turn: Turn,
        (work, gone): (&Work, &CancellationToken),
    ) -> Result<Deployed, DeployError> {
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
        // Until its handlers have ended.
        let reach = self.mind_network(&order.spec);
        let prepared = tokio::select! {
            prepared = self.prepare(order, known.as_ref(), (&log, slot, work)) => prepared?,
            () = self.aborting.cancelled() => return Err(DeployError::Stopping),
            () = work.superseded() => return Err(DeployError::Superseded),
            () = work.abandoned(gone) => return Err(DeployError::Abandoned),
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
        let function = Function {
            record,
            code,
            log,
            _reach: reach,
        };
        self.publish(function, handlers).await?;
        Ok(deployed)
    }

    /// Everything that can fail for reasons of the function. Dropping the future leaves nothing.
    async fn prepare(
        self: &Arc<Self>,
        order: Order,
        known: Option<&Arc<Function>>,
        (log, slot, work): (&Arc<FunctionLog>, SemaphorePermit<'_>, &Work),
    ) -> Result<(Record, Code, Handlers), DeployError> {
        let (deployer, known) = (Arc::clone(self), known.cloned());
        let asker = order.asker.clone();
        let unpacking = tokio::task::spawn_blocking(move || deployer.unpack(order, known.as_ref()));
        let (record, code) = unpacking.await.unwrap_or(Err(DeployError::Broken))?;
        let package = Package {
            spec: Arc::clone(&record.spec),
            code: code.path(),
            digest: record.digest.clone(),
            log: Arc::clone(log),
            progress: work.progress.clone(),
            asker,
        };
        let starting = self.options.backend.prepare(package);
        match self.starts.run(slot, starting, &work.progress).await {
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
            named,
            source,
            subfolder,
            room: _room,
            asker: _,
        } = order;
        let (unpacked, packed_bytes) = match source {
            Source::Kept => return self.reuse(spec, undecided, &named, known),
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
        applies::check(&spec, &named, self.options.backend.name())?;
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
