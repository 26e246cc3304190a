//! Keeping functions for good: the store and the manifests, in the order in which each holds.

use super::Deployer;
use crate::functions::Function;
use crate::order::DeployError;
use crate::probe::Unwritable;
use crate::store::StoreError;
use faas::{FunctionName, PrepareError, PrepareErrorKind};
use std::io;
use std::sync::Arc;

impl Deployer {
    /// Makes the function durable: its manifest counts once the store has it.
    pub(super) async fn keep(&self, function: &Function) -> Result<(), DeployError> {
        let record = &function.record;
        let (manifests, staging) = (Arc::clone(&self.manifests), record.clone());
        let staged = blocking(move || manifests.stage(&staging)).await?;
        // A commit that failed may be on the disk all the same; the next start tells.
        function.code.set_stored();
        match self.store.put(record.clone()).await.map_err(durable) {
            Err(error @ DeployError::Unwritable(_)) => {
                // This one surely is not, and its code takes space.
                function.code.set_forgotten();
                return Err(error);
            }
            put => put?,
        }
        blocking(move || staged.publish()).await
    }

    /// Forgets the function: its manifest goes first, as it would bring the function back.
    pub(super) async fn forget(&self, name: &FunctionName) -> Result<(), DeployError> {
        let (manifests, removing) = (Arc::clone(&self.manifests), name.clone());
        blocking(move || manifests.remove(&removing)).await?;
        self.store.delete(name.clone()).await.map_err(durable)
    }

    /// Why nothing can be deployed now; none where the disk takes writes.
    pub(crate) async fn unwritable(&self) -> Option<Unwritable> {
        self.probe.failure().await
    }

    /// What a failure to prepare means: where the host failed, its disk may be why; where other
    /// builds were in the way, they are named.
    pub(super) async fn explain(&self, error: PrepareError) -> DeployError {
        if error.kind == PrepareErrorKind::Busy {
            let building = self.underway.building();
            return DeployError::BuildsBusy { error, building };
        }
        if matches!(error.kind, PrepareErrorKind::Host | PrepareErrorKind::Build)
            && let Some(unwritable) = self.unwritable().await
        {
            return unwritable.into();
        }
        error.into()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DeployError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_panicked| DeployError::Broken)?;
    done.map_err(|error| durable(StoreError::File(error)))
}

fn durable(error: StoreError) -> DeployError {
    match error.as_unwritable() {
        Some(unwritable) => unwritable.into(),
        None => error.into(),
    }
}
