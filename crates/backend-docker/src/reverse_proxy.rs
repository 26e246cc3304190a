//! The container of the reverse proxy: found or made, kept alive, and let onto every network that
//! has handlers.

use crate::container::describe;
use crate::engine::{Engine, EngineError, explain, is_gone};
use crate::network;
use crate::site::{Site, connect, is_there_already, leave};
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The variables that tell a reverse proxy where its management service is, and what to show there.
pub const CONTROL_VARIABLE: &str = "TINYFAAS_CONTROL";
/// See [`CONTROL_VARIABLE`].
pub const SECRET_VARIABLE: &str = "TINYFAAS_CONTROL_SECRET";

/// How long to wait before it is started again, where it had not run for longer than that.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The lines of its log that tell why it does not run.
const LAST_LINES: &str = "10";

/// A port of the reverse proxy: inside its container, and on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// `5683/udp` or the like.
    pub inside: &'static str,
    /// The machine's.
    pub port: u16,
}

/// What the container is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program and its words, in the image of the management service.
    pub command: Vec<String>,
    /// The ports that are published.
    pub ports: Vec<Published>,
    /// Settings as `NAME=VALUE`.
    pub envs: Vec<String>,
    /// Where the management service listens for it.
    pub control: std::net::SocketAddr,
    /// What a new container shows there.
    pub secret: String,
}

/// The container of the reverse proxy.
#[derive(Debug)]
pub struct ReverseProxy {
    engine: Arc<Engine>,
    /// The container's name.
    name: String,
    /// Its way to clients.
    front: String,
    control: String,
    control_addr: Ipv4Addr,
    image: String,
    plan: Plan,
    secret: String,
    /// Whether it was found running.
    is_found: bool,
    /// The networks of deployments. Held while the container is made.
    networks: Mutex<BTreeSet<String>>,
}

impl ReverseProxy {
    /// Finds the container that an earlier run started, where it still runs and is what is asked
    /// for now; else makes one.
    ///
    /// # Errors
    /// If the engine refuses, such as when a port is taken.
    pub async fn start(site: &Site, plan: Plan) -> Result<Arc<Self>, EngineError> {
        let name = format!("{}-rproxy", site.name);
        let found = inspect(&site.engine, &name).await?;
        let reusable = found.as_ref().and_then(|found| {
            let is_same = is_running(found) && is_planned(found, &site.image, &plan);
            let secret = variable(found, SECRET_VARIABLE)?;
            is_same.then(|| secret.to_owned())
        });
        let front = site.front();
        let mut joined = match (&reusable, &found) {
            (Some(_), Some(found)) => networks_of(found),
            _ => BTreeSet::new(),
        };
        joined.retain(|network| *network != front && *network != site.control);
        let proxy = Arc::new(Self {
            engine: Arc::clone(&site.engine),
            front,
            control: site.control.clone(),
            control_addr: site.proxy_addr().await?,
            image: site.image.clone(),
            secret: reusable.clone().unwrap_or_else(|| plan.secret.clone()),
            is_found: reusable.is_some(),
            name,
            plan,
            networks: Mutex::new(joined),
        });
        if !proxy.is_found {
            let networks = proxy.networks.lock().await;
            proxy.make(&networks).await?;
        }
        Ok(proxy)
    }

