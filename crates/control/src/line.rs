//! Lines of JSON over a stream, with an end to every wait.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// The longest line: a table of ten thousand functions has 2 MB.
const LINE_BYTES_MAX: usize = 16 << 20;

/// How often each side says something at least, and how long the other may be silent.
pub(crate) const SPEAK_INTERVAL: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Messages that wait to be written.
pub(crate) const OUTBOX_MAX: usize = 256;

pub(crate) type Writer = SplitSink<Framed<TcpStream, LinesCodec>, String>;
pub(crate) type Reader = SplitStream<Framed<TcpStream, LinesCodec>>;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("it hung up")]
    Closed,
    #[error("it said nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("it sent what is no message ({0})")]
    Message(#[from] serde_json::Error),
    #[error("{0}")]
    Stream(#[from] LinesCodecError),
    #[error("its secret is wrong")]
    Secret,
}

pub(crate) fn split(stream: TcpStream) -> (Writer, Reader) {
    // Where this fails, messages come later, not never.
    let _nodelay = stream.set_nodelay(true).is_ok();
    Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX)).split()
}

/// The next message of the other side.
pub(crate) async fn receive<T: DeserializeOwned>(reader: &mut Reader) -> Result<T, LineError> {
    match tokio::time::timeout(SILENCE_MAX, reader.next()).await {
        Ok(Some(line)) => Ok(serde_json::from_str(&line?)?),
        Ok(None) => Err(LineError::Closed),
        Err(_elapsed) => Err(LineError::Silent),
    }
}

pub(crate) async fn send<T: Serialize + Sync>(
    writer: &mut Writer,
    message: &T,
) -> Result<(), LineError> {
    let line = serde_json::to_string(message)?;
    Ok(writer.send(line).await?)
}

/// Writes what comes until nothing can come any more.
pub(crate) async fn write<T: Serialize + Sync>(
    mut writer: Writer,
    mut outbox: mpsc::Receiver<T>,
) -> Result<(), LineError> {
    while let Some(message) = outbox.recv().await {
        send(&mut writer, &message).await?;
    }
    Ok(())
}
