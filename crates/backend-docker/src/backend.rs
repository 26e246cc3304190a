//! The backend: from a package to handlers in containers.

use crate::clean;
use crate::deployment_network::Network;
use crate::engine::{Engine, EngineError};
use crate::handler::Template;
use crate::image::{self, Images};
use crate::leftovers::Leftovers;
use crate::reverse_proxy::ReverseProxy;
use crate::stock::Stock;
use faas::{
    Backend, BackendReport, BoxFuture, Exposure, Handlers, Isolation, Limits, Package,
    PrepareError, Runtime, RuntimeReport,
};
use handler_protocol::{Caller, Direct, Group, Launch};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Which engine, and what is started there.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// What tells our things from those of another tinyFaaS on the same engine.
    pub instance: String,
    /// What handlers are started from.
    pub images: Images,
    /// This program, for the shim of the binary runtime. To run in any image it must be linked
    /// statically.
    pub program: PathBuf,
    /// The bounds of this node.
    pub limits: Arc<Limits>,
    /// Who calls the handlers, where it is not this process.
    pub elsewhere: Option<Elsewhere>,
}

/// A reverse proxy in a container of its own.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The container.
    pub proxy: Arc<ReverseProxy>,
    /// The way to it.
    pub caller: Arc<dyn Caller>,
}

/// How long the engine may take to remove the last containers and networks.
const LAST_REMOVALS: Duration = Duration::from_secs(15);

/// Runs handlers as containers.
#[derive(Debug)]
pub struct DockerBackend {
    engine: Arc<Engine>,
    images: Images,
    stock: Arc<Stock>,
    caller: Arc<dyn Caller>,
    proxy: Option<Arc<ReverseProxy>>,
    /// What an earlier run left and the reverse proxy may be calling.
    leftovers: std::sync::Mutex<Option<Leftovers>>,
}

impl DockerBackend {
    /// Connects to the engine and removes what an earlier run of this instance left there.
    ///
    /// # Errors
    /// If there is no engine, or it may not be used.
    pub async fn start(options: Options) -> Result<Arc<Self>, EngineError> {
        let engine = Engine::connect(&options.socket, options.instance).await?;
        if !engine.takes_profiles {
            tracing::warn!(
                "the engine takes no seccomp profile: a build can take all the free space of its \
                 disk at once; use Docker 20.10.10 or later, with seccomp"
            );
        }
        let (caller, proxy, leftovers): (Arc<dyn Caller>, _, _) = match options.elsewhere {
            Some(Elsewhere { proxy, caller }) => {
                let leftovers = Leftovers::find(&engine, &proxy).await?;
                (caller, Some(proxy), Some(leftovers))
            }
            None => {
                let left = clean::leftovers(&engine.docker, Some(&engine.instance)).await?;
                if !left.is_empty() {
                    tracing::info!(%left, "removed what an earlier run left");
                }
                let direct = Direct {
                    limits: Arc::clone(&options.limits),
                    tracker: engine.tracker.clone(),
                };
                (Arc::new(direct), None, None)
            }
        };
        let stock = Stock::new(&engine, options.program, options.limits);
        Ok(Arc::new(Self {
            engine,
            images: options.images,
            stock: Arc::new(stock),
            caller,
            proxy,
            leftovers: std::sync::Mutex::new(leftovers),
        }))
    }

    /// What an earlier run left and the reverse proxy may still be calling; to be taken once, and
    /// removed as its functions come back.
    #[must_use]
    pub fn leftovers(&self) -> Option<Leftovers> {
        let mut leftovers = self
            .leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        leftovers.take()
    }

    async fn prepare_package(&self, package: Package) -> Result<Handlers, PrepareError> {
        package.check_code()?;
        let network = &package.spec.network;
        if network.is_host() || !network.host_ports().is_empty() {
            return Err(PrepareError::code(
                "containers have neither the host's network nor ports of its loopback",
                "leave host_network and host_ports out, or run tinyFaaS with --backend process",
            ));
        }
        let image = self.images.of(package.spec.runtime);
        let image = image::ensure(&self.engine, image, &package).await?;
        // Until what it built has said hello, so that nothing of a build is on its way any more.
        let _exposed = self.stock.exposed_by(&package, &image)?;
        let what = package.spec.name.as_str();
        let proxy = self.proxy.clone();
        let network = Network::create(&self.engine, what, package.spec.network.is_on(), proxy);
        let (network, volumes) = tokio::join!(network, self.stock.volumes_of(&package, &image));
        let volumes = volumes?;
        let code = Arc::clone(&volumes.code);
        let template = Template::new(
            Arc::clone(&self.engine),
            Arc::clone(&self.stock),
            (package, image),
            (volumes, network?),
        );
        let started = self.start_handlers(&Arc::new(template)).await;
        started.map_err(|error| builds::with_notes(error, &code.notes))
    }

    async fn start_handlers(&self, template: &Arc<Template>) -> Result<Handlers, PrepareError> {
        let spec = &template.package.spec;
        let ids = (0..spec.handlers).map(|_| self.engine.id(spec.name.as_str()).into());
        let group = Group {
            terms: spec.terms(),
            ids: ids.collect(),
            log: Arc::clone(&template.package.log),
            launch: Arc::clone(template) as Arc<dyn Launch>,
        };
        self.caller.start(group).await
    }

    async fn report_on(&self) -> BackendReport {
        let docker = &self.engine.docker;
        let version = docker.version().await.ok().and_then(|found| found.version);
        let version = version.unwrap_or_else(|| "of an unknown version".to_owned());
        let mut runtimes = Vec::new();
        for runtime in [
            Runtime::Nodejs,
            Runtime::Python3,
            Runtime::Go,
            Runtime::Binary,
        ] {
            let image = self.images.of(runtime);
            let is_here = docker.inspect_image(image).await.is_ok();
            runtimes.push(RuntimeReport {
                runtime,
                version: Some(image.to_owned()),
                detail: if is_here {
                    "the image is here".to_owned()
                } else {
                    "the image is pulled with the first deployment".to_owned()
                },
            });
        }
        BackendReport {
            backend: "docker",
            isolation: vec![Isolation {
                name: "containers",
                is_on: true,
                detail: format!(
                    "Docker {version}: no capabilities, read-only, limits, a network for each \
                     function"
                ),
            }],
            runtimes,
        }
    }
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prepare(&self, package: Package) -> BoxFuture<'_, Result<Handlers, PrepareError>> {
        Box::pin(self.prepare_package(package))
    }

    fn exposure(&self) -> Option<Arc<Exposure>> {
        // As a container the management service is called through a port of the machine, which every
        // network with a way out reaches. Nobody can tell who called.
        let is_container = self.proxy.is_some();
        is_container.then(|| self.stock.exposure())
    }

    fn report(&self) -> BoxFuture<'_, BackendReport> {
        Box::pin(self.report_on())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.engine.tracker.close();
            let ended = tokio::time::timeout(LAST_REMOVALS, self.engine.tracker.wait());
            if ended.await.is_err() {
                tracing::warn!("the engine did not remove every container; run: tinyfaas clean");
            }
        })
    }
}
