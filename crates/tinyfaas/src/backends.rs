//! The backends of a node: which of them runs a function, told by its runtime and the settings.

use crate::config::{BackendName, BuildNetwork, Config, Sandbox};
use anyhow::Result;
use backend_process::{Interpreters, ProcessBackend, SandboxMode};
use faas::{
    Backend, BackendReport, BoxFuture, Exposure, Handlers, Limits, Network, Package, PrepareError,
    Reserve, Runtime, RuntimeReport,
};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Why there is no WebAssembly where the reverse proxy is a container of its own.
const NOT_HERE: &str = "WebAssembly functions run inside the reverse proxy, which has no code \
                        where it is a container of its own; use tinyfaas serve --backend docker";

/// Processes or containers for every runtime but WebAssembly, which has a backend of its own.
#[derive(Debug)]
pub(crate) struct Backends {
    main: Arc<dyn Backend>,
    /// What `main` can do here, once it was asked.
    report: OnceCell<BackendReport>,
    wasm: Wasm,
}

/// The backend of WebAssembly functions. It starts with the first of them: its engine takes
/// megabytes that a node without such functions has no use for.
#[derive(Debug)]
struct Wasm {
    options: Option<(Config, Arc<Limits>, Arc<Reserve>)>,
    /// Where it did not start, why.
    started: OnceCell<Result<Arc<dyn Backend>, String>>,
}

/// Starts the backends.
///
/// # Errors
/// If this host does not allow the isolation that was asked for. Without WebAssembly the other
/// runtimes still run.
pub(crate) async fn start(
    config: &Config,
    limits: &Arc<Limits>,
    reserve: &Arc<Reserve>,
) -> Result<Arc<Backends>> {
    let main = match config.backend {
        BackendName::Process => processes(config, limits).await?,
        BackendName::Docker => containers(config, limits).await?,
    };
    let wasm = Wasm {
        options: Some((config.clone(), Arc::clone(limits), Arc::clone(reserve))),
        started: OnceCell::new(),
    };
    let backends = Backends::new(main, wasm);
    if has_few_addresses() {
        // Before threads take what the pool of instances needs.
        backends.start_all().await;
    }
    Ok(Arc::new(backends))
}

/// Whether this process may run out of addresses: on a small processor, or by `ulimit -v`.
fn has_few_addresses() -> bool {
    use rustix::process::{Resource, getrlimit};

    cfg!(target_pointer_width = "32") || getrlimit(Resource::As).current.is_some()
}

impl Wasm {
    /// The backend, started now where it was not.
    async fn get(&self) -> &Result<Arc<dyn Backend>, String> {
        let start = async {
            let Some((config, limits, _)) = &self.options else {
                return Err(NOT_HERE.to_owned());
            };
            // It reserves addresses and reads a folder.
            let started = tokio::task::block_in_place(|| wasm(config, limits));
            started.inspect_err(|reason| {
                tracing::warn!(%reason, "WebAssembly functions can't be run");
            })
        };
        self.started.get_or_init(|| start).await
    }

    async fn report(&self) -> BackendReport {
        let (version, detail) = match (self.started.get(), &self.options) {
            (Some(Ok(wasm)), _) => return wasm.report().await,
            (Some(Err(reason)), _) => (None, reason.as_str()),
            (None, None) => (None, NOT_HERE),
            (None, Some(_)) => (Some("built in"), "starts with the first such function"),
        };
        BackendReport {
            backend: "wasm",
            isolation: Vec::new(),
            runtimes: vec![RuntimeReport {
                runtime: Runtime::Wasm,
                version: version.map(str::to_owned),
                detail: detail.to_owned(),
            }],
        }
    }
}

impl Backends {
    fn new(main: Arc<dyn Backend>, wasm: Wasm) -> Self {
        Self {
            main,
            report: OnceCell::new(),
            wasm,
        }
    }

    /// Starts what else starts with the first function that wants it, to tell of it.
    pub(crate) async fn start_all(&self) {
        let _started = self.wasm.get().await.is_ok();
    }

    async fn prepare_package(&self, package: Package) -> Result<Handlers, PrepareError> {
        match package.spec.runtime {
            Runtime::Wasm => match self.wasm.get().await {
                Ok(wasm) => {
                    if let Some((_, _, reserve)) = &self.wasm.options {
                        reserve.call();
                    }
                    wasm.prepare(package).await
                }
                Err(reason) => {
                    let name = &package.spec.name;
                    let detail = format!("function \"{name}\": {reason}");
                    let fix =
                        "use a tinyfaas that runs WebAssembly, on 64-bit Linux without ulimit -v";
                    Err(PrepareError::runtime(detail, fix))
                }
            },
            Runtime::Nodejs | Runtime::Python3 | Runtime::Go | Runtime::Binary => {
                self.main.prepare(package).await
            }
        }
    }

