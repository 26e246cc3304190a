//! The backend: from a package to a ready handler.

use crate::artifact::{Artifacts, MemoryUse};
use crate::compiler::Compiler;
use crate::contract::Contract;
use crate::engine::Engines;
use crate::failure::Lines;
use crate::handler::WasmHandler;
use crate::outbound::Outbound;
use crate::pace::Pace;
use crate::shared::Shared;
use faas::{
    Backend, BackendReport, BoxFuture, Handlers, Isolation, Limits, LogStream, Package,
    PrepareError, Runtime, RuntimeReport,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The module's name where there is more than one.
const MODULE_FILE: &str = "fn.wasm";
/// The engine, for people.
const ENGINE: &str = "wasmtime 48";

/// Where the backend lives and how much it takes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compiled code is kept below it.
    pub data_dir: PathBuf,
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// The program that compiles: one that calls [`compiler_main`](crate::compiler_main) first.
    pub compiler: PathBuf,
}

/// Why the backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not run on this host.
    #[error("could not start the WebAssembly engine: {0}")]
    Engine(String),
}

/// Runs functions as WebAssembly instances of this process.
#[derive(Debug)]
pub struct WasmBackend {
    engines: Arc<Engines>,
    artifacts: Arc<Artifacts>,
    limits: Arc<Limits>,
    next_handler: AtomicU64,
    handlers: Mutex<Vec<Weak<WasmHandler>>>,
}

