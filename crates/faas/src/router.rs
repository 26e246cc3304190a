//! From a name to the deployment that serves it: reads take no lock.

use crate::changes::{Changes, Follower};
use crate::deployment::Deployment;
use crate::function::{CallTerms, FunctionName};
use crate::route::Route;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The table of routes. Finding a route reads a snapshot; announcing or withdrawing one copies it.
#[derive(Debug, Default)]
pub struct Router {
    routes: ArcSwap<HashMap<FunctionName, Arc<Route>>>,
    /// Held while the snapshot is replaced.
    writing: Mutex<()>,
    changes: Arc<Changes>,
}

impl Router {
    /// The route of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.load().get(name).map(Arc::clone)
    }

    /// Every route, in no order.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.load().values().map(Arc::clone).collect()
    }

    /// Makes the names known before their deployments are ready: invocations wait for them.
    pub fn announce(&self, functions: impl IntoIterator<Item = CallTerms>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = HashMap::clone(&self.routes.load());
        for terms in functions {
            let name = terms.name.clone();
            routes
                .entry(name)
                .or_insert_with(|| Arc::new(Route::new(terms, &self.changes)));
        }
        self.routes.store(Arc::new(routes));
        self.changes.count();
    }

    /// Lets the deployment serve its function's name from now on. Returns the one that it
    /// replaces, for the caller to [retire](Deployment::retire).
    pub fn publish(&self, deployment: Arc<Deployment>) -> Option<Arc<Deployment>> {
        let name = deployment.terms().name.clone();
        if self.find(name.as_str()).is_none() {
            self.announce([deployment.terms().clone()]);
        }
        let replaced = self.find(name.as_str())?.publish(deployment);
        self.changes.count();
        replaced
    }

    /// Takes the name out of service. Returns the deployment that served it, for the caller to
    /// [retire](Deployment::retire), and whether the name was known.
    pub fn withdraw(&self, name: &FunctionName) -> (bool, Option<Arc<Deployment>>) {
        let route = {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut routes = HashMap::clone(&self.routes.load());
            let route = routes.remove(name);
            self.routes.store(Arc::new(routes));
            route
        };
        let Some(route) = route else {
            return (false, None);
        };
        let served = route.withdraw();
        self.changes.count();
        (true, served)
    }

    /// Follows the changes, for a process elsewhere whose table must be the same. There may be several.
    #[must_use]
    pub fn follow(&self) -> Follower {
        self.changes.follow()
    }

    /// Returns when every change made so far is in force at every follower; at once without one.
    pub async fn applied(&self) {
        self.changes.applied().await;
    }
}
