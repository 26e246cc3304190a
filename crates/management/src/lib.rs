//! The management service: deploys functions and keeps them.
//!
//! A deployment walks one way: api → archive (unpack, validate) → [`faas::Backend::prepare`] →
//! store (durable) → [`faas::Router::publish`] → the replaced handlers finish and stop.
//! Everything that can fail comes before publish. Functions are never invoked here.

mod api;
mod applies;
mod archive;
mod backup;
mod bad_field;
mod codes;
mod data_dir;
mod deployer;
mod download;
mod functions;
mod named;
mod options;
mod order;
mod probe;
mod problem;
mod reach;
mod reconcile;
mod server;
mod space;
mod starts;
mod store;
mod turns;
mod undecided;
mod underway;
mod upload;
mod wire;

pub use archive::{ArchiveError, SourceFile};
pub use backup::{RestoreError, restore};
pub use bad_field::BadField;
pub use data_dir::{SOCKET, claim as claim_data_dir};
pub use download::DownloadError;
pub use options::{EndpointUrl, Options};
pub use order::{DeployError, DeployRequest, Deployed, Source};
pub use probe::Unwritable;
pub use store::StoreError;

use api::Door;
use codes::{Code, Codes};
use deployer::{Deployer, Disk};
use named::Named;
use order::Order;
use server::Listener;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Extent, Manifests, Record, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use undecided::Undecided;

/// The management service. A clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Management {
    deployer: Arc<Deployer>,
}

/// Why the management service could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory.
    #[error("the data directory {} is in use by another tinyfaas", .0.display())]
    Locked(PathBuf),
    /// The data directory can't be used.
    #[error("the data directory {} can't be used ({error})", .path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// Others may enter the data directory, and it was not made by tinyFaaS.
    #[error("other users of this machine can enter {}, and it holds files that are not tinyFaaS's", .0.display())]
    Shared(PathBuf),
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Locked(_) => {
                "stop that one, or choose another directory with --data-dir".to_owned()
            }
            Self::DataDir { .. } => {
                "check its owner and mode, or choose another with --data-dir".to_owned()
            }
            Self::Shared(path) => format!(
                "choose another directory with --data-dir, or close this one to others: chmod 700 {}",
                path.display()
            ),
            Self::Store(error) => error.fix().to_owned(),
        }
    }
}

impl Management {
    /// Locks the data directory, opens the store, removes what a crash may have left there, and
    /// announces every stored function to the router, so that early invocations wait for it.
    ///
    /// # Errors
    /// If another process has the data directory, it can't be used, or the store can't be read.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let data_dir = options.data_dir.clone();
        let limits = Arc::clone(&options.limits);
        let opening = tokio::task::spawn_blocking(move || open_disk(&data_dir, &limits));
        let mut opened = opening.await.map_err(|error| OpenError::DataDir {
            path: options.data_dir.clone(),
            error: io::Error::other(error),
        })??;
        opened.rebuild_store().await;
        let deployer = Deployer::new(options, opened.disk, opened.stored);
        Ok(Self { deployer })
    }

    /// Starts bringing every stored function back, in tasks of its own. `/readyz` tells when
    /// that is over.
    pub fn restore(&self) {
        self.deployer.restore();
    }

    /// Serves the API on the listener until `shutdown`; calls under way may finish.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        self.deployer.listens_at(listener.local_addr()?);
        let routes = api::routes(&self.deployer, Door::Tcp);
        let (listener, limits) = (Listener::Tcp(listener), &self.deployer.options.limits);
        let clients = self.deployer.uploads.door(limits, &listener);
        server::serve(listener, routes, (limits, clients), shutdown).await
    }

    /// Serves the API to the owner of the data directory, through a socket in it, until
    /// `shutdown`; calls under way may finish.
    ///
    /// # Errors
    /// If the socket can't be made, such as on a file system that has none.
    pub async fn serve_owner(&self, shutdown: CancellationToken) -> io::Result<()> {
        let options = &self.deployer.options;
        let listener = data_dir::listen(&options.data_dir)?;
        let routes = api::routes(&self.deployer, Door::Socket);
        let (listener, limits) = (Listener::Unix(listener), &*options.limits);
        let clients = self.deployer.uploads.door(limits, &listener);
        let served = server::serve(listener, routes, (limits, clients), shutdown);
        served.await?;
        std::fs::remove_file(options.data_dir.join(SOCKET))
    }

    /// The digest of a function's code; none where no function has the name.
    #[must_use]
    pub fn digest(&self, name: &str) -> Option<String> {
        let function = self.deployer.functions.get(name)?;
        Some(function.code.digest().to_owned())
    }

    /// Deploys a function in a task of its own, as the API does: dropping the future cuts nothing
    /// but its build. Of several deployments of one name the one that was called last wins.
    ///
    /// # Errors
    /// See [`DeployError`]; the version before, if any, still serves, and nothing is left.
    pub async fn deploy(&self, request: DeployRequest) -> Result<Deployed, DeployError> {
        let order = Order {
            spec: request.spec,
            undecided: Undecided::default(),
            // A spec has every setting.
            named: Named {
                is_reset: true,
                ..Named::default()
            },
            source: request.source,
            subfolder: None,
            room: None,
            asker: faas::Asker::Node,
        };
        self.deployer.deploy(order).await
    }

    /// Takes no new deployments, waits up to `grace` for those under way, then retires every
    /// deployment (within what is left of `grace`) and closes the store.
    pub async fn stop(&self, grace: Duration) {
        self.deployer.stop(grace).await;
    }
}

