//! The sequence of a deployment.

use crate::archive::{ArchiveError, SourceFile};
use bytes::Bytes;
use faas::{FunctionName, FunctionSpec, PrepareError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the management service is made of.
#[derive(Debug)]
pub struct Options {
    /// The folder that holds the store and the code; made with mode 0700.
    pub data_dir: PathBuf,
    /// The folder of the original call `POST /`.
    pub handlers_dir: PathBuf,
    /// Every bound.
    pub limits: Arc<faas::Limits>,
    /// What a function gets that asks for nothing else.
    pub function_limits: faas::FunctionLimits,
    /// The bearer token that every call but `/healthz` and `/readyz` needs; none leaves them open.
    pub token: Option<String>,
    /// The endpoints that are on, in the order in which they are shown.
    pub endpoints: Vec<EndpointUrl>,
    /// What runs handlers.
    pub backend: Arc<dyn faas::Backend>,
    /// Where deployments are published.
    pub router: Arc<faas::Router>,
    /// The version that `/v1/status` tells.
    pub version: &'static str,
}

/// An endpoint that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointUrl {
    /// `coap`, `http` or `grpc`.
    pub scheme: &'static str,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// What to deploy.
#[derive(Debug)]
pub struct DeployRequest {
    /// The function.
    pub spec: FunctionSpec,
    /// Its code.
    pub source: Source,
}

/// Where a function's code comes from.
#[derive(Debug)]
pub enum Source {
    /// A zip or tar.gz, told apart by its first bytes.
    Archive(Bytes),
    /// Files in memory.
    Files(Vec<SourceFile>),
    /// A folder below [`Options::handlers_dir`], which is copied.
    Folder(PathBuf),
}

/// What came of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The function.
    pub name: FunctionName,
    /// The digest of its code.
    pub digest: String,
    /// Whether an earlier version was replaced.
    pub is_replacement: bool,
}

/// Why a deployment failed. The version before, if any, still serves.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The code was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The backend could not make it ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Why the management service could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory.
    #[error("the data directory {0} is in use by another tinyfaas; stop it or choose another with --data-dir")]
    Locked(PathBuf),
}

/// The management service; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Management {
    options: Arc<Options>,
}

impl Management {
    /// Opens it.
    ///
    /// # Errors
    /// Where the data directory can't be used.
    #[expect(clippy::unused_async, reason = "the interface comes first")]
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Ok(Self { options: Arc::new(options) })
    }

    /// Brings every stored function back, in tasks of its own.
    pub fn restore(&self) {}

    /// The API.
    pub fn routes(&self) -> axum::Router {
        axum::Router::new()
    }

    /// Serves the API until `shutdown`.
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        drop(listener);
        shutdown.cancelled().await;
        Ok(())
    }

    /// Deploys a function.
    ///
    /// # Errors
    /// See [`DeployError`].
    #[expect(clippy::unused_async, reason = "the interface comes first")]
    pub async fn deploy(&self, request: DeployRequest) -> Result<Deployed, DeployError> {
        drop((request, &self.options));
        Err(ArchiveError::Empty.into())
    }

    /// Takes no new deployments, waits for those under way, and retires every deployment.
    #[expect(clippy::unused_async, reason = "the interface comes first")]
    pub async fn stop(&self, grace: Duration) {
        tracing::debug!(?grace, "stopping");
    }
}
