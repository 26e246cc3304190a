//! A connection of the sandbox as a stream of bytes.

use super::tcp::Sockets;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, State};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream.
pub(super) struct Channel {
    sockets: Rc<Sockets>,
    handle: SocketHandle,
}

impl Channel {
    pub(super) fn new(sockets: Rc<Sockets>, handle: SocketHandle) -> Self {
        Self { sockets, handle }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        let mut tcp = self.sockets.tcp.borrow_mut();
        work(tcp.sockets.get_mut(self.handle))
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = self.with(|socket| {
            if socket.can_recv() || !is_opening(socket) {
                match socket.recv_slice(buffer.initialize_unfilled()) {
                    Ok(0) => {}
                    Ok(len) => return Poll::Ready(Ok(len)),
                    Err(RecvError::Finished) => return Poll::Ready(Ok(0)),
                    Err(RecvError::InvalidState) => {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                    }
                }
            }
            socket.register_recv_waker(context.waker());
            Poll::Pending
        });
        outcome.map_ok(|len| {
            buffer.advance(len);
            // The sandbox is told of the room.
            self.sockets.changed.notify_one();
        })
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.with(|socket| {
            if !is_opening(socket) {
                match socket.send_slice(bytes) {
                    Ok(0) => {}
                    Ok(len) => return Poll::Ready(Ok(len)),
                    Err(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            socket.register_send_waker(context.waker());
            Poll::Pending
        });
        outcome.map_ok(|len| {
            self.sockets.changed.notify_one();
            len
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Socket::close);
        self.sockets.changed.notify_one();
        Poll::Ready(Ok(()))
    }
}

fn is_opening(socket: &Socket<'_>) -> bool {
    socket.state() == State::SynReceived
}
