//! Volumes: where containers find code and shims, which are copied in through the engine, so that
//! it may see another file system than we do.

use crate::engine::{ENGINE_FIX, Engine, REMOVAL_PAUSE, REMOVALS, explain, is_gone};
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use faas::{Pieces, PrepareError};
use futures_util::{StreamExt, stream};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The file that is written last; a volume without it is half done. It has the notes.
const COMPLETE: &str = ".tinyfaas-complete";

/// How long notes may be.
const NOTES_BYTES_MAX: usize = 1 << 20;

/// Where the helper container has the volume.
const AT: &str = "/volume";

/// Pieces of an archive on their way to the engine.
const PIECES: usize = 4;

/// Volumes that nothing uses and that are kept, for a function that comes back.
const UNUSED_MAX: usize = 16;

/// Something to put into a volume.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where, below the volume's root.
    pub(crate) path: PathBuf,
    /// Permissions; a folder's files keep their own.
    pub(crate) mode: u32,
    pub(crate) source: Source,
}

/// What it holds.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
    /// Everything below a folder of this machine.
    Folder(PathBuf),
}

/// A complete volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// What whoever deploys the function should know of how it was filled.
    pub(crate) notes: Vec<String>,
}

impl Volume {
    /// As a container sees it.
    pub(crate) fn mount(&self, target: &str, is_writable: bool) -> Mount {
        Mount {
            target: Some(target.to_owned()),
            source: Some(self.name.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(!is_writable),
            ..Mount::default()
        }
    }
}

/// A volume that is being filled, by way of a container that is never started.
#[derive(Debug)]
pub(crate) struct Filling {
    engine: Arc<Engine>,
    pub(crate) volume: Volume,
    helper: String,
    /// Whether it was found complete.
    pub(crate) is_complete: bool,
}

impl Filling {
    /// Finds the volume, or makes it. Any image serves.
    pub(crate) async fn begin(
        engine: &Arc<Engine>,
        name: String,
        image: &str,
    ) -> Result<Self, PrepareError> {
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(engine.labels()),
            ..VolumeCreateRequest::default()
        };
        // One that is there is left as it is.
        let made = engine.docker.create_volume(request).await;
        made.map_err(|error| failed("made", &error))?;
        let notes = Vec::new();
        let volume = Volume { name, notes };
        let helper = engine.unique("copy");
        let options = CreateContainerOptionsBuilder::default().name(&helper);
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/never-started".to_owned()]),
            labels: Some(engine.labels()),
            host_config: Some(HostConfig {
                mounts: Some(vec![volume.mount(AT, true)]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = engine
            .docker
            .create_container(Some(options.build()), body)
            .await;
        made.map_err(|error| failed("filled", &error))?;
        let mut filling = Self {
            engine: Arc::clone(engine),
            volume,
            helper,
            is_complete: false,
        };
        if let Some(notes) = filling.read(COMPLETE, NOTES_BYTES_MAX).await? {
            filling.is_complete = true;
            // A build could write there, so that it may be anything.
            filling.volume.notes = serde_json::from_slice(&notes).unwrap_or_default();
        }
        Ok(filling)
    }

    /// Reads a file of it: `None` if it is missing, empty if it is not a file or longer than
    /// `bytes_max`.
    pub(crate) async fn read(
        &self,
        file: &str,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, PrepareError> {
        let path = format!("{AT}/{file}");
        let options = DownloadFromContainerOptionsBuilder::default().path(&path);
        let docker = &self.engine.docker;
        let mut pieces = docker.download_from_container(&self.helper, Some(options.build()));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => archive.extend_from_slice(&piece),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(failed("read", &error)),
            }
            if archive.len() > bytes_max {
                return Ok(Some(Vec::new()));
            }
        }
        Ok(Some(first_file(&archive).unwrap_or_default()))
    }

    /// Copies entries into it.
    pub(crate) async fn put(&self, entries: Vec<Entry>) -> Result<(), PrepareError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let packing = tokio::task::spawn_blocking(move || pack(&entries, &sender));
        let pieces = stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        });
        let options = UploadToContainerOptionsBuilder::default().path(AT).build();
        let docker = &self.engine.docker;
        let sent =
            docker.upload_to_container(&self.helper, Some(options), bollard::body_stream(pieces));
        let sent = sent.await;
        let packed = packing.await.map_err(io::Error::other).flatten();
        // Where the engine refused, packing broke off because of it.
        sent.map_err(|error| failed("filled", &error))?;
        packed.map_err(|error| {
            let detail = format!("the code could not be read: {error}");
            PrepareError::host(
                detail,
                "look at the disk of the data directory, then deploy again",
            )
        })
    }

    /// Keeps it.
    pub(crate) async fn complete(self) -> Result<Volume, PrepareError> {
        if !self.is_complete {
            self.put(vec![Entry {
                path: COMPLETE.into(),
                mode: 0o444,
                source: Source::Bytes(serde_json::json!(self.volume.notes).to_string().into()),
            }])
            .await?;
        }
        self.remove_helper().await;
        Ok(self.volume)
    }

    /// Throws it away. A container that was to fill it may just be going, so it takes a while.
    pub(crate) async fn abandon(self) {
        self.remove_helper().await;
        for _ in 0..REMOVALS {
            if remove(&self.engine, &self.volume.name).await {
                return;
            }
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
        tracing::warn!(
            volume = self.volume.name,
            "a volume could not be removed; run: tinyfaas clean"
        );
    }

    async fn remove_helper(&self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = self
            .engine
            .docker
            .remove_container(&self.helper, Some(options));
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a helper container could not be removed");
        }
    }
}

