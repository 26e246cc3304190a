//! Networks: one for each deployment, and those of the reverse proxy.

use crate::engine::{Engine, EngineError, REMOVAL_PAUSE, REMOVALS, explain, is_gone};
use crate::reverse_proxy::ReverseProxy;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;
use faas::PrepareError;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The networks' addresses: 10.208.0.0/12 in blocks of 512, so that a function may have as many
/// handlers as there can be. The engine's own pools have 31 networks in all.
const FIRST: u32 = u32::from_be_bytes([10, 208, 0, 0]);
const BLOCK_BITS: u32 = 9;
const BLOCKS: u32 = 1 << (20 - BLOCK_BITS);

/// Blocks that others have are stepped over, so many at most.
const ATTEMPTS: u32 = 64;

/// Where an instance begins: another on this machine, with another engine, most likely elsewhere.
/// An engine knows only its own networks.
pub(crate) fn first_block(instance: &str) -> AtomicU32 {
    let digest = Sha256::digest(instance);
    AtomicU32::new(u32::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3],
    ]))
}

/// The network of a deployment; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Network {
    engine: Arc<Engine>,
    pub(crate) name: String,
    function: String,
    is_open: bool,
    /// Who calls the handlers on it, where that is another container.
    proxy: Option<Arc<ReverseProxy>>,
}

impl Network {
    /// Makes a network, with a way out or without, and lets the reverse proxy onto it.
    pub(crate) async fn create(
        engine: &Arc<Engine>,
        function: &str,
        is_open: bool,
        proxy: Option<Arc<ReverseProxy>>,
    ) -> Result<Self, PrepareError> {
        let failed = |error: EngineError| {
            PrepareError::Host(format!(
                "the network of the function could not be made: {error}"
            ))
        };
        let name = engine.unique(function);
        let labels = engine.labels_of(function);
        make(engine, &name, !is_open, labels)
            .await
            .map_err(failed)?;
        let network = Self {
            engine: Arc::clone(engine),
            name,
            function: function.to_owned(),
            is_open,
            proxy,
        };
        if let Some(proxy) = &network.proxy {
            proxy.join(&network.name).await.map_err(failed)?;
        }
        Ok(network)
    }

    /// Makes it again where somebody has removed it.
    pub(crate) async fn restore(&self) -> Result<(), PrepareError> {
        let restoring = async {
            if is_there(&self.engine, &self.name).await? {
                return Ok(());
            }
            let labels = self.engine.labels_of(&self.function);
            make(&self.engine, &self.name, !self.is_open, labels).await?;
            match &self.proxy {
                Some(proxy) => proxy.join(&self.name).await,
                None => Ok(()),
            }
        };
        restoring.await.map_err(|error: EngineError| {
            PrepareError::Host(format!(
                "the network of the function could not be made again: {error}"
            ))
        })
    }
}

/// Whether the engine has a network of that name; it would make any number of them.
pub(crate) async fn is_there(engine: &Engine, name: &str) -> Result<bool, EngineError> {
    match engine
        .docker
        .inspect_network(name, None::<InspectNetworkOptions>)
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(EngineError(format!("Docker: {}", explain(&error)))),
    }
}

/// Makes a network with a subnet that nothing else on this engine has.
pub(crate) async fn make(
    engine: &Engine,
    name: &str,
    is_internal: bool,
    labels: HashMap<String, String>,
) -> Result<(), EngineError> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let block = engine.next_block.fetch_add(1, Ordering::Relaxed) % BLOCKS;
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(is_internal),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet(block)),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        match engine.docker.create_network(request).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                last = explain(&error);
                if !last.to_lowercase().contains("overlap") {
                    break;
                }
            }
        }
    }
    Err(EngineError(last))
}

/// Removes a network, in a while: a container on it may just be going.
pub(crate) async fn remove(engine: &Engine, name: &str) {
    for _ in 0..REMOVALS {
        match engine.docker.remove_network(name).await {
            Ok(()) => return,
            Err(error) if is_gone(&error) => return,
            Err(_in_use) => tokio::time::sleep(REMOVAL_PAUSE).await,
        }
    }
    tracing::warn!(
        network = name,
        "a network could not be removed; run: tinyfaas clean"
    );
}

fn subnet(block: u32) -> String {
    let addr = std::net::Ipv4Addr::from(FIRST + (block << BLOCK_BITS));
    format!("{addr}/{}", 32 - BLOCK_BITS)
}

impl Drop for Network {
    fn drop(&mut self) {
        let (engine, name) = (Arc::clone(&self.engine), std::mem::take(&mut self.name));
        let proxy = self.proxy.take();
        self.engine.tracker.spawn(async move {
            if let Some(proxy) = proxy {
                proxy.leave(&name).await;
            }
            remove(&engine, &name).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_within_their_range() {
        assert_eq!(subnet(0), "10.208.0.0/23");
        assert_eq!(subnet(1), "10.208.2.0/23");
        assert_eq!(subnet(BLOCKS - 1), "10.223.254.0/23");
    }
}