impl WasmBackend {
    /// Reserves the pool and opens the folder of compiled code. Where the folder can't be used,
    /// code is kept in memory.
    ///
    /// # Errors
    /// If the engine does not run here.
    pub fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let Options {
            data_dir,
            limits,
            compiler,
        } = options;
        let engines = Engines::start(&limits.wasm)
            .map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let folder = data_dir.join("wasm");
        let compiler = Compiler::new(compiler, &limits);
        let artifacts = Artifacts::open(folder, &engines, compiler, &limits);
        Ok(Arc::new(Self {
            engines: Arc::new(engines),
            artifacts: Arc::new(artifacts),
            limits,
            next_handler: AtomicU64::new(1),
            handlers: Mutex::default(),
        }))
    }

    async fn prepare_package(&self, package: Package) -> Result<Handlers, PrepareError> {
        let name = package.spec.name.clone();
        let prepared = self.prepare_handler(package).await;
        let handler = prepared.map_err(|error| named(name.as_str(), error))?;
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.retain(|known| known.strong_count() > 0);
        handlers.push(Arc::downgrade(&handler));
        Ok(Handlers::here([handler]))
    }

    async fn prepare_handler(&self, package: Package) -> Result<Arc<WasmHandler>, PrepareError> {
        if package.spec.runtime != Runtime::Wasm {
            let detail = format!("the wasm backend does not run {}", package.spec.runtime);
            return Err(PrepareError::runtime(
                detail,
                "deploy it with the runtime wasm",
            ));
        }
        let shared = self.shared(&package);
        let (lines, pace) = (shared.lines.clone(), shared.pace.clone());
        let (engines, artifacts) = (Arc::clone(&self.engines), Arc::clone(&self.artifacts));
        let memory_bytes_max = shared.memory_bytes_max;
        let folder = package.code.clone();
        let linking = tokio::task::spawn_blocking(move || {
            let file = find_module(&folder)?;
            let (code, place) = artifacts.load(&engines, &file, memory_bytes_max)?;
            Contract::link(&code, shared).map(|contract| (contract, place))
        });
        let linked = linking.await;
        let (contract, place) = linked.map_err(|_ended| {
            PrepareError::host("compiling broke off", "see the log of tinyfaas")
        })??;
        self.try_instance(&contract).await?;
        let kept = if place.is_memory() {
            ", compiled in memory, as the disk of the data directory has no room or takes no writes"
        } else {
            ""
        };
        lines.log.push(
            &lines.handler,
            LogStream::Platform,
            &format!("ready: a {}{kept}", contract.name()),
        );
        Ok(Arc::new(WasmHandler {
            name: package.spec.name.clone(),
            contract,
            _place: place,
            engines: Arc::clone(&self.engines),
            lines,
            concurrency: usize::from(package.spec.handlers),
            deadline: package.spec.limits.deadline,
            pace,
            turns: Arc::new(Semaphore::new(usize::from(package.spec.handlers))),
            life: Arc::default(),
        }))
    }

    fn shared(&self, package: &Package) -> Shared {
        let number = self.next_handler.fetch_add(1, Ordering::Relaxed);
        let name = package.spec.name.as_str();
        let handler: Arc<str> = format!("{}-w{number}", name.replace('/', "-")).into();
        let mut envs = vec![
            ("TINYFAAS_FUNCTION".to_owned(), name.to_owned()),
            ("TINYFAAS_HANDLER".to_owned(), handler.to_string()),
        ];
        envs.extend(package.spec.envs.iter().cloned());
        Shared {
            envs: envs.into(),
            lines: Lines {
                log: Arc::clone(&package.log),
                handler,
            },
            memory_bytes_max: package.spec.limits.memory_bytes_max,
            pace: Pace::new(package.spec.limits.cpu_millis_max, package.spec.handlers)
                .map(Arc::new),
            wasm: self.limits.wasm,
            payload_bytes_max: self.limits.payload_bytes_max,
            headers_bytes_max: self.limits.headers_bytes_max,
            outbound: Outbound::new(&package.spec.allow_hosts, &self.limits),
            log_bytes_max: self.limits.log_bytes_max,
        }
    }

    async fn try_instance(&self, contract: &Contract) -> Result<(), PrepareError> {
        let _running = self.engines.ticker.run();
        let Some(_slot) = self.engines.slots.take(0).await else {
            let detail = "too many calls wait for an instance";
            return Err(PrepareError::host(detail, "try again in a second"));
        };
        let tried = tokio::time::timeout(self.limits.handler_start, contract.try_instance());
        match tried.await {
            Ok(made) => made,
            Err(_elapsed) => {
                let seconds = self.limits.handler_start.as_secs();
                let detail = format!("an instance was not ready within {seconds} s");
                Err(PrepareError::load(detail, "do less while it starts"))
            }
        }
    }

    fn report_now(&self) -> BackendReport {
        let limits = self.engines.limits;
        let is_pooled = self.engines.pooled.is_some();
        let detail = if is_pooled {
            format!(
                "{} instances at once, memories up to {} MiB come from the pool",
                limits.instances_max,
                limits.slot_bytes_max >> 20
            )
        } else {
            "off: there are too few addresses (ulimit -v, overcommit); each call allocates".into()
        };
        BackendReport {
            backend: "wasm",
            isolation: vec![Isolation {
                name: "wasm instance pool",
                is_on: is_pooled,
                detail,
            }],
            runtimes: vec![RuntimeReport {
                runtime: Runtime::Wasm,
                version: Some("built in".to_owned()),
                detail: format!(
                    "{ENGINE}, a new instance for every call{}",
                    self.in_memory()
                ),
            }],
        }
    }

    /// Warns that the code is lost when this process ends; `None` if it is kept on disk.
    fn in_memory(&self) -> String {
        let MemoryUse { bytes, bytes_max } = self.artifacts.memory_use();
        if bytes == 0 {
            return String::new();
        }
        let (kib, mib_max) = (bytes.div_ceil(1 << 10), bytes_max >> 20);
        format!(
            "; {kib} KiB of compiled code are in memory, of {mib_max} MiB at most: free space on \
             the disk of the data directory, see that it is writable, and deploy again"
        )
    }

    async fn stop_all(&self) {
        let handlers: Vec<_> = {
            let mut known = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
            known.drain(..).filter_map(|weak| weak.upgrade()).collect()
        };
        for handler in handlers {
            handler.life.end(Duration::ZERO).await;
        }
    }
}

impl Backend for WasmBackend {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        Box::pin(self.prepare_package(package))
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(async { self.report_now() })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop_all())
    }
}

/// `fn.wasm`, or the only `.wasm` file.
fn find_module(folder: &Path) -> Result<PathBuf, PrepareError> {
    let conventional = folder.join(MODULE_FILE);
    if conventional.is_file() {
        return Ok(conventional);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| {
        PrepareError::host(
            format!("the function's folder can't be read: {error}"),
            "look at the disk of the data directory, then deploy again",
        )
    })?;
    let is_module = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "wasm")
            && path.is_file()
    };
    let mut modules = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_module);
    match (modules.next(), modules.next()) {
        (Some(module), None) => Ok(module),
        (None, _) => Err(PrepareError::code(
            "there is no .wasm file",
            "send a module, or an archive with one",
        )),
        (Some(_), Some(_)) => Err(PrepareError::code(
            "there are several .wasm files",
            "call the one to run fn.wasm",
        )),
    }
}

/// The error with the function's name.
fn named(name: &str, error: PrepareError) -> PrepareError {
    let detail = format!("function \"{name}\": {}", error.detail);
    PrepareError { detail, ..error }
}
