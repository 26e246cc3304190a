//! The table of routes on its way to the reverse proxy.

use crate::message::{Function, Row, ToProxy};
use crate::registry::Registry;
use faas::{Follower, Route, Router};
use std::sync::Arc;

/// Sends the table with every change, and to every proxy that comes.
pub(crate) async fn push(registry: Arc<Registry>, router: Arc<Router>, mut follower: Follower) {
    let mut link = registry.link.follow();
    let mut applied = registry.applied.subscribe();
    loop {
        // What is seen here is not waited for below.
        let number = follower.made();
        if link.borrow_and_update().is_some() {
            let routes = router.routes();
            let rows = routes.iter().map(|route| row(&registry, route)).collect();
            registry.link.tell(ToProxy::Table { number, rows }).await;
        }
        loop {
            tokio::select! {
                () = follower.changed() => break,
                _ = link.changed() => break,
                _ = applied.changed() => follower.applied(*applied.borrow_and_update()),
            }
        }
    }
}

fn row(registry: &Registry, route: &Route) -> Row {
    let function = Function::from(&route.terms());
    let deployment = route.deployment();
    let first = deployment.as_ref().and_then(|it| it.handlers().first());
    let revision = first.and_then(|handler| registry.of_handler(&handler.status().id));
    let failure = route.failure();
    Row {
        function,
        revision: revision.map(|revision| revision.number),
        failure: failure.map(|failure| failure.reason.clone()),
    }
}
