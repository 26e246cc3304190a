//! The bytes below a connection.

use bytes::BytesMut;
use net::Socket;
use std::io;
use std::sync::{Mutex, PoisonError};
use tokio::net::{TcpStream, UnixStream};

/// How much is read from a handler at once.
const READ_BYTES: usize = 64 << 10;

/// The stream below a connection.
#[derive(Debug)]
pub enum Stream {
    /// A socket pair with a process of this host.
    Unix(UnixStream),
    /// A handler in a container or on another machine.
    Tcp(TcpStream),
}

impl Stream {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.readable().await,
            Self::Tcp(stream) => stream.readable().await,
        }
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read_buf(buffer),
            Self::Tcp(stream) => stream.try_read_buf(buffer),
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.writable().await,
            Self::Tcp(stream) => stream.writable().await,
        }
    }

    /// Tells the other side that nothing more will come.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        let how = rustix::net::Shutdown::Write;
        match self {
            Self::Unix(stream) => rustix::net::shutdown(stream, how)?,
            Self::Tcp(stream) => rustix::net::shutdown(stream, how)?,
        }
        Ok(())
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }

    /// Whether the other side has yet to read the end of what was written. Of TCP that is not told:
    /// the other kernel takes bytes before their reader does.
    pub(crate) fn has_unread(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.untaken_bytes() > 0,
            Self::Tcp(_) => false,
        }
    }

    /// Waits for bytes and reads what has come; 0 where the other side closed.
    pub(crate) async fn read_some(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.readable().await?;
            buffer.reserve(READ_BYTES / 4);
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

/// What was read and is not a whole frame yet; given back when the reader is dropped.
pub(crate) struct Unread<'a> {
    home: &'a Mutex<BytesMut>,
    pub(crate) buffer: BytesMut,
}

impl<'a> Unread<'a> {
    pub(crate) fn take(home: &'a Mutex<BytesMut>) -> Self {
        let buffer = std::mem::take(&mut *home.lock().unwrap_or_else(PoisonError::into_inner));
        Self { home, buffer }
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        *home = std::mem::take(&mut self.buffer);
    }
}
