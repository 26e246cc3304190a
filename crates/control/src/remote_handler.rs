//! A handler of the reverse proxy, as the management service sees it.

use crate::message::{ToProxy, millis};
use crate::registry::Registry;
use crate::revision::{Progress, Revision};
use faas::{BoxFuture, Handler, HandlerState, HandlerStatus};
use std::sync::Arc;
use std::time::Duration;

/// Keeps a revision at the proxy. Dropping it ends the revision at once.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) registry: Arc<Registry>,
    pub(crate) revision: Arc<Revision>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.registry.forget(&self.revision);
    }
}

/// A handler that the reverse proxy calls.
#[derive(Debug)]
pub(crate) struct RemoteHandler {
    pub(crate) id: Arc<str>,
    pub(crate) held: Arc<Held>,
}

impl Handler for RemoteHandler {
    fn status(&self) -> HandlerStatus {
        let status = self.held.revision.status(&self.id);
        status.unwrap_or_else(|| HandlerStatus {
            id: Arc::clone(&self.id),
            state: HandlerState::Stopped,
            restarts: 0,
            in_flight: 0,
        })
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (registry, revision) = (&self.held.registry, &self.held.revision);
            let retire = ToProxy::Retire {
                revision: revision.number,
                grace_ms: millis(grace),
            };
            if registry.link.tell(retire).await {
                let patience = grace + registry.limits.stop_grace * 4;
                let mut progress = revision.progress.subscribe();
                let retired = progress.wait_for(|progress| *progress == Progress::Retired);
                // One that does not answer loses its handlers all the same.
                let _in_time = tokio::time::timeout(patience, retired).await.is_ok();
            }
            registry.forget(revision);
            revision.instances.close();
            revision.instances.wait().await;
        })
    }
}
