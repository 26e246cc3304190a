//! Accepting connections for the API: bounded in number, patience and shutdown.

use axum::body::{Body, Bytes};
use faas::Limits;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use net::{Bounds, Client, Clients, Paced, Peer, Slow, Socket, Upload};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where connections come from.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Either<TcpStream, UnixStream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small answers go out at once; a socket that can't is slower, no more.
                let _is_set = stream.set_nodelay(true).is_ok();
                Ok((Either::Left(stream), peer.ip().into()))
            }
            Self::Unix(listener) => Ok((Either::Right(listener.accept().await?.0), Peer::Local)),
        }
    }
}

/// The clients of one listener. An address has half of the places; through the socket comes nobody
/// but its owner.
pub(crate) fn clients(limits: &Limits, listener: &Listener) -> Arc<Clients> {
    let connections_max = limits.management_connections_max;
    let peer_connections_max = match listener {
        Listener::Tcp(_) => connections_max.div_ceil(2),
        Listener::Unix(_) => connections_max,
    };
    Clients::new(Bounds {
        connections_max,
        peer_connections_max,
        // The bodies are bounded where they are read, and the rest by the number.
        bytes_max: usize::MAX,
        peer_bytes_max: usize::MAX,
        evictions_max: limits.connection_evictions_max,
        leaving_max: limits.connections_leaving_max,
        accept_pause: limits.accept_pause,
        slow: Slow {
            bytes: limits.upload_slow_bytes,
            first_bytes: limits.upload_first_bytes,
        },
    })
}

/// Serves until `shutdown`, then lets the calls under way finish, up to [`Limits::drain`].
pub(crate) async fn serve(
    listener: Listener,
    routes: axum::Router,
    (limits, clients): (&Limits, Arc<Clients>),
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                clients.evict();
                tokio::time::sleep(limits.accept_pause).await;
                continue;
            }
        };
        // The idlest gives way, else the slowest upload; where all are busy, the new one is closed.
        let Some(place) = clients.admit(peer) else {
            continue;
        };
        let client = Arc::clone(place.client());
        let routes = (routes.clone(), Arc::clone(&client));
        let patience = Patience {
            head: limits.http_head,
            idle: limits.http_idle,
            pace_bytes_min: limits.pace_bytes_min,
        };
        let connection = converse(stream, routes, patience, shutdown.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
                () = client.closed() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait())
        .await
        .is_err()
    {
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// A body that counts how fast it comes.
fn counted(body: Incoming, client: &Arc<Client>) -> Body {
    if body.is_end_stream() {
        return Body::new(body);
    }
    let upload = Upload::begin(client);
    Body::new(body.map_frame(move |frame| {
        upload.came(frame.data_ref().map_or(0, Bytes::len));
        frame
    }))
}

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until it has sent the head of a request.
    head: Duration,
    /// Until it takes something of an answer.
    idle: Duration,
    /// What it has to take of one in a second.
    pace_bytes_min: u64,
}

async fn converse(
    stream: impl Socket,
    (routes, client): (axum::Router, Arc<Client>),
    patience: Patience,
    shutdown: CancellationToken,
) {
    let least = (patience.idle, patience.pace_bytes_min);
    let stream = Paced::new(stream, Arc::clone(&client), least);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(|body| counted(body, &client));
        request.extensions_mut().insert(client.share().peer());
        let in_flight = client.begin();
        let answering = routes.call(request);
        async move {
            let _in_flight = in_flight;
            answering.await
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke off");
    }
}
