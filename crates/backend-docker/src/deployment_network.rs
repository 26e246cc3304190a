//! The network of a deployment.

use crate::engine::{ENGINE_FIX, Engine, EngineError};
use crate::network::{is_there, make, remove};
use crate::reverse_proxy::ReverseProxy;
use faas::PrepareError;
use std::sync::Arc;

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
            let detail = format!("the network of the function could not be made: {error}");
            PrepareError::host(detail, ENGINE_FIX)
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
            let detail = format!("the network of the function could not be made again: {error}");
            PrepareError::host(detail, ENGINE_FIX)
        })
    }
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
