//! The doors of tinyFaaS: CoAP, HTTP and gRPC, each decode, invoke, encode.

pub mod coap;
mod connection;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod http;
mod idle;
mod io;
mod metered;
mod server;
mod wake;

use faas::Limits;
use net::{Bounds, Clients, Slow};
use std::sync::Arc;

/// The clients of all endpoints, who together keep these limits.
#[must_use]
pub fn clients(limits: &Limits) -> Arc<Clients> {
    Clients::new(Bounds {
        connections_max: limits.connections_max,
        peer_connections_max: limits.client_connections_max,
        bytes_max: limits.client_bytes_max,
        peer_bytes_max: limits.client_share_bytes_max,
        evictions_max: limits.connection_evictions_max,
        leaving_max: limits.connections_leaving_max,
        accept_pause: limits.accept_pause,
        slow: Slow {
            bytes: limits.upload_slow_bytes,
            first_bytes: limits.upload_first_bytes,
        },
    })
}
