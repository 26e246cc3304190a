//! A node, put together and taken apart: where every part meets the others.

mod banner;
mod bind;
mod bundled;

use crate::cli::Serve;
use crate::config::{Config, obtain_token};
use crate::{backends, examples, telemetry};
use anyhow::{Context, Result};
use bind::{Addresses, Listeners};
use faas::{Backend, FunctionLimits, Limits, Proxy, Router};
use management::{EndpointUrl, Management};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long blocking work may take to end after everything else has.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Runs a node until a signal ends it.
///
/// # Errors
/// Where the settings are wrong, an address is taken, or this host can't isolate functions.
pub(crate) fn serve(args: Serve) -> Result<()> {
    telemetry::start(args.log_format);
    let variable = |name: &str| std::env::var(name).ok();
    let config = Config::load(args.settings, args.config.as_deref(), &variable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    raise_open_files();
    let result = runtime.block_on(run(&config, args.json));
    runtime.shutdown_timeout(LAST_WORK);
    result
}

/// Takes as many open files as the system grants: each connection needs one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

async fn run(config: &Config, is_json: bool) -> Result<()> {
    let mut signals = Signals::catch().context("catch signals")?;
    let node = Node::start(config).await?;
    if !is_json {
        banner::addresses(config, &node.addresses);
    }
    let examples = async {
        if config.has_examples {
            let tell = |outcome: &_| {
                if !is_json {
                    banner::example(outcome, &node.addresses);
                }
            };
            let (router, limits) = (&*node.router, &*node.limits);
            bundled::deploy(&node.management, (router, limits), config, tell).await;
        }
        if is_json {
            banner::json(&node.addresses);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = examples => {}
        () = signals.next() => {}
    }
    tokio::select! {
        () = node.stop() => Ok(()),
        // Handlers end with this process.
        () = signals.next() => std::process::exit(130),
    }
}

/// What asks this process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A running node.
struct Node {
    limits: Arc<Limits>,
    addresses: Addresses,
    backend: Arc<dyn Backend>,
    router: Arc<Router>,
    proxy: Arc<Proxy>,
    management: Management,
    /// The endpoints' tasks, which `accepting` ends.
    endpoints: TaskTracker,
    accepting: CancellationToken,
    /// The management service's task, which `managing` ends.
    service: TaskTracker,
    managing: CancellationToken,
}

impl Node {
    async fn start(config: &Config) -> Result<Self> {
        let limits = Arc::new(Limits::default());
        let listeners = Listeners::bind(config).await?;
        let addresses = listeners.addresses()?;
        let token = token(config, &addresses)?;
        let lock = bind::lock_data_dir(&config.data_dir)?;
        let backend = backends::start(config, &limits).await?;
        let router = Arc::new(Router::default());
        let proxy = Arc::new(Proxy::new(Arc::clone(&router), Arc::clone(&limits)));
        // The management service takes the lock itself.
        drop(lock);
        let management = Management::open(management::Options {
            data_dir: config.data_dir.clone(),
            handlers_dir: handlers_dir(config)?,
            limits: Arc::clone(&limits),
            function_limits: FunctionLimits::default(),
            token,
            endpoints: endpoint_urls(&addresses),
            backend: Arc::clone(&backend),
            router: Arc::clone(&router),
            version: env!("CARGO_PKG_VERSION"),
        })
        .await?;
        management.restore();
        let node = Self {
            limits,
            addresses,
            backend,
            router,
            proxy,
            management,
            endpoints: TaskTracker::new(),
            accepting: CancellationToken::new(),
            service: TaskTracker::new(),
            managing: CancellationToken::new(),
        };
        node.open(listeners);
        Ok(node)
    }

    /// Lets clients in.
    fn open(&self, listeners: Listeners) {
        let (proxy, accepting) = (&self.proxy, &self.accepting);
        if let Some(coap) = listeners.coap {
            let serving = coap.serve(Arc::clone(proxy), accepting.clone());
            let (accepting, drain) = (accepting.clone(), self.limits.drain);
            self.endpoints.spawn(async move {
                let cut = async {
                    accepting.cancelled().await;
                    tokio::time::sleep(drain).await;
                };
                tokio::select! {
                    () = serving => {}
                    () = cut => tracing::warn!("CoAP exchanges are cut"),
                }
            });
        }
        if let Some(http) = listeners.http {
            let serving = endpoints::http::serve(http, Arc::clone(proxy), accepting.clone());
            self.endpoints.spawn(serving);
        }
        #[cfg(feature = "grpc")]
        if let Some(grpc) = listeners.grpc {
            let serving = endpoints::grpc::serve(grpc, Arc::clone(proxy), accepting.clone());
            self.endpoints.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the gRPC endpoint ended; restart tinyfaas");
                }
            });
        }
        if let Some(listener) = listeners.management {
            let (management, managing) = (self.management.clone(), self.managing.clone());
            self.service.spawn(async move {
                if let Err(error) = management.serve(listener, managing).await {
                    tracing::error!(%error, "the management service ended; restart tinyfaas");
                }
            });
        }
        self.endpoints.close();
        self.service.close();
    }

    /// Lets calls in flight finish, bounded, then stops every handler and leaves nothing behind.
    async fn stop(&self) {
        tracing::info!("stopping; a second signal ends at once");
        let drain = self.limits.drain;
        self.accepting.cancel();
        let (left, ()) = tokio::join!(self.proxy.stop(drain), self.endpoints.wait());
        if left > 0 {
            tracing::warn!(calls = left, "calls were cut");
        }
        self.managing.cancel();
        self.management.stop(drain).await;
        self.service.wait().await;
        self.backend.shutdown().await;
        tracing::info!("stopped");
    }
}

/// The token that the management service asks for; none where only this machine reaches it.
fn token(config: &Config, addresses: &Addresses) -> Result<Option<String>> {
    let Some(addr) = addresses.management else {
        return Ok(None);
    };
    if config.is_management_insecure {
        tracing::warn!(
            %addr,
            "the management service asks for no token: whoever reaches it can run code here"
        );
        return Ok(None);
    }
    if addr.ip().is_loopback() && !config.is_token_wanted {
        return Ok(None);
    }
    obtain_token(&config.token_file).map(Some)
}

/// The folder of the original call `POST /`; the built-in one where the user has none.
fn handlers_dir(config: &Config) -> Result<PathBuf> {
    if config.handlers_dir.is_dir() {
        return Ok(config.handlers_dir.clone());
    }
    let dir = config.data_dir.join("handlers");
    examples::write_handlers(&dir)
        .with_context(|| format!("write the built-in handlers to {}", dir.display()))?;
    Ok(dir)
}

fn endpoint_urls(addresses: &Addresses) -> Vec<EndpointUrl> {
    let endpoints = addresses.endpoints();
    let on = endpoints
        .iter()
        .filter_map(|&(scheme, addr)| addr.map(|addr| EndpointUrl { scheme, addr }));
    on.collect()
}
