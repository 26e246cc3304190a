//! Removing what carries our label.

use crate::engine::{Engine, EngineError, FUNCTION_LABEL, ROLE_LABEL, explain, is_gone};
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

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
pub(crate) struct Left {
    id: String,
    /// A network's.
    pub(crate) name: String,
    /// What it belongs to, where that is a function.
    pub(crate) function: Option<String>,
    /// Whether it is made to outlive a run.
    pub(crate) has_role: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) containers: Vec<Left>,
    pub(crate) networks: Vec<Left>,
}

pub(crate) async fn list(docker: &Docker, instance: Option<&str>) -> Result<Found, EngineError> {
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

pub(crate) async fn remove(docker: &Docker, found: Found) -> Result<Cleaned, EngineError> {
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