/// Opens what is in the data directory. Blocks.
fn open_disk(data_dir: &Path, limits: &faas::Limits) -> Result<Opened, OpenError> {
    let failed = |error| OpenError::DataDir {
        path: data_dir.to_owned(),
        error,
    };
    let lock = data_dir::claim(data_dir)?;
    let background = TaskTracker::new();
    let codes = Codes::open(data_dir, background.clone()).map_err(failed)?;
    let manifests = Manifests::open(data_dir).map_err(failed)?;
    let path = data_dir.join(data_dir::STORE);
    let (store, found) = Store::open(&path, limits)?;
    let listed = manifests.read().map_err(failed)?;
    let extent = found.extent;
    let reconciled = reconcile::reconcile(found.records, listed, |digest| codes.has(digest));
    let synced = manifests
        .write_all(reconciled.for_manifests.iter())
        .and_then(|()| File::open(data_dir)?.sync_all());
    match synced {
        Err(error) if space::lacks_space(&error) => {
            tracing::warn!(%error, "manifests can't be written; they are at the next start");
        }
        synced => synced.map_err(failed)?,
    }
    let with_code = |record: Record| {
        let code = codes.refer(&record.digest);
        (record, code)
    };
    let stored = reconciled.records.into_iter().map(with_code).collect();
    match extent {
        Extent::Whole => codes.remove_unreferenced(),
        Extent::Lost => codes.set_unreferenced_aside(&data_dir.join("lost-code")),
        Extent::Unopened => {}
    }
    let disk = Disk {
        store,
        manifests: Arc::new(manifests),
        codes,
        lock,
        background,
    };
    Ok(Opened {
        disk,
        stored,
        for_store: reconciled.for_store,
    })
}

/// What is in the data directory.
struct Opened {
    disk: Disk,
    stored: Vec<(Record, Code)>,
    /// What the store lacks and the manifests have.
    for_store: Vec<Record>,
}

impl Opened {
    /// Gives the store back what it has lost.
    async fn rebuild_store(&mut self) {
        let lost = std::mem::take(&mut self.for_store);
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            functions = lost.len(),
            "the store lacks functions; it is rebuilt from their manifests"
        );
        let puts = lost.into_iter().map(|record| self.disk.store.put(record));
        for put in futures_util::future::join_all(puts).await {
            if let Err(error) = put {
                tracing::warn!(%error, "the store could not be rebuilt; it is at the next start");
            }
        }
    }
}

/// What `fuzz/` reaches of this crate.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::archive::{self, ArchiveError};
    use bytes::Bytes;
    use faas::Limits;
    use std::path::Path;

    /// Unpacks what somebody uploaded into a new folder below `tmp`, and has it looked at.
    ///
    /// # Errors
    /// If that is no archive, or not one that may be taken.
    pub fn unpack(
        archive: &[u8],
        tmp: &Path,
        limits: &Limits,
        look: impl FnOnce(&Path),
    ) -> Result<(), ArchiveError> {
        let archive = Bytes::copy_from_slice(archive);
        let unpacked = archive::unpack(&archive, None, tmp, limits)?;
        look(&unpacked.root);
        Ok(())
    }
}
