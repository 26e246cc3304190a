//! What an earlier run left of functions.

use crate::clean::{Found, Left, list, remove};
use crate::engine::{Engine, EngineError};
use crate::reverse_proxy::ReverseProxy;
use std::collections::HashSet;
use std::sync::Arc;

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
