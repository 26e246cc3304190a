//! What an instance prints, bounded.

use bytes::{Bytes, BytesMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// The most that an instance may write at once.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// A standard stream whose bytes are kept in memory. A clone is the same stream.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    kept: Arc<Mutex<BytesMut>>,
    bytes_max: usize,
    overflow: Overflow,
}

/// What becomes of bytes beyond the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The call fails.
    Fails,
    /// They are dropped.
    IsDropped,
}

impl Output {
    /// A stream that keeps up to `bytes_max`.
    pub(crate) fn new(bytes_max: usize, overflow: Overflow) -> Self {
        Self {
            kept: Arc::default(),
            bytes_max,
            overflow,
        }
    }

    /// Takes what was printed so far.
    pub(crate) fn take(&self) -> Bytes {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.split().freeze()
    }

    fn push(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.bytes_max - kept.len();
        if bytes.len() > room && self.overflow == Overflow::Fails {
            let bytes_max = self.bytes_max;
            return Err(StreamError::Trap(wasmtime::format_err!(
                "the function printed more than {bytes_max} bytes"
            )));
        }
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let pushed = self.push(bytes).map(|()| bytes.len());
        Poll::Ready(pushed.map_err(|error| std::io::Error::other(error.to_string())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
