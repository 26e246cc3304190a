//! What the management service is made of.

use auth::Token;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What the management service is made of.
pub struct Options {
    /// The folder that holds the store and the code; made with mode 0700.
    pub data_dir: PathBuf,
    /// The folder of the original call `POST /`.
    pub handlers_dir: PathBuf,
    /// Every bound.
    pub limits: Arc<faas::Limits>,
    /// What a function gets that asks for nothing else.
    pub function_limits: faas::FunctionLimits,
    /// The bearer token that calls under `/v1` need over TCP; none leaves every call open.
    pub token: Option<Token>,
    /// Whether every call but `/healthz` and `/readyz` needs the token over TCP, not only those
    /// under `/v1`. As long as a function can reach this service, it is so in any case.
    pub is_token_always: bool,
    /// The endpoints that are on, in the order in which they are shown.
    pub endpoints: Vec<EndpointUrl>,
    /// What runs handlers.
    pub backend: Arc<dyn faas::Backend>,
    /// Where deployments are published.
    pub router: Arc<faas::Router>,
    /// The version that `/v1/status` tells.
    pub version: &'static str,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("handlers_dir", &self.handlers_dir)
            .field("has_token", &self.token.is_some())
            .field("is_token_always", &self.is_token_always)
            .field("endpoints", &self.endpoints)
            .field("backend", &self.backend)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// An endpoint that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointUrl {
    /// `coap`, `http` or `grpc`.
    pub scheme: &'static str,
    /// Where it listens.
    pub addr: SocketAddr,
}
