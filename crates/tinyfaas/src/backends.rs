//! The backends of a node: which of them runs a function, told by its runtime and the settings.

use crate::config::{BackendName, Config, Sandbox};
use anyhow::Result;
use backend_process::{Interpreters, ProcessBackend, SandboxMode};
use faas::{Backend, BackendReport, BoxFuture, Handler, Limits, Package, PrepareError, Runtime};
use std::sync::Arc;

/// Processes or containers for every runtime but WebAssembly, which has a backend of its own.
#[derive(Debug)]
pub(crate) struct Backends {
    main: Arc<dyn Backend>,
    /// Where it did not start, why.
    wasm: Result<Arc<dyn Backend>, String>,
}

/// Starts the backends.
///
/// # Errors
/// Where this host does not allow the isolation that was asked for. Without WebAssembly the other
/// runtimes still run.
pub(crate) async fn start(config: &Config, limits: &Arc<Limits>) -> Result<Arc<dyn Backend>> {
    let main = match config.backend {
        BackendName::Process => processes(config, limits).await?,
        BackendName::Docker => containers(config, limits).await?,
    };
    let wasm = wasm(config, limits)
        .inspect_err(|reason| tracing::warn!(%reason, "WebAssembly functions can't be run"));
    Ok(Arc::new(Backends { main, wasm }))
}

impl Backends {
    fn pick(&self, runtime: Runtime) -> Result<&dyn Backend, &str> {
        match runtime {
            Runtime::Wasm => match &self.wasm {
                Ok(wasm) => Ok(wasm.as_ref()),
                Err(reason) => Err(reason),
            },
            Runtime::Nodejs | Runtime::Python3 | Runtime::Go | Runtime::Binary => {
                Ok(self.main.as_ref())
            }
        }
    }

    async fn report_all(&self) -> BackendReport {
        let mut report = self.main.report().await;
        match &self.wasm {
            Ok(wasm) => {
                let wasm = wasm.report().await;
                report.isolation.extend(wasm.isolation);
                let is_new = |runtime| wasm.runtimes.iter().all(|new| new.runtime != runtime);
                report.runtimes.retain(|known| is_new(known.runtime));
                report.runtimes.extend(wasm.runtimes);
            }
            Err(reason) => {
                let is_wasm = |runtime| runtime == Runtime::Wasm;
                for known in &mut report.runtimes {
                    if is_wasm(known.runtime) {
                        known.detail.clone_from(reason);
                    }
                }
            }
        }
        report
    }
}

impl Backend for Backends {
    fn name(&self) -> &'static str {
        self.main.name()
    }

    fn prepare(
        &self,
        package: Package,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Handler>>, PrepareError>> {
        match self.pick(package.spec.runtime) {
            Ok(backend) => backend.prepare(package),
            Err(reason) => {
                let reason = format!("function \"{}\": {reason}", package.spec.name);
                Box::pin(async { Err(PrepareError::Runtime(reason)) })
            }
        }
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(self.report_all())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Ok(wasm) = &self.wasm {
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
        interpreters: Interpreters {
            nodejs: config.nodejs.clone(),
            python3: config.python3.clone(),
            go: config.go.clone(),
        },
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

/// Containers that a reverse proxy in another container calls.
#[cfg(feature = "docker")]
pub(crate) fn elsewhere(containers: Arc<backend_docker::DockerBackend>) -> Arc<dyn Backend> {
    let reason = "WebAssembly functions run inside the reverse proxy, which has no code where it is \
                  a container of its own; use tinyfaas serve --backend docker";
    Arc::new(Backends {
        main: containers,
        wasm: Err(reason.to_owned()),
    })
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
    let instance = digest.iter().take(4).map(|byte| format!("{byte:02x}"));
    let options = backend_docker::Options {
        socket: backend_docker::default_socket(config.docker_host.as_deref())?,
        instance: instance.collect(),
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
