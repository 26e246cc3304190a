//! Removing what carries our label.

use crate::engine::{Engine, EngineError, FUNCTION_LABEL, ROLE_LABEL, explain, is_gone};
use crate::reverse_proxy::ReverseProxy;
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// How many of each were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Containers, running or not.
    pub containers: usize,
    /// Networks.
    pub networks: usize,
    /// Volumes.
    pub volumes: usize,
    /// Images.
    pub images: usize,
}

impl Cleaned {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} containers, {} networks, {} volumes, {} images",
            self.containers, self.networks, self.volumes, self.images
        )
    }
}

/// Removes every container, network, volume and image that carries our label, of every instance,
/// and nothing else.
///
/// # Errors
/// If there is no engine, or it refuses.
pub async fn clean(socket: &Path) -> Result<Cleaned, EngineError> {
    let engine = Engine::connect(socket, String::new()).await?;
    let docker = &engine.docker;
    let mut cleaned = leftovers(docker, None).await?;
    let filters = Engine::filter(None);
    let options = ListVolumesOptionsBuilder::default().filters(&filters);
    let found = docker
        .list_volumes(Some(options.build()))
        .await
        .map_err(told)?;
    for volume in found.volumes.unwrap_or_default() {
        let options = RemoveVolumeOptionsBuilder::default().build();
        let removed = docker.remove_volume(&volume.name, Some(options)).await;
        cleaned.volumes += count(removed)?;
    }
    let options = ListImagesOptionsBuilder::default()
        .all(true)
        .filters(&filters);
    for image in docker
        .list_images(Some(options.build()))
        .await
        .map_err(told)?
    {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        let removed = docker.remove_image(&image.id, Some(options), None).await;
        cleaned.images += count(removed.map(drop))?;
    }
    Ok(cleaned)
}

/// Removes containers and networks, which no run leaves but one that was killed; of one instance or
/// of all.
pub(crate) async fn leftovers(
    docker: &Docker,
    instance: Option<&str>,
) -> Result<Cleaned, EngineError> {
    remove(docker, list(docker, instance).await?).await
}

/// Something that an earlier run left.
#[derive(Debug)]
struct Left {
    id: String,
    /// A network's.
    name: String,
    /// What it belongs to, where that is a function.
    function: Option<String>,
    /// Whether it is made to outlive a run.
    has_role: bool,
}

#[derive(Debug, Default)]
struct Found {
    containers: Vec<Left>,
    networks: Vec<Left>,
}

async fn list(docker: &Docker, instance: Option<&str>) -> Result<Found, EngineError> {
    let left = |id: Option<String>, name: Option<String>, labels: Option<_>| {
        let mut labels: HashMap<String, String> = labels.unwrap_or_default();
        Left {
            id: id.unwrap_or_default(),
            name: name.unwrap_or_default(),
            function: labels.remove(FUNCTION_LABEL),
            has_role: labels.contains_key(ROLE_LABEL),
        }
    };
    let filters = Engine::filter(instance);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters);
    let containers = docker.list_containers(Some(options.build()));
    let containers = containers.await.map_err(told)?.into_iter();
    let options = ListNetworksOptionsBuilder::default().filters(&filters);
    let networks = docker.list_networks(Some(options.build()));
    let networks = networks.await.map_err(told)?.into_iter();
    Ok(Found {
        containers: containers.map(|it| left(it.id, None, it.labels)).collect(),
        networks: networks.map(|it| left(it.id, it.name, it.labels)).collect(),
    })
}

async fn remove(docker: &Docker, found: Found) -> Result<Cleaned, EngineError> {
    let mut cleaned = Cleaned::default();
    for container in found.containers {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        let removed = docker.remove_container(&container.id, Some(options.build()));
        cleaned.containers += count(removed.await)?;
    }
    for network in found.networks {
        cleaned.networks += count(docker.remove_network(&network.id).await)?;
    }
    Ok(cleaned)
}

/// What an earlier run left of functions that the reverse proxy may still be calling.
#[derive(Debug)]
pub struct Leftovers {
    engine: Arc<Engine>,
    proxy: Arc<ReverseProxy>,
    found: Found,
}

impl Leftovers {
    /// Finds what the earlier run left, and removes at once what nobody calls: all of it where the
    /// reverse proxy is new.
    pub(crate) async fn find(
        engine: &Arc<Engine>,
        proxy: &Arc<ReverseProxy>,
    ) -> Result<Self, EngineError> {
        let mut found = list(&engine.docker, Some(&engine.instance)).await?;
        for list in [&mut found.containers, &mut found.networks] {
            list.retain(|left| !left.has_role);
        }
        let mut leftovers = Self {
            engine: Arc::clone(engine),
            proxy: Arc::clone(proxy),
            found,
        };
        let is_called = |left: &Left| proxy.is_found() && left.function.is_some();
        leftovers.remove_unless(is_called).await?;
        Ok(leftovers)
    }

    /// The functions that something is left of.
    pub fn functions(&self) -> impl Iterator<Item = String> {
        let left = self.found.containers.iter().chain(&self.found.networks);
        left.filter_map(|left| left.function.clone())
    }

    /// Removes what belongs to these functions.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn remove(&mut self, functions: &HashSet<String>) -> Result<(), EngineError> {
        let is_called = |left: &Left| {
            let function = left.function.as_ref();
            function.is_some_and(|function| !functions.contains(function))
        };
        self.remove_unless(is_called).await
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.containers.is_empty() && self.found.networks.is_empty()
    }

    async fn remove_unless(
        &mut self,
        is_called: impl Fn(&Left) -> bool,
    ) -> Result<(), EngineError> {
        let going = |list: &mut Vec<Left>| list.extract_if(.., |left| !is_called(left)).collect();
        let found = Found {
            containers: going(&mut self.found.containers),
            networks: going(&mut self.found.networks),
        };
        for network in &found.networks {
            self.proxy.leave(&network.name).await;
        }
        let cleaned = remove(&self.engine.docker, found).await?;
        if !cleaned.is_empty() {
            tracing::info!(left = %cleaned, "removed what an earlier run left");
        }
        Ok(())
    }
}

fn count(removed: Result<(), Error>) -> Result<usize, EngineError> {
    match removed {
        Ok(()) => Ok(1),
        // Somebody was quicker, or it is going already.
        Err(error) if is_gone(&error) => Ok(0),
        Err(Error::DockerResponseServerError {
            status_code: 409,
            message,
        }) if message.contains("already in progress") => Ok(0),
        // A container that does not carry our label is on that network: a management service
        // that runs. It removes the network when it is stopped.
        Err(Error::DockerResponseServerError {
            status_code: 403,
            message,
        }) if message.contains("active endpoints") => Ok(0),
        // A container of a tinyFaaS that runs has it already again.
        Err(Error::DockerResponseServerError {
            status_code: 409,
            message,
        }) if message.contains("volume is in use") => Ok(0),
        Err(error) => Err(told(error)),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it takes the place of a closure"
)]
fn told(error: Error) -> EngineError {
    EngineError(format!("Docker: {}", explain(&error)))
}
