//! The HTTP endpoint: HTTP/1.1 and HTTP/2 without TLS on one port, any method at `/NAME`.

mod connection;
mod reply;
mod request;

#[cfg(feature = "grpc")]
pub(crate) use request::is_hop_by_hop;

use crate::listen::Listener;
use crate::wake::polled_again;
use faas::Proxy;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The header that asks for an answer before the function has run.
pub(crate) const ASYNC_HEADER: &str = "x-tinyfaas-async";

/// The header that says whose fault it is that there is no reply.
pub(crate) const ERROR_HEADER: &str = "x-tinyfaas-error";

/// Whether a field is one that only tinyFaaS itself may send to callers.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("x-tinyfaas-")
}

/// Answers HTTP on `listener` until `shutdown`.
///
/// Then it accepts no more, closes idle connections, and lets the others finish the calls that
/// they have, up to [`Limits::drain`](faas::Limits::drain). Returns when every connection is
/// closed.
pub async fn serve(listener: TcpListener, proxy: Arc<Proxy>, shutdown: CancellationToken) {
    let listener = Listener::new(listener, proxy.limits().connections_max);
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    let server = Arc::new(connection::Server::new(
        Door {
            room: request::Room::new(proxy.limits()),
            proxy: Arc::clone(&proxy),
        },
        tasks.clone(),
        shutdown.clone(),
    ));
    loop {
        let (stream, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (server, cut) = (Arc::clone(&server), cut.clone());
        tasks.spawn(polled_again(async move {
            let _place = place;
            tokio::select! {
                () = server.serve(stream) => {}
                () = cut.cancelled() => {}
            }
        }));
    }
    drop(listener);
    tasks.close();
    let drained = tokio::time::timeout(proxy.limits().drain, tasks.wait()).await;
    if drained.is_err() {
        tracing::warn!(connections = tasks.len(), "HTTP connections are cut");
        cut.cancel();
        tasks.wait().await;
    }
}

/// What answers requests.
#[derive(Debug)]
struct Door {
    proxy: Arc<Proxy>,
    room: request::Room,
}

/// Answers one request. Dropping the future cancels the invocation.
async fn answer(door: &Door, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_head = request.method() == http::Method::HEAD;
    let response = match call(door, request).await {
        Ok(response) => response,
        Err(refusal) => refusal,
    };
    if is_head {
        reply::without_body(response)
    } else {
        response
    }
}

/// Decode, invoke, encode; errors are encoded too.
async fn call(
    door: &Door,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let proxy = &door.proxy;
    let (head, body) = request.into_parts();
    let name = request::function_name(head.uri.path());
    // An unknown name is told before its body is read.
    if !proxy.knows(&name) {
        return Err(reply::not_found(&name));
    }
    let limits = proxy.limits();
    let query = head.uri.query().unwrap_or_default();
    request::check_query(query, limits).map_err(|error| reply::failed(&error))?;
    let headers = request::headers(&head).map_err(reply::bad_headers)?;
    let payload = request::read_body(body, &door.room, limits).await;
    let payload = payload.map_err(|error| reply::bad_body(&error))?;
    let invocation = faas::Invocation {
        id: faas::InvocationId::next(),
        method: request::method(&head.method),
        path: Bytes::copy_from_slice(head.uri.path().as_bytes()),
        query: Bytes::copy_from_slice(query.as_bytes()),
        headers,
        payload,
    };
    let result = if head.headers.contains_key(ASYNC_HEADER) {
        let taken = proxy.invoke_detached(&name, invocation);
        taken.map(|()| reply::accepted())
    } else {
        proxy.invoke(&name, invocation).await.map(reply::encode)
    };
    let error = match result {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    // Whoever is held back holds no memory but its connection's.
    drop(name);
    drop(head);
    proxy.hold_back(&error).await;
    Err(reply::failed(&error))
}
