//! The original's set-up: the management service in one container, which starts the reverse proxy
//! in another, and each handler in one of its own.

use super::bind::{Addresses, Listeners};
use super::files;
use super::front::Front;
use super::{Node, Signals, banner, on_event_loop};
use crate::backends;
use crate::cli::Mgmt;
use crate::config::{BackendName, Config, Flags, Host, Place, check_variables};
use crate::telemetry::{self, LogFormat};
use anyhow::{Context, Result, bail};
use auth::Token;
use backend_docker::{
    CONTROL_VARIABLE, DockerBackend, Elsewhere, Leftovers, Plan, Published, ReverseProxy,
    SECRET_VARIABLE, Site,
};
use control::{Admission, ManagementEnd};
use faas::{Limits, Reserve, Router};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the management service listens, in its container.
const MANAGEMENT_PORT: u16 = 8080;

/// Where it listens for the reverse proxy, on a network that has only these two.
const CONTROL_PORT: u16 = 7001;

/// Where the reverse proxy listens, in its container.
const COAP_PORT: u16 = 5683;
const HTTP_PORT: u16 = 8000;
const GRPC_PORT: u16 = 9000;

/// How long a reverse proxy may take to start.
const PROXY_START: Duration = Duration::from_secs(30);

/// How long calls may finish when the set-up is stopped: `docker stop` gives 10 s for everything.
const DRAIN: Duration = Duration::from_secs(4);

/// How long everything else may take then.
const REMOVAL: Duration = Duration::from_secs(4);

/// An address that is nowhere (RFC 5737): the way to it is the way to everywhere.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Runs the management service until a signal ends it.
///
/// # Errors
/// If the settings are wrong, this is not the container of that name, there is no engine, or a port is
/// taken.
pub(crate) fn management_service(args: &Mgmt) -> Result<()> {
    telemetry::start(args.log_format);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    check_variables(names)?;
    let mut config = load()?;
    config.backend = BackendName::Docker;
    config.check(&files::limits(&config.limits))?;
    config.management = Place::everywhere(MANAGEMENT_PORT);
    config.is_original_open = !config.is_token_wanted;
    if let Some(port) = args.port {
        config.coap = Place::everywhere(port);
    }
    on_event_loop(|reserve| manage(&config, &args.name, reserve))
}

/// Runs the reverse proxy until a signal ends it.
///
/// # Errors
/// If no management service started this container.
pub(crate) fn reverse_proxy(log_format: LogFormat) -> Result<()> {
    telemetry::start(log_format);
    let variable = |name: &str| {
        let told = std::env::var(name);
        told.with_context(|| format!("{name} is not set; tinyfaas mgmt starts the reverse proxy"))
    };
    let control = variable(CONTROL_VARIABLE)?.parse();
    let control = control.with_context(|| format!("{CONTROL_VARIABLE} is no address"))?;
    let secret = variable(SECRET_VARIABLE)?;
    let mut config = load()?;
    config.management = Place::Off;
    // Its networks with handlers are none of its clients'.
    let front = front_addr().context("find the address that this container is called at")?;
    for place in [&mut config.coap, &mut config.http, &mut config.grpc] {
        if let Place::At { host, .. } = place {
            *host = Host::Named(front.to_string());
        }
    }
    on_event_loop(|reserve| proxy(&config, control, secret, reserve))
}

fn load() -> Result<Config> {
    Config::load(&Flags::default(), None, &|name| std::env::var(name).ok())
}

/// This machine's address on the network that has its default route.
fn front_addr() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Sends nothing.
    socket.connect(ELSEWHERE)?;
    Ok(socket.local_addr()?.ip())
}

