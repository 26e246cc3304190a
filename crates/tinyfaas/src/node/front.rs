//! The reverse proxy with its endpoints: in a node, or alone in a process of its own.

use super::bind::Listeners;
use crate::config::Config;
use endpoints::http::Browsers;
use faas::{Limits, Proxy, Reserve, Router};
use net::Clients;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The reverse proxy with its endpoints.
pub(super) struct Front {
    limits: Arc<Limits>,
    proxy: Arc<Proxy>,
    clients: Arc<Clients>,
    browsers: Browsers,
    /// The endpoints' tasks, which `accepting` ends.
    endpoints: TaskTracker,
    accepting: CancellationToken,
}

impl Front {
    /// Lets clients in.
    pub(super) fn open(
        listeners: Listeners,
        config: &Config,
        (router, limits): (&Arc<Router>, &Arc<Limits>),
        reserve: &Arc<Reserve>,
    ) -> Self {
        let addr = listeners
            .http
            .as_ref()
            .and_then(|http| http.local_addr().ok());
        let is_loopback = addr.is_some_and(|addr| addr.ip().is_loopback());
        let (hosts, cors) = (config.http_hosts.clone(), config.cors.clone());
        let front = Self {
            limits: Arc::clone(limits),
            clients: endpoints::clients(limits),
            browsers: Browsers::new(is_loopback, hosts, cors),
            proxy: Arc::new(Proxy::new(Arc::clone(router), Arc::clone(limits))),
            endpoints: TaskTracker::new(),
            accepting: CancellationToken::new(),
        };
        front.serve(listeners, reserve);
        front
    }

    fn serve(&self, listeners: Listeners, reserve: &Arc<Reserve>) {
        let (proxy, accepting) = (&self.proxy, &self.accepting);
        if let Some(coap) = listeners.coap {
            let serving = coap.serve(
                Arc::clone(&self.clients),
                Arc::clone(proxy),
                accepting.clone(),
            );
            let (accepting, drain) = (accepting.clone(), self.limits.drain);
            self.endpoints.spawn(async move {
                let cut = async {
                    accepting.cancelled().await;
                    tokio::time::sleep(drain).await;
                };
                tokio::select! {
                    () = serving => {}
                    () = cut => tracing::warn!("CoAP exchanges are cut"),
                }
            });
        }
        if let Some(http) = listeners.http {
            let proxy = (Arc::clone(proxy), self.browsers.clone());
            let clients = Arc::clone(&self.clients);
            let serving = endpoints::http::serve(http, clients, proxy, accepting.clone());
            self.endpoints.spawn(serving);
        }
        #[cfg(feature = "grpc")]
        if let Some(grpc) = listeners.grpc {
            let proxy = (Arc::clone(proxy), Arc::clone(reserve));
            let clients = Arc::clone(&self.clients);
            let serving = endpoints::grpc::serve(grpc, clients, proxy, accepting.clone());
            self.endpoints.spawn(serving);
        }
        self.endpoints.close();
    }

    /// Takes no more calls and lets those in flight finish, bounded.
    pub(super) async fn stop(&self) {
        self.accepting.cancel();
        let drain = self.limits.drain;
        let (left, ()) = tokio::join!(self.proxy.stop(drain), self.endpoints.wait());
        if left > 0 {
            tracing::warn!(calls = left, "calls were cut");
        }
    }
}
