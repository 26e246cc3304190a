//! Removing what carries our label.

use crate::engine::{Engine, EngineError, explain, is_gone};
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};
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
/// Where there is no engine, or it refuses.
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
    let mut cleaned = Cleaned::default();
    let filters = Engine::filter(instance);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters);
    for container in docker
        .list_containers(Some(options.build()))
        .await
        .map_err(told)?
    {
        let id = container.id.unwrap_or_default();
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        let removed = docker.remove_container(&id, Some(options.build())).await;
        cleaned.containers += count(removed)?;
    }
    let options = ListNetworksOptionsBuilder::default().filters(&filters);
    for network in docker
        .list_networks(Some(options.build()))
        .await
        .map_err(told)?
    {
        let removed = docker.remove_network(&network.id.unwrap_or_default()).await;
        cleaned.networks += count(removed)?;
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