    /// What the container shows to the management service.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether it was found running, with what an earlier run gave it.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Starts the container again whenever it ends, until `shutdown`.
    pub async fn keep_alive(&self, shutdown: CancellationToken) {
        let keeping = async {
            loop {
                let since = Instant::now();
                let how = self.ended().await;
                tracing::warn!(
                    how,
                    container = self.name,
                    "the reverse proxy is started again"
                );
                tokio::time::sleep(RESTART_PAUSE.saturating_sub(since.elapsed())).await;
                let networks = self.networks.lock().await;
                if let Err(error) = self.make(&networks).await {
                    tracing::error!(%error, "the reverse proxy does not start; it is tried again");
                    drop(networks);
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
            }
        };
        shutdown.run_until_cancelled(keeping).await;
    }

    /// What it printed last.
    pub async fn last_lines(&self) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true);
        let options = options.tail(LAST_LINES).build();
        let mut logs = self.engine.docker.logs(&self.name, Some(options));
        let mut text = String::new();
        while let Some(Ok(piece)) = logs.next().await {
            if let LogOutput::StdErr { message } | LogOutput::StdOut { message } = piece {
                text.push_str(&String::from_utf8_lossy(&message));
            }
        }
        text.trim_end().to_owned()
    }

    /// Lets it onto a network, now and whenever it is restarted.
    pub(crate) async fn join(&self, network: &str) -> Result<(), EngineError> {
        let mut networks = self.networks.lock().await;
        networks.insert(network.to_owned());
        self.connect(network, None).await
    }

    pub(crate) async fn leave(&self, network: &str) {
        self.networks.lock().await.remove(network);
        leave(&self.engine, network, &self.name).await;
    }

    async fn connect(&self, network: &str, addr: Option<Ipv4Addr>) -> Result<(), EngineError> {
        let request = connect(&self.name, addr);
        match self.engine.docker.connect_network(network, request).await {
            Ok(()) => Ok(()),
            Err(error) if is_there_already(&error) => Ok(()),
            Err(error) => Err(EngineError(format!(
                "the reverse proxy can't join the network {network}: {}",
                explain(&error)
            ))),
        }
    }

    /// Makes the container, in place of one that ended.
    async fn make(&self, networks: &BTreeSet<String>) -> Result<(), EngineError> {
        let failed = |error: &bollard::errors::Error| {
            EngineError(format!(
                "the container {} of the reverse proxy could not be started: {}",
                self.name,
                explain(error)
            ))
        };
        self.remove_container().await?;
        let docker = &self.engine.docker;
        if !network::is_there(&self.engine, &self.front).await? {
            let labels = self.engine.labels_for("front");
            network::make(&self.engine, &self.front, false, labels).await?;
        }
        let options = CreateContainerOptionsBuilder::default().name(&self.name);
        let made = docker
            .create_container(Some(options.build()), self.body())
            .await;
        made.map_err(|error| failed(&error))?;
        self.connect(&self.control, Some(self.control_addr)).await?;
        for network in networks {
            // One that somebody removed has no handlers.
            if network::is_there(&self.engine, network).await? {
                self.connect(network, None).await?;
            }
        }
        let started = docker.start_container(&self.name, None::<StartContainerOptions>);
        started.await.map_err(|error| failed(&error))
    }

    async fn remove_container(&self) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        let removed = self
            .engine
            .docker
            .remove_container(&self.name, Some(options.build()));
        match removed.await {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(EngineError(format!("Docker: {}", explain(&error)))),
        }
    }

    /// Waits until it has ended. Says how.
    async fn ended(&self) -> String {
        let docker = &self.engine.docker;
        loop {
            let options = WaitContainerOptionsBuilder::default().condition("not-running");
            let mut waiting = Box::pin(docker.wait_container(&self.name, Some(options.build())));
            // Whatever it says, the look below tells.
            let _waited = waiting.next().await.is_some();
            match inspect(&self.engine, &self.name).await {
                Ok(Some(found)) if is_running(&found) => {}
                Ok(Some(found)) => {
                    return found
                        .state
                        .map_or_else(|| "it ended".to_owned(), |state| describe(&state).text);
                }
                Ok(None) => return "it was removed".to_owned(),
                Err(error) => tracing::debug!(%error, "the engine is away"),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    fn body(&self) -> ContainerCreateBody {
        let plan = &self.plan;
        let mut envs = plan.envs.clone();
        envs.push(format!("{CONTROL_VARIABLE}={}", plan.control));
        envs.push(format!("{SECRET_VARIABLE}={}", self.secret));
        let exposed = plan.ports.iter().map(|port| port.inside.to_owned());
        let bindings = plan.ports.iter().map(|published| {
            let binding = PortBinding {
                host_ip: None,
                host_port: Some(published.port.to_string()),
            };
            (published.inside.to_owned(), Some(vec![binding]))
        });
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(plan.command.clone()),
            cmd: Some(Vec::new()),
            env: Some(envs),
            labels: Some(self.engine.labels_for("reverse-proxy")),
            exposed_ports: Some(exposed.collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(bindings.collect::<HashMap<_, _>>()),
                network_mode: Some(self.front.clone()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

async fn inspect(
    engine: &Engine,
    name: &str,
) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let inspected = engine
        .docker
        .inspect_container(name, None::<InspectContainerOptions>);
    match inspected.await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(EngineError(format!("Docker: {}", explain(&error)))),
    }
}

fn is_running(found: &ContainerInspectResponse) -> bool {
    let state = found.state.as_ref();
    state.and_then(|state| state.running) == Some(true)
}

/// Whether a container is what is asked for: this image, these ports and settings, this management
/// service.
fn is_planned(found: &ContainerInspectResponse, image: &str, plan: &Plan) -> bool {
    let bindings = found
        .host_config
        .as_ref()
        .and_then(|config| config.port_bindings.as_ref());
    let has_port = |published: &Published| {
        let bound = bindings.and_then(|bindings| bindings.get(published.inside)?.as_ref());
        let port = published.port.to_string();
        bound.is_some_and(|bound| {
            bound
                .iter()
                .any(|binding| binding.host_port.as_deref() == Some(&port))
        })
    };
    found.image.as_deref() == Some(image)
        && bindings.map_or(0, HashMap::len) == plan.ports.len()
        && plan.ports.iter().all(has_port)
        && plan.envs.iter().all(|env| envs_of(found).contains(env))
        && variable(found, CONTROL_VARIABLE) == Some(&plan.control.to_string())
}

fn variable<'a>(found: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    let mut pairs = envs_of(found).iter().filter_map(|env| env.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

fn envs_of(found: &ContainerInspectResponse) -> &[String] {
    let config = found.config.as_ref();
    let envs = config.and_then(|config| config.env.as_ref());
    envs.map_or(&[], Vec::as_slice)
}

fn networks_of(found: &ContainerInspectResponse) -> BTreeSet<String> {
    let settings = found.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    networks.map_or_else(BTreeSet::new, |networks| networks.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ContainerConfig;

    #[test]
    fn a_proxy_of_another_image_port_setting_or_service_is_not_taken_over() {
        let plan = |port| Plan {
            command: Vec::new(),
            ports: vec![Published {
                inside: "5683/udp",
                port,
            }],
            envs: vec!["TINYFAAS_CORS=none".to_owned()],
            control: "10.208.0.2:7001".parse().unwrap(),
            secret: String::new(),
        };
        let binding = PortBinding {
            host_ip: None,
            host_port: Some("5683".to_owned()),
        };
        let found = ContainerInspectResponse {
            image: Some("sha256:1".to_owned()),
            config: Some(ContainerConfig {
                env: Some(vec![
                    "TINYFAAS_CORS=none".to_owned(),
                    format!("{CONTROL_VARIABLE}=10.208.0.2:7001"),
                ]),
                ..ContainerConfig::default()
            }),
            host_config: Some(HostConfig {
                port_bindings: Some(HashMap::from([(
                    "5683/udp".to_owned(),
                    Some(vec![binding]),
                )])),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        };
        assert!(is_planned(&found, "sha256:1", &plan(5683)));
        assert!(!is_planned(&found, "sha256:2", &plan(5683)));
        assert!(!is_planned(&found, "sha256:1", &plan(7000)));
        let mut open = plan(5683);
        open.envs = vec!["TINYFAAS_CORS=*".to_owned()];
        assert!(!is_planned(&found, "sha256:1", &open));
        let mut elsewhere = plan(5683);
        elsewhere.control = "10.208.2.2:7001".parse().unwrap();
        assert!(!is_planned(&found, "sha256:1", &elsewhere));
        assert!(!is_planned(
            &found,
            "sha256:1",
            &Plan {
                ports: vec![],
                ..plan(5683)
            }
        ));
    }
}