/// The contents of the file that an archive begins with.
fn first_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut contents = Vec::new();
    entry.read_to_end(&mut contents).ok()?;
    Some(contents)
}

fn failed(what: &str, error: &bollard::errors::Error) -> PrepareError {
    let reason = explain(error);
    let detail = format!("the function's volume could not be {what}: {reason}");
    PrepareError::host(detail, ENGINE_FIX)
}

/// Whether the engine has a volume of that name. One that does not answer says nothing of it.
pub(crate) async fn is_there(engine: &Engine, name: &str) -> bool {
    let inspected = engine.docker.inspect_volume(name).await;
    !inspected.is_err_and(|error| is_gone(&error))
}

/// Whether it is gone.
async fn remove(engine: &Engine, name: &str) -> bool {
    let options = RemoveVolumeOptionsBuilder::default().build();
    match engine.docker.remove_volume(name, Some(options)).await {
        Ok(()) => true,
        Err(error) => is_gone(&error),
    }
}

/// Removes the oldest volumes that `is_used` does not name, but for the newest.
pub(crate) async fn prune(engine: &Engine, is_used: impl Fn(&str) -> bool) {
    let filters = Engine::filter(Some(&engine.instance));
    let options = ListVolumesOptionsBuilder::default().filters(&filters);
    let Ok(found) = engine.docker.list_volumes(Some(options.build())).await else {
        // It is tried again with the next deployment.
        return;
    };
    let mut unused = found.volumes.unwrap_or_default();
    unused.retain(|volume| !is_used(&volume.name));
    unused.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    for volume in unused.iter().skip(UNUSED_MAX) {
        // One that can't be removed now is met again with the next deployment.
        let _is_removed = remove(engine, &volume.name).await;
    }
}

/// Writes a tar of the entries, piece by piece.
fn pack(entries: &[Entry], sender: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let pieces = Pieces::new(|piece| {
        let sent = sender.blocking_send(piece);
        sent.map_err(|_closed| io::Error::other("the engine takes no more"))
    });
    let mut tar = tar::Builder::new(pieces);
    // The owner here is nobody there.
    tar.mode(tar::HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    for entry in entries {
        match &entry.source {
            Source::Bytes(bytes) => append(&mut tar, entry, bytes.len() as u64, &bytes[..])?,
            Source::File(path) => {
                let file = std::fs::File::open(path)?;
                append(&mut tar, entry, file.metadata()?.len(), file)?;
            }
            Source::Folder(folder) => append_folder(&mut tar, &entry.path, folder)?,
        }
    }
    tar.into_inner()?.flush()
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    entry: &Entry,
    size: u64,
    contents: impl io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(entry.mode);
    tar.append_data(&mut header, &entry.path, contents)
}

fn append_folder(tar: &mut tar::Builder<impl Write>, at: &Path, folder: &Path) -> io::Result<()> {
    for child in std::fs::read_dir(folder)? {
        let child = child?;
        let (at, path) = (at.join(child.file_name()), child.path());
        if child.file_type()?.is_dir() {
            tar.append_dir(&at, &path)?;
            append_folder(tar, &at, &path)?;
        } else {
            tar.append_path_with_name(&path, &at)?;
        }
    }
    Ok(())
}
