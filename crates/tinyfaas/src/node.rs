//! A node, put together and taken apart: where every part meets the others.

mod banner;
mod bind;
mod bundled;
mod files;
mod front;
mod memory;
#[cfg(feature = "docker")]
mod split;

#[cfg(feature = "docker")]
pub(crate) use split::{management_service, reverse_proxy};

use crate::cli::Serve;
use crate::config::{Config, check_variables, obtain_token};
use crate::{backends, examples, telemetry};
use anyhow::{Context, Result};
use auth::Token;
use bind::{Addresses, Listeners};
use faas::{Backend, FunctionLimits, Limits, Reserve, Router};
use front::Front;
use management::{EndpointUrl, Management};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long blocking work may take to end after everything else has.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Runs a node until a signal ends it.
///
/// # Errors
/// If the settings are wrong, an address is taken, or this host can't isolate functions.
pub(crate) fn serve(args: &Serve) -> Result<()> {
    telemetry::start(args.log_format);
    let variable = |name: &str| std::env::var(name).ok();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    check_variables(names)?;
    let config = Config::load(&args.settings, args.config.as_deref(), &variable)?;
    config.check(&files::limits(&config.limits))?;
    on_event_loop(|reserve| run(&config, args.json, reserve))
}

/// Runs a node on an event loop of half the cores, and on all where the reserve is called.
fn on_event_loop<F: Future<Output = Result<()>>>(
    run: impl FnOnce(Arc<Reserve>) -> F,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    files::raise();
    let reserve = Called::hold_back(&runtime);
    let result = runtime.block_on(run(Arc::clone(&reserve.0)));
    drop(reserve);
    runtime.shutdown_timeout(LAST_WORK);
    result
}

/// A reserve of the event loop, which is called in the end: its threads are waited for.
struct Called(Arc<Reserve>);

impl Called {
    /// Holds half of the threads back, of which there is one for each core.
    ///
    /// Nothing else has run on them yet, so that nothing waits for one that is held.
    fn hold_back(runtime: &Runtime) -> Self {
        let reserve = Arc::new(Reserve::default());
        let threads = runtime.metrics().num_workers();
        for _ in threads.div_ceil(2)..threads {
            let reserve = Arc::clone(&reserve);
            runtime.spawn(async move { reserve.wait() });
        }
        Self(reserve)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.0.call();
    }
}

async fn run(config: &Config, is_json: bool, reserve: Arc<Reserve>) -> Result<()> {
    let mut signals = Signals::catch().context("catch signals")?;
    let node = Node::start(config, &reserve).await?;
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
        () = memory::give_back() => {}
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
    front: Front,
    management: Management,
    /// The management service's task, which `managing` ends.
    service: TaskTracker,
    managing: CancellationToken,
}

impl Node {
    async fn start(config: &Config, reserve: &Arc<Reserve>) -> Result<Self> {
        let limits = Arc::new(files::limits(&config.limits));
        let listeners = Listeners::bind(config).await?;
        let addresses = listeners.addresses()?;
        let lock = management::claim_data_dir(&config.data_dir)?;
        let backend = backends::start(config, &limits, reserve).await?;
        // The management service takes the lock itself.
        drop(lock);
        Self::assemble(config, limits, (listeners, addresses), (backend, reserve)).await
    }

    /// Puts a node together around a backend. The addresses are those that users are told.
    async fn assemble(
        config: &Config,
        limits: Arc<Limits>,
        (mut listeners, addresses): (Listeners, Addresses),
        (backend, reserve): (Arc<dyn Backend>, &Arc<Reserve>),
    ) -> Result<Self> {
        let (token, is_token_always) = token(config, &addresses)?;
        let router = Arc::new(Router::default());
        let management = Management::open(management::Options {
            data_dir: config.data_dir.clone(),
            handlers_dir: handlers_dir(config)?,
            limits: Arc::clone(&limits),
            function_limits: FunctionLimits::default(),
            token,
            is_token_always,
            endpoints: endpoint_urls(&addresses),
            backend: Arc::clone(&backend),
            router: Arc::clone(&router),
            version: env!("CARGO_PKG_VERSION"),
        })
        .await?;
        management.restore();
        let service = TaskTracker::new();
        let managing = CancellationToken::new();
        if let Some(listener) = listeners.management.take() {
            let (management, managing) = (management.clone(), managing.clone());
            service.spawn(async move {
                if let Err(error) = management.serve(listener, managing).await {
                    tracing::error!(%error, "the management service ended; restart tinyfaas");
                }
            });
        }
        if addresses.management.is_some() {
            let (management, managing) = (management.clone(), managing.clone());
            service.spawn(async move {
                if let Err(error) = management.serve_owner(managing).await {
                    tracing::warn!(
                        %error,
                        "the management service has no socket in the data directory; over TCP it \
                         wants the token"
                    );
                }
            });
        }
        service.close();
        Ok(Self {
            front: Front::open(listeners, config, (&router, &limits), reserve),
            limits,
            addresses,
            backend,
            router,
            management,
            service,
            managing,
        })
    }

    /// Lets calls in flight finish, bounded, then stops every handler and leaves nothing behind.
    async fn stop(&self) {
        tracing::info!("stopping; a second signal ends at once");
        self.front.stop().await;
        self.managing.cancel();
        self.management.stop(self.limits.drain).await;
        self.service.wait().await;
        self.backend.shutdown().await;
        tracing::info!("stopped");
    }
}

/// The token that the management service asks for over TCP, and whether every call needs it.
fn token(config: &Config, addresses: &Addresses) -> Result<(Option<Token>, bool)> {
    let Some(addr) = addresses.management else {
        return Ok((None, false));
    };
    if config.is_management_insecure {
        tracing::warn!(
            %addr,
            "the management service asks for no token: whoever reaches it can run code here"
        );
        return Ok((None, false));
    }
    let is_open = addr.ip().is_loopback() || config.is_original_open;
    let is_always = !is_open || config.is_token_wanted;
    match obtain_token(&config.token_file) {
        Ok(token) => Ok((Some(Token::new(&token)), is_always)),
        Err(error) if !is_always && is_unwritable(&error) => {
            tracing::warn!(
                "{error:#}; calls under /v1 are taken through the socket in the data directory only"
            );
            Ok((Some(Token::new(&Token::random()?)), false))
        }
        Err(error) => Err(error),
    }
}

/// Whether the disk, not what is on it, is why there is no token: what is deployed is served all
/// the same.
fn is_unwritable(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};

    let cause = error.downcast_ref::<std::io::Error>();
    let kind = cause.map(std::io::Error::kind);
    [ReadOnlyFilesystem, StorageFull, QuotaExceeded]
        .iter()
        .any(|full| kind == Some(*full))
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
