//! Networks of the engine: made with addresses of their own, found and removed.

use crate::engine::{Engine, EngineError, REMOVAL_PAUSE, REMOVALS, explain, is_gone};
use crate::subnet::{BLOCKS, subnet};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// How many occupied subnets to skip before giving up.
const ATTEMPTS: u32 = 64;

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
