//! The connections that the gRPC server takes.

use crate::listen::Listener;
use faas::Reserve;
use futures_util::{Stream, stream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// The bytes with which a client begins, RFC 9113 section 3.4.
const PREFACE_BYTES: usize = 24;

/// Accepts for ever. A client that doesn't begin within `greeting` is dropped.
pub(crate) fn connections(
    listener: Listener,
    greeting: Duration,
    reserve: Arc<Reserve>,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, reserve), move |(listener, reserve)| async move {
        let (stream, place) = listener.accept().await;
        reserve.call();
        let connection = Connection {
            stream,
            _place: place,
            greeting: Some(Greeting {
                bytes: 0,
                patience: Box::pin(tokio::time::sleep(greeting)),
            }),
        };
        Some((Ok(connection), (listener, reserve)))
    })
}

/// A connection that keeps its place among those that may be open.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    greeting: Option<Greeting>,
}

/// How much of its first bytes a client has sent; from then on, pings tell whether it lives.
#[derive(Debug)]
struct Greeting {
    bytes: usize,
    patience: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(greeting) = &mut self.greeting else {
            return read;
        };
        greeting.bytes += buf.filled().len() - before;
        if greeting.bytes >= PREFACE_BYTES {
            self.greeting = None;
        } else if read.is_pending() && greeting.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
