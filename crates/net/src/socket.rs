//! Sockets that tell how much of what was written their other side has taken.

use rustix::fd::AsFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A stream whose other side's pace shows.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Bytes that were written and that the other side's system has not acknowledged; 0 where the
    /// system can't tell.
    fn untaken_bytes(&self) -> u64;
}

impl Socket for TcpStream {
    fn untaken_bytes(&self) -> u64 {
        outgoing(self)
    }
}

/// Counts the kernel's own part too, and takes a piece as taken when all of it was read.
impl Socket for UnixStream {
    fn untaken_bytes(&self) -> u64 {
        outgoing(self)
    }
}

impl<L: Socket, R: Socket> Socket for Either<L, R> {
    fn untaken_bytes(&self) -> u64 {
        match self {
            Self::Left(socket) => socket.untaken_bytes(),
            Self::Right(socket) => socket.untaken_bytes(),
        }
    }
}

#[expect(unsafe_code, reason = "rustix has no safe SIOCOUTQ")]
fn outgoing(socket: &impl AsFd) -> u64 {
    /// As `TIOCOUTQ`, by which name the kernel's headers know it too.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: the call writes one `int` and does nothing else to a socket.
    let told = unsafe {
        let query = rustix::ioctl::Getter::<SIOCOUTQ, rustix::ffi::c_int>::new();
        rustix::ioctl::ioctl(socket, query)
    };
    told.ok()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(0)
}
