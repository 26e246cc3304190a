//! The doors of tinyFaaS: CoAP, HTTP and gRPC, each decode, invoke, encode.

pub mod coap;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod http;
mod listen;
mod wake;