    async fn report_all(&self) -> BackendReport {
        let (main, wasm) = tokio::join!(
            self.report.get_or_init(|| self.main.report()),
            self.wasm.report()
        );
        let mut report = main.clone();
        let is_new = |runtime| wasm.runtimes.iter().all(|new| new.runtime != runtime);
        report.runtimes.retain(|known| is_new(known.runtime));
        report.isolation.extend(wasm.isolation);
        report.runtimes.extend(wasm.runtimes);
        report
    }
}

impl Backend for Backends {
    fn name(&self) -> &'static str {
        self.main.name()
    }

    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        Box::pin(self.prepare_package(package))
    }

    fn exposure(&self) -> Option<Arc<Exposure>> {
        self.main.exposure()
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(self.report_all())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(Ok(wasm)) = self.wasm.started.get() {
                wasm.shutdown().await;
            }
            self.main.shutdown().await;
        })
    }
}

async fn processes(config: &Config, limits: &Arc<Limits>) -> Result<Arc<dyn Backend>> {
    let sandbox = match config.sandbox {
        Sandbox::Full => SandboxMode::Full,
        Sandbox::Reduced => SandboxMode::Reduced,
    };
    let options = backend_process::Options {
        data_dir: config.data_dir.clone(),
        limits: Arc::clone(limits),
        sandbox,
        may_lack_landlock: config.may_lack_landlock,
        build_network: match config.build_network {
            BuildNetwork::Own => Network::Own {
                host_ports: config.build_host_ports.clone(),
            },
            BuildNetwork::Host => Network::Host,
        },
        interpreters: Interpreters {
            nodejs: config.nodejs.clone(),
            python3: config.python3.clone(),
            go: config.go.clone(),
        },
        build_envs: build_variables(),
    };
    let backend = ProcessBackend::start(options).await?;
    if sandbox == SandboxMode::Reduced {
        tracing::warn!(
            "isolation is REDUCED: functions share this host's processes and network names; \
             run only functions that you trust, or use --sandbox full"
        );
    }
    Ok(backend)
}

/// What was set for builds: `TINYFAAS_BUILD_HTTPS_PROXY` is `HTTPS_PROXY` in a build. Of the other
/// variables of this host none gets there, as they may hold passwords.
fn build_variables() -> Vec<(String, String)> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix("TINYFAAS_BUILD_")?.to_owned();
        let value = value.into_string().ok()?;
        (!name.is_empty()).then_some((name, value))
    });
    variables.collect()
}

/// Containers that a reverse proxy in another container calls.
#[cfg(feature = "docker")]
pub(crate) fn elsewhere(containers: Arc<backend_docker::DockerBackend>) -> Arc<dyn Backend> {
    let wasm = Wasm {
        options: None,
        started: OnceCell::new(),
    };
    Arc::new(Backends::new(containers, wasm))
}

#[cfg(feature = "docker")]
pub(crate) fn images(config: &Config) -> backend_docker::Images {
    let mut images = backend_docker::Images::default();
    let named = config.images.clone();
    for (image, name) in [
        (&mut images.nodejs, named.nodejs),
        (&mut images.python3, named.python3),
        (&mut images.go, named.go),
        (&mut images.binary, named.binary),
    ] {
        *image = name.unwrap_or(std::mem::take(image));
    }
    images
}

#[cfg(feature = "docker")]
async fn containers(config: &Config, limits: &Arc<Limits>) -> Result<Arc<dyn Backend>> {
    use sha2::{Digest, Sha256};

    // A data directory has one node at a time.
    let digest = Sha256::digest(config.data_dir.as_os_str().as_encoded_bytes());
    let options = backend_docker::Options {
        socket: backend_docker::default_socket(config.docker_host.as_deref())?,
        instance: faas::hex(&digest[..4]),
        images: images(config),
        program: "/proc/self/exe".into(),
        limits: Arc::clone(limits),
        elsewhere: None,
    };
    Ok(backend_docker::DockerBackend::start(options).await?)
}

#[cfg(not(feature = "docker"))]
async fn containers(_: &Config, _: &Arc<Limits>) -> Result<Arc<dyn Backend>> {
    anyhow::bail!("this tinyfaas was built without Docker; build it with the feature docker")
}

#[cfg(feature = "wasm")]
fn wasm(config: &Config, limits: &Arc<Limits>) -> Result<Arc<dyn Backend>, String> {
    let options = backend_wasm::Options {
        data_dir: config.data_dir.clone(),
        limits: Arc::clone(limits),
        // This same program, even where its file was replaced meanwhile.
        compiler: "/proc/self/exe".into(),
    };
    match backend_wasm::WasmBackend::start(options) {
        Ok(backend) => Ok(backend),
        Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
    }
}

#[cfg(not(feature = "wasm"))]
fn wasm(_: &Config, _: &Arc<Limits>) -> Result<Arc<dyn Backend>, String> {
    Err("this tinyfaas was built without WebAssembly; build it with the feature wasm".to_owned())
}