async fn proxy(
    config: &Config,
    addr: SocketAddr,
    secret: String,
    reserve: Arc<Reserve>,
) -> Result<()> {
    let mut signals = Signals::catch().context("catch signals")?;
    let limits = Arc::new(Limits {
        drain: DRAIN,
        ..files::limits(&config.limits)
    });
    let router = Arc::new(Router::default());
    let listeners = Listeners::bind(config).await?;
    let front = Front::open(listeners, config, (&router, &limits), &reserve);
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let admission = Admission::default();
    let followed = control::Followed {
        addr,
        secret,
        router,
        limits,
        tracker: tracker.clone(),
        admission: admission.clone(),
    };
    let mut following = tracker.spawn(control::follow(followed, shutdown.clone()));
    let is_closed_by_management = tokio::select! {
        () = signals.next() => false,
        () = admission.closing() => true,
    };
    let closing = async {
        front.stop().await;
        admission.set_closed();
        // Its calls went on as long as it has handlers; the management service ends it.
        if !is_closed_by_management {
            return;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = closing => {}
        () = signals.next() => {}
        _ = &mut following => {}
    }
    // The handlers' connections end with this process, and so do they.
    shutdown.cancel();
    Ok(())
}

async fn manage(config: &Config, name: &str, reserve: Arc<Reserve>) -> Result<()> {
    let mut signals = Signals::catch().context("catch signals")?;
    let limits = Arc::new(Limits {
        drain: DRAIN,
        ..files::limits(&config.limits)
    });
    let (site, socket) = find_site(config, name).await?;
    let started = tokio::select! {
        started = start(config, (&site, socket), &limits, &reserve) => started.map(Some),
        () = signals.next() => Ok(None),
    };
    let Some((split, node)) = left_clear(&site, started).await? else {
        return Ok(());
    };
    // Before there is a table, so that none is missed.
    split.remove_leftovers(&node.router);
    split.end.follow(&node.router);
    if !config.is_token_wanted {
        tracing::warn!(
            "whoever reaches port {MANAGEMENT_PORT} of this container can run code here: publish it \
             to this machine only (-p 127.0.0.1:5000:{MANAGEMENT_PORT}), or set TINYFAAS_TOKEN_FILE"
        );
    }
    banner::addresses(config, &node.addresses);
    signals.next().await;
    let stopping = async {
        // Before its handlers go, so that what was accepted is done.
        split.close(site.stop_timeout()).await;
        node.stop().await;
        split.stop().await;
        clear(&site).await;
    };
    tokio::select! {
        () = stopping => Ok(()),
        () = signals.next() => bail!("ended before everything was removed; run: tinyfaas clean"),
    }
}

/// This container, and the engine's socket.
async fn find_site(config: &Config, name: &str) -> Result<(Site, PathBuf)> {
    let socket = backend_docker::default_socket(config.docker_host.as_deref())?;
    if !socket.exists() {
        let shown = socket.display();
        bail!("{shown} is not here; start this container with -v {shown}:{shown}");
    }
    let system = rustix::system::uname();
    let hostname = system.nodename().to_string_lossy();
    let site = Site::find(&socket, name, &hostname).await?;
    Ok((site, socket))
}

async fn start(
    config: &Config,
    (site, socket): (&Site, PathBuf),
    limits: &Arc<Limits>,
    reserve: &Arc<Reserve>,
) -> Result<(Split, Node)> {
    let split = Split::start(config, site, socket, limits).await?;
    match split.node(config, Arc::clone(limits), reserve).await {
        Ok(node) => Ok((split, node)),
        Err(error) => {
            split.stop().await;
            Err(error)
        }
    }
}

/// What was started. Where a start failed or was broken off, nothing is left of it, nor of what an
/// earlier run left.
async fn left_clear<T>(site: &Site, started: Result<Option<T>>) -> Result<Option<T>> {
    if !matches!(started, Ok(Some(_))) {
        clear(site).await;
    }
    started
}

async fn clear(site: &Site) {
    if let Err(error) = site.clear().await {
        // The engine went, perhaps for a moment: the next start removes what is left.
        tracing::warn!(%error, "not everything is removed; run: tinyfaas clean");
    }
}

/// The reverse proxy's container and the way to it.
struct Split {
    end: ManagementEnd,
    backend: Arc<DockerBackend>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Split {
    async fn start(
        config: &Config,
        site: &Site,
        socket: PathBuf,
        limits: &Arc<Limits>,
    ) -> Result<Self> {
        let control = SocketAddr::from((site.join_control().await?, CONTROL_PORT));
        let listener = TcpListener::bind(control);
        let listener = listener.await.context("listen for the reverse proxy")?;
        let proxy = ReverseProxy::start(site, plan(config, control)?).await?;
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let end = ManagementEnd::start(control::Options {
            listener,
            secret: proxy.secret().to_owned(),
            limits: Arc::clone(limits),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        });
        if tokio::time::timeout(PROXY_START, end.connected())
            .await
            .is_err()
        {
            let said = proxy.last_lines().await;
            bail!("the reverse proxy does not start; it said: {said}");
        }
        let backend = DockerBackend::start(backend_docker::Options {
            socket,
            instance: site.name().to_owned(),
            images: backends::images(config),
            program: "/proc/self/exe".into(),
            limits: Arc::clone(limits),
            elsewhere: Some(Elsewhere {
                proxy: Arc::clone(&proxy),
                caller: Arc::new(end.clone()),
            }),
        })
        .await?;
        let (kept, ending) = (Arc::clone(&proxy), shutdown.clone());
        tracker.spawn(async move { kept.keep_alive(ending).await });
        Ok(Self {
            end,
            backend,
            tracker,
            shutdown,
        })
    }

    /// The node behind the reverse proxy: it has no endpoints, and tells those of the proxy.
    async fn node(
        &self,
        config: &Config,
        limits: Arc<Limits>,
        reserve: &Arc<Reserve>,
    ) -> Result<Node> {
        let own = Config {
            coap: Place::Off,
            http: Place::Off,
            grpc: Place::Off,
            ..config.clone()
        };
        let listeners = Listeners::bind(&own).await?;
        let at = |place: &Place| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(place)?)));
        let addresses = Addresses {
            coap: at(&config.coap),
            http: at(&config.http),
            grpc: at(&config.grpc),
            ..listeners.addresses()?
        };
        // Before a token or the bundled functions are written there.
        drop(management::claim_data_dir(&config.data_dir)?);
        let backend = backends::elsewhere(Arc::clone(&self.backend));
        Node::assemble(&own, limits, (listeners, addresses), (backend, reserve)).await
    }

    /// Removes what an earlier run left, each function's as soon as its successor serves.
    fn remove_leftovers(&self, router: &Arc<Router>) {
        let Some(leftovers) = self.backend.leftovers() else {
            return;
        };
        let removing = remove_leftovers(leftovers, Arc::clone(router), self.end.clone());
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            shutdown.run_until_cancelled(removing).await;
        });
    }

    /// Has the reverse proxy finish the calls that it took, as far as the time until the engine kills
    /// this container allows.
    async fn close(&self, timeout: Duration) {
        let patience = timeout.saturating_sub(REMOVAL).max(DRAIN);
        if !self.end.close(patience).await {
            tracing::warn!(
                seconds = patience.as_secs(),
                "not every call was finished; give docker stop longer (docker run --stop-timeout)"
            );
        }
    }

    async fn stop(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

async fn remove_leftovers(mut leftovers: Leftovers, router: Arc<Router>, end: ManagementEnd) {
    let mut applied = end.applied();
    while !leftovers.is_empty() {
        // The sender lives as long as the end.
        drop(applied.changed().await);
        let is_settled = |function: &String| {
            let route = router.find(function);
            route.is_none_or(|route| route.deployment().is_some())
        };
        let settled: HashSet<_> = leftovers.functions().filter(is_settled).collect();
        if settled.is_empty() {
            continue;
        }
        // The proxy has their successors, and lets the calls that are in the old ones finish.
        router.applied().await;
        tokio::time::sleep(Limits::default().drain).await;
        if let Err(error) = leftovers.remove(&settled).await {
            tracing::warn!(%error, "what an earlier run left stays; run: tinyfaas clean");
            return;
        }
    }
}

/// What the reverse proxy's container is to be.
fn plan(config: &Config, control: SocketAddr) -> Result<Plan> {
    let program = std::env::current_exe().context("find this program")?;
    let mut ports = Vec::new();
    let mut envs = Vec::new();
    for (variable, place, inside, own) in [
        ("TINYFAAS_COAP", &config.coap, "5683/udp", COAP_PORT),
        ("TINYFAAS_HTTP", &config.http, "8000/tcp", HTTP_PORT),
        ("TINYFAAS_GRPC", &config.grpc, "9000/tcp", GRPC_PORT),
    ] {
        match port(place) {
            Some(port) => {
                ports.push(Published { inside, port });
                envs.push(format!("{variable}={own}"));
            }
            None => envs.push(format!("{variable}=off")),
        }
    }
    // Empty ones too: a proxy that has others is not taken over.
    let cors = config.cors.as_ref().map(ToString::to_string);
    envs.push(format!("TINYFAAS_CORS={}", cors.unwrap_or_default()));
    envs.push(format!(
        "TINYFAAS_HTTP_HOSTS={}",
        config.http_hosts.join(",")
    ));
    for passed in ["TINYFAAS_LOG", "TINYFAAS_LOG_FORMAT"] {
        if let Ok(value) = std::env::var(passed) {
            envs.push(format!("{passed}={value}"));
        }
    }
    let limits = config.limits_that_are_set().unwrap_or_default();
    envs.push(format!("TINYFAAS_LIMIT={limits}"));
    Ok(Plan {
        command: vec![program.display().to_string(), "reverse-proxy".to_owned()],
        ports,
        envs,
        control,
        secret: Token::random()?,
    })
}

fn port(place: &Place) -> Option<u16> {
    match place {
        Place::Off => None,
        Place::At { port, .. } => Some(*port),
    }
}
