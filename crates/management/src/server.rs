//! Accepting connections for the API: bounded in number, patience and shutdown.

use axum::body::{Body, Bytes};
use faas::Limits;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use net::{Bounds, Client, Clients, Peer, Upload};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting pauses after it failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // The idlest gives way, else the slowest upload; where all are busy, the new one is closed.
        let Some(place) = clients.admit(peer) else {
            continue;
        };
        let client = Arc::clone(place.client());
        let routes = (routes.clone(), Arc::clone(&client));
        let connection = converse(stream, routes, limits.http_head, shutdown.clone());
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

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (routes, client): (axum::Router, Arc<Client>),
    head: Duration,
    shutdown: CancellationToken,
) {
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
        .header_read_timeout(head)
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
