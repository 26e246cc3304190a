//! The container that this program runs in, where the management service is one, and its way to the
//! reverse proxy's container.

use crate::clean;
use crate::engine::{Engine, EngineError, explain, is_gone};
use crate::network;
use bollard::models::{
    ContainerInspectResponse, EndpointIpamConfig, EndpointSettings, NetworkConnectRequest,
    NetworkDisconnectRequest,
};
use bollard::query_parameters::{InspectContainerOptions, InspectNetworkOptions};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where the management service and the reverse proxy are on the control network, counted from
/// its first address, which is the engine's.
const MANAGEMENT_HOST: u32 = 2;
const PROXY_HOST: u32 = 3;

/// How long an engine lets a container stop where nothing else is said.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The container that this program runs in.
#[derive(Debug)]
pub struct Site {
    pub(crate) engine: Arc<Engine>,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) control: String,
    stop_timeout: Duration,
}

impl Site {
    /// Finds the container by its name, and sees that it is this one. `hostname` is this
    /// machine's.
    ///
    /// # Errors
    /// With what to do, where there is no engine, no such container, or it is another one.
    pub async fn find(socket: &Path, name: &str, hostname: &str) -> Result<Self, EngineError> {
        let engine = Engine::connect(socket, name.to_owned()).await?;
        let inspected = engine
            .docker
            .inspect_container(name, None::<InspectContainerOptions>);
        let found = match inspected.await {
            Ok(found) => found,
            Err(error) if is_gone(&error) => {
                return Err(EngineError(format!(
                    "there is no container called {name}: say its name twice, once to docker and \
                     once to tinyFaaS, such as docker run --name tinyfaas-mgmt … tinyfaas-mgmt \
                     tinyfaas-mgmt"
                )));
            }
            Err(error) => return Err(EngineError(format!("Docker: {}", explain(&error)))),
        };
        check(&found, name, hostname)?;
        let control = engine.name("control");
        let image = found.image.unwrap_or_default();
        let stop_timeout = found.config.and_then(|config| config.stop_timeout);
        let stop_timeout = stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            engine,
            name: name.to_owned(),
            image,
            control,
            stop_timeout: stop_timeout.map_or(STOP_TIMEOUT, Duration::from_secs),
        })
    }

    /// How long the engine lets this container stop before it kills it, unless `docker stop` names
    /// another time.
    #[must_use]
    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the control network where it is missing, and joins it. Says where this container is
    /// on it.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn join_control(&self) -> Result<Ipv4Addr, EngineError> {
        let docker = &self.engine.docker;
        if self.inspect_control().await?.is_none() {
            let labels = self.engine.labels_for("control");
            network::make(&self.engine, &self.control, true, labels).await?;
        }
        let addr = self.control_addr(MANAGEMENT_HOST).await?;
        let connected = docker
            .connect_network(&self.control, connect(&self.name, Some(addr)))
            .await;
        match connected {
            Ok(()) => Ok(addr),
            // It was killed and is started again.
            Err(error) if is_there_already(&error) => Ok(addr),
            Err(error) => Err(EngineError(format!(
                "this container can't join the network {}: {}",
                self.control,
                explain(&error)
            ))),
        }
    }

    /// Where the reverse proxy's container is on the control network.
    pub(crate) async fn proxy_addr(&self) -> Result<Ipv4Addr, EngineError> {
        self.control_addr(PROXY_HOST).await
    }

    /// Removes every container and network of this instance: this run's and those that an earlier
    /// one left, the reverse proxy's included. Volumes stay.
    ///
    /// # Errors
    /// If the engine refuses, or is away; the next start removes what is left.
    pub async fn clear(&self) -> Result<(), EngineError> {
        leave(&self.engine, &self.control, &self.name).await;
        clean::leftovers(&self.engine.docker, Some(&self.engine.instance)).await?;
        // The engine takes a moment to see that a container has left its network.
        network::remove(&self.engine, &self.control).await;
        network::remove(&self.engine, &self.front()).await;
        Ok(())
    }

    /// The reverse proxy's way to clients. The first of its networks by name has its published
    /// ports, so this name comes before those of functions that have a way out.
    pub(crate) fn front(&self) -> String {
        format!("0-{}", self.engine.name("front"))
    }

    async fn inspect_control(&self) -> Result<Option<Ipv4Addr>, EngineError> {
        let docker = &self.engine.docker;
        let inspected = docker.inspect_network(&self.control, None::<InspectNetworkOptions>);
        let found = match inspected.await {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(EngineError(format!("Docker: {}", explain(&error)))),
        };
        let subnets = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let subnet = subnets.into_iter().find_map(|config| config.subnet);
        let first = subnet
            .as_deref()
            .and_then(|subnet| subnet.split('/').next());
        let first = first.and_then(|first| first.parse().ok());
        first.map(Some).ok_or_else(|| {
            EngineError(format!(
                "the network {} has no IPv4 subnet; remove it: docker network rm {}",
                self.control, self.control
            ))
        })
    }

    async fn control_addr(&self, host: u32) -> Result<Ipv4Addr, EngineError> {
        let first = self.inspect_control().await?;
        let first = first
            .ok_or_else(|| EngineError(format!("the network {} was removed", self.control)))?;
        Ok(Ipv4Addr::from(u32::from(first) + host))
    }
}

