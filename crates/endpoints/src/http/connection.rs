//! One connection: HTTP/1.1 or HTTP/2, idle and slow clients, an orderly end.

use super::{Door, answer};
use faas::Limits;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a request line may take beside the query: method, path, version.
const REQUEST_LINE_BYTES_MAX: usize = 1 << 10;

/// Header fields that hyper takes where it is told no other number.
const HYPER_FIELDS_MAX: usize = 100;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4). No HTTP/1.1 request does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a client is looked at that has sent a part of the preface.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
    door: Arc<Door>,
    shutdown: CancellationToken,
}

impl Server {
    pub(super) fn new(door: Door, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let limits = door.proxy.limits();
        Self {
            http1: http1_builder(limits),
            http2: http2_builder(limits, tasks),
            door: Arc::new(door),
            shutdown,
        }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: TcpStream) {
        let Some(is_http2) = self.begins_as_http2(&stream).await else {
            return;
        };
        let activity = Arc::new(Activity::default());
        let io = CountedIo {
            io: TokioIo::new(stream),
            activity: Arc::clone(&activity),
        };
        let service = service_fn(|request: Request<Incoming>| {
            let door = Arc::clone(&self.door);
            let in_flight = InFlight::begin(&activity);
            // On the heap for as long as it runs: hyper would keep its room, 3 kB, for the whole
            // life of the connection.
            Box::pin(async move {
                let _in_flight = in_flight;
                Ok::<_, Infallible>(answer(&door, request).await)
            })
        });
        // Likewise, what only one of the two needs.
        if is_http2 {
            Box::pin(self.drive(self.http2.serve_connection(io, service), &activity)).await;
        } else {
            Box::pin(self.drive(self.http1.serve_connection(io, service), &activity)).await;
        }
    }

    /// Whether the client speaks HTTP/2; none where it hangs up or says nothing.
    ///
    /// What it says is only looked at: reading it apart from the rest would have hyper take twice
    /// the buffer for every connection.
    async fn begins_as_http2(&self, stream: &TcpStream) -> Option<bool> {
        let looking = async {
            let mut begin = [0; HTTP2_PREFACE.len()];
            loop {
                let count = stream.peek(&mut begin).await.ok()?;
                if count == 0 {
                    return None;
                }
                if begin[..count] != HTTP2_PREFACE[..count] {
                    return Some(false);
                }
                if count == HTTP2_PREFACE.len() {
                    return Some(true);
                }
                tokio::time::sleep(PREFACE_PAUSE).await;
            }
        };
        tokio::select! {
            is_http2 = looking => is_http2,
            () = self.shutdown.cancelled() => None,
            () = tokio::time::sleep(self.door.proxy.limits().http_head) => None,
        }
    }

    async fn drive(
        &self,
        connection: impl GracefulConnection<Error = hyper::Error>,
        activity: &Activity,
    ) {
        tokio::pin!(connection);
        let idle = activity.idle(self.door.proxy.limits());
        tokio::select! {
            // A client that broke off is nothing that an operator could mend.
            ended = connection.as_mut() => return log_end(ended),
            () = self.shutdown.cancelled() => {}
            () = idle => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection.as_mut() => log_end(ended),
            () = activity.idle(self.door.proxy.limits()) => {}
        }
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

fn head_bytes_max(limits: &Limits) -> usize {
    limits.headers_bytes_max + limits.query_bytes_max + REQUEST_LINE_BYTES_MAX
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http_head)
        .max_buf_size(head_bytes_max(limits));
    // Saying what is so already would have hyper clear 64 bytes a field on the heap for every
    // request, instead of none on the stack.
    if limits.http_fields_max != HYPER_FIELDS_MAX {
        builder.max_headers(limits.http_fields_max);
    }
    builder
}

fn http2_builder(limits: &Limits, tasks: TaskTracker) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(u32::try_from(head_bytes_max(limits)).unwrap_or(u32::MAX));
    builder
}

/// Runs what a connection starts (HTTP/2 streams) as tasks of the endpoint.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// What a connection has done, to tell an idle or stuck one from one that works.
///
/// It costs an invocation a few additions on a line that no other connection touches; a timer
/// runs once a period and not for every request.
#[derive(Debug, Default)]
struct Activity {
    in_flight: AtomicUsize,
    requests: AtomicU64,
    bytes_written: AtomicU64,
}

impl Activity {
    /// Returns when nothing was asked for, is under way, or could be written for a while:
    /// [`Limits::http_head`] at first, [`Limits::http_idle`] afterwards.
    async fn idle(&self, limits: &Limits) {
        let mut before = self.seen();
        let mut pause = limits.http_head;
        loop {
            tokio::time::sleep(pause).await;
            let now = self.seen();
            if now == before && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = now;
            pause = limits.http_idle;
        }
    }

    fn seen(&self) -> (u64, u64) {
        let requests = self.requests.load(Ordering::Relaxed);
        (requests, self.bytes_written.load(Ordering::Relaxed))
    }
}

/// A request that is being answered; dropping it ends that.
struct InFlight(Arc<Activity>);

impl InFlight {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that counts what its client takes.
struct CountedIo {
    io: TokioIo<TcpStream>,
    activity: Arc<Activity>,
}

impl CountedIo {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            let bytes = u64::try_from(*bytes).unwrap_or(u64::MAX);
            self.activity
                .bytes_written
                .fetch_add(bytes, Ordering::Relaxed);
        }
        written
    }
}

impl Read for CountedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for CountedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
