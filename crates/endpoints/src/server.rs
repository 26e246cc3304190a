//! One connection: HTTP/1.1 or HTTP/2, idle and slow clients, an orderly end.

use crate::connection::Connection;
use crate::idle::{Cause, idle};
use crate::io::CountedStream;
use crate::wake::polled_again;
use faas::{Limits, Proxy};
use http::{Request, Response};
use http_body::Body;
use hyper::body::{Bytes, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use net::{Client, Clients, Paced, Place};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Header fields that hyper takes where it is told no other number.
const HYPER_FIELDS_MAX: usize = 100;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4). No HTTP/1.1 request does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client of HTTP/1.1 is told where only HTTP/2 is spoken.
const HTTP1_REFUSAL: &str = "HTTP/1.1 426 Upgrade Required\r\n\
    Upgrade: h2c\r\nConnection: Upgrade, close\r\nContent-Type: text/plain; charset=utf-8\r\n\
    X-tinyFaaS-Error: caller\r\nContent-Length: 91\r\n\r\n\
    this port speaks gRPC over HTTP/2; use the HTTP endpoint's port (8000 by default) for HTTP\n";

/// What is read of such a client before it is closed.
const REFUSED_BYTES_READ: u64 = 64 << 10;

/// How often a client is looked at that has sent a part of the preface.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// What answers the requests of an endpoint.
pub(crate) trait Door: Send + Sync + 'static {
    /// The bodies of its responses.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// How its connections are served.
    const STYLE: Style;

    /// Is told of a new connection.
    fn greet(&self) {}

    /// Answers one request. Dropping the future cancels the invocation.
    fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// How the connections of an endpoint are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// HTTP/1.1 and HTTP/2; idle connections are closed.
    Http,
    /// HTTP/2 alone; idle connections are asked whether they live.
    Grpc,
}

/// Serves an endpoint until `shutdown`.
///
/// Then it accepts no more, closes idle connections, and lets the others finish the calls that
/// they have, up to [`Limits::drain`]. Returns how many connections were cut.
pub(crate) async fn serve<D: Door>(
    listener: TcpListener,
    clients: Arc<Clients>,
    (door, proxy): (D, Arc<Proxy>),
    shutdown: CancellationToken,
) -> usize {
    let tasks = TaskTracker::new();
    let until = (shutdown.clone(), proxy.limits().drain);
    let server = Server::new(door, proxy, tasks.clone(), shutdown);
    let server = Arc::new(server);
    let converse = move |stream, place| {
        let server = Arc::clone(&server);
        polled_again(async move { server.serve(stream, place).await })
    };
    net::serve(listener, clients, tasks, until, converse).await
}

/// What all connections share.
struct Server<D> {
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
    door: Arc<D>,
    proxy: Arc<Proxy>,
    shutdown: CancellationToken,
}

impl<D: Door> Server<D> {
    fn new(door: D, proxy: Arc<Proxy>, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let limits = proxy.limits();
        Self {
            http1: http1_builder(limits),
            http2: http2_builder(limits, tasks, D::STYLE),
            door: Arc::new(door),
            proxy,
            shutdown,
        }
    }

    /// Serves one connection to its end.
    async fn serve(&self, stream: TcpStream, place: Place) {
        self.door.greet();
        let Some(is_http2) = self.begins_as_http2(&stream).await else {
            return;
        };
        if !is_http2 && D::STYLE == Style::Grpc {
            let refusing = refuse_http1(stream);
            // Who does not take the answer is closed without.
            let _told = tokio::time::timeout(self.proxy.limits().http_head, refusing).await;
            return;
        }
        let head_bytes_max = head_bytes_max(self.proxy.limits());
        let Some(connection) = Connection::new(place, is_http2, head_bytes_max) else {
            return;
        };
        let connection = Arc::new(connection);
        let limits = self.proxy.limits();
        let least = (limits.http_idle, limits.pace_bytes_min);
        let io = TokioIo::new(CountedStream {
            stream: Paced::new(stream, Arc::clone(connection.client()), least),
            connection: Arc::clone(&connection),
        });
        let service = service_fn(|request: Request<Incoming>| {
            let (door, connection) = (Arc::clone(&self.door), Arc::clone(&connection));
            let in_flight = connection.client().begin();
            connection.understood();
            // On the heap for as long as it runs: hyper would keep its room, 3 kB, for the whole
            // life of the connection.
            Box::pin(async move {
                let response = door.answer(request, &connection).await;
                drop(in_flight);
                connection.answered(&response);
                Ok::<_, Infallible>(response)
            })
        });
        let client = connection.client();
        // Likewise, what only one of the two needs.
        if is_http2 {
            Box::pin(self.drive(self.http2.serve_connection(io, service), client)).await;
        } else {
            Box::pin(self.drive(self.http1.serve_connection(io, service), client)).await;
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
            () = tokio::time::sleep(self.proxy.limits().http_head) => None,
        }
    }

    async fn drive(
        &self,
        connection: impl GracefulConnection<Error = hyper::Error>,
        client: &Client,
    ) {
        tokio::pin!(connection);
        let limits = self.proxy.limits();
        tokio::select! {
            // A client that broke off is nothing that an operator could mend.
            ended = connection.as_mut() => return log_end(ended),
            () = self.shutdown.cancelled() => {}
            cause = idle(client, limits) => match cause {
                Cause::Idle => {}
                Cause::Slow => return,
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection.as_mut() => log_end(ended),
            _cause = idle(client, limits) => {}
        }
    }
}

/// Tells a client that speaks HTTP/1.1 to a port for HTTP/2 alone (RFC 9110, section 15.5.22).
async fn refuse_http1(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(HTTP1_REFUSAL.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with something unread would take the answer away.
    let mut rest = stream.take(REFUSED_BYTES_READ);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn head_bytes_max(limits: &Limits) -> usize {
    limits.headers_bytes_max + limits.query_bytes_max + limits.http_line_bytes_max
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

fn http2_builder(limits: &Limits, tasks: TaskTracker, style: Style) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.http2_window_bytes)
        .initial_connection_window_size(limits.http2_window_bytes)
        .max_send_buf_size(limits.http2_send_bytes_max)
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(u32::try_from(head_bytes_max(limits)).unwrap_or(u32::MAX));
    if style == Style::Grpc {
        builder
            .keep_alive_interval(limits.http_idle)
            .keep_alive_timeout(limits.http_head);
    }
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
