//! Bringing stored functions back after a start.

use super::Deployer;
use crate::functions::Function;
use faas::{Asker, Backoff, Deployment, Failure, Package, PrepareError, Progress};
use std::sync::Arc;

/// How a try ended.
enum Outcome {
    /// The function serves, or was replaced or deleted meanwhile, or can never be brought back.
    Settled,
    /// It failed and may succeed later.
    Failed,
    /// A deployment or deletion of the same name goes first.
    GivenWay,
}

impl Deployer {
    /// Starts bringing every function back that has no deployment yet.
    pub(crate) fn restore(self: &Arc<Self>) {
        for function in self.functions.all() {
            let deployer = Arc::clone(self);
            self.tasks
                .spawn(async move { deployer.bring_back(&function).await });
        }
    }

    /// The names that are neither ready nor known to have failed.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let routes = self.options.router.routes();
        let is_awaited =
            |route: &&Arc<faas::Route>| route.deployment().is_none() && route.failure().is_none();
        let mut names: Vec<_> = routes
            .iter()
            .filter(is_awaited)
            .map(|route| route.name().to_string())
            .collect();
        names.sort_unstable();
        names
    }

    async fn bring_back(self: &Arc<Self>, function: &Arc<Function>) {
        let limits = &self.options.limits;
        let mut backoff = Backoff::new(limits.restore_pause_min, limits.restore_pause_max);
        loop {
            match self.try_to_bring_back(function).await {
                Outcome::Settled => return,
                Outcome::GivenWay => continue,
                Outcome::Failed => {}
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    async fn try_to_bring_back(self: &Arc<Self>, function: &Arc<Function>) -> Outcome {
        let spec = &function.record.spec;
        let turn = self.turns.take(&spec.name);
        turn.begin().await;
        let trying = self.try_in_turn(function);
        tokio::select! {
            outcome = trying => outcome,
            // Whatever was started ends with the future.
            () = turn.wanted() => Outcome::GivenWay,
        }
    }

    async fn try_in_turn(self: &Arc<Self>, function: &Arc<Function>) -> Outcome {
        let spec = &function.record.spec;
        let Some(route) = self.options.router.find(spec.name.as_str()) else {
            return Outcome::Settled;
        };
        let Some(slot) = self.restores.slot(route.wanted()).await else {
            return Outcome::Settled;
        };
        let current = self.functions.get(spec.name.as_str());
        let is_current = current.is_some_and(|current| Arc::ptr_eq(&current, function));
        if !is_current || route.deployment().is_some() || self.stopping.is_cancelled() {
            return Outcome::Settled;
        }
        if let Err(failure) = check_code(function).await {
            let reason = failure.text();
            tracing::error!(function = %spec.name, reason, "can't be brought back");
            route.set_failure(failure);
            return Outcome::Settled;
        }
        let work = self.underway.begin(&spec.name, false);
        let package = package(function, &work.progress);
        let preparing = self.options.backend.prepare(package);
        let prepared = tokio::select! {
            prepared = self.restores.run(slot, preparing, &work.progress) => prepared,
            () = self.stopping.cancelled() => return Outcome::Settled,
        };
        match prepared {
            Ok(handlers) => {
                let deployment = Deployment::new(spec.terms(), handlers);
                let served = self.options.router.publish(Arc::new(deployment));
                self.retire(served, None);
                tracing::info!(function = %spec.name, "brought back");
                Outcome::Settled
            }
            Err(error) => {
                log_failure(function, &error);
                route.set_failure(Failure::from(&error));
                Outcome::Failed
            }
        }
    }
}

/// Sees that the code is what was deployed: disks and power cuts may have changed it meanwhile.
async fn check_code(function: &Arc<Function>) -> Result<(), Failure> {
    if let Some(fault) = &function.record.fault {
        // What it tells in full may quote what is stored, such as a variable.
        return Err(Failure {
            reason: "what this node has stored of it can't be used".to_owned(),
            detail: fault.to_string(),
        });
    }
    let reading = Arc::clone(function);
    let is_unharmed = tokio::task::spawn_blocking(move || reading.code.is_unharmed());
    if is_unharmed.await.unwrap_or(false) {
        return Ok(());
    }
    if function.code.path().is_dir() {
        return Err(Failure::plain(
            "its code is damaged on the disk; deploy it again",
        ));
    }
    Err(Failure::plain("its code is gone; deploy it again"))
}

fn package(function: &Function, progress: &Progress) -> Package {
    Package {
        spec: Arc::clone(&function.record.spec),
        code: function.code.path(),
        digest: function.code.digest().to_owned(),
        log: Arc::clone(&function.log),
        progress: progress.clone(),
        asker: Asker::Node,
    }
}

fn log_failure(function: &Function, error: &PrepareError) {
    let name = &function.record.spec.name;
    tracing::warn!(function = %name, %error, fix = error.fix, "could not be brought back; it is tried again");
}