fn check(found: &ContainerInspectResponse, name: &str, hostname: &str) -> Result<(), EngineError> {
    let config = found.config.as_ref();
    let its_hostname = config.and_then(|config| config.hostname.as_deref());
    if its_hostname != Some(hostname) {
        return Err(EngineError(format!(
            "the container {name} is another one than this, whose host name is {hostname}: give \
             tinyFaaS the name that docker run --name gave"
        )));
    }
    let host_config = found.host_config.as_ref();
    let mode = host_config.and_then(|config| config.network_mode.as_deref());
    if matches!(mode, Some("host" | "none")) {
        return Err(EngineError(format!(
            "the container {name} can't join networks; start it without --network {}",
            mode.unwrap_or_default()
        )));
    }
    Ok(())
}

/// Asks for a container to join a network, at an address or at any.
pub(crate) fn connect(container: &str, addr: Option<Ipv4Addr>) -> NetworkConnectRequest {
    let ipam = addr.map(|addr| EndpointIpamConfig {
        ipv4_address: Some(addr.to_string()),
        ..EndpointIpamConfig::default()
    });
    NetworkConnectRequest {
        container: container.to_owned(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: ipam,
            ..EndpointSettings::default()
        }),
    }
}

/// Whether a container is on the network that it was to join.
pub(crate) fn is_there_already(error: &bollard::errors::Error) -> bool {
    explain(error).contains("already exists in network")
}

/// Takes a container off a network, where both are there.
pub(crate) async fn leave(engine: &Engine, network: &str, container: &str) {
    let request = NetworkDisconnectRequest {
        container: container.to_owned(),
        force: Some(true),
    };
    if let Err(error) = engine.docker.disconnect_network(network, request).await {
        tracing::debug!(%error, network, "not left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, HostConfig};

    fn container(hostname: &str, mode: &str) -> ContainerInspectResponse {
        ContainerInspectResponse {
            config: Some(ContainerConfig {
                hostname: Some(hostname.to_owned()),
                ..ContainerConfig::default()
            }),
            host_config: Some(HostConfig {
                network_mode: Some(mode.to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_container_that_is_another_or_has_no_network_is_refused() {
        assert!(check(&container("abc", "default"), "mgmt", "abc").is_ok());
        let other = check(&container("abc", "default"), "mgmt", "def").unwrap_err();
        assert!(other.to_string().contains("--name"), "{other}");
        let host = check(&container("abc", "host"), "mgmt", "abc").unwrap_err();
        assert!(host.to_string().contains("--network host"), "{host}");
    }
}
