//! The HTTP endpoint: HTTP/1.1 and HTTP/2 without TLS on one port, any method at `/NAME`.

mod browser;
mod reply;
mod request;

pub use browser::Browsers;
#[cfg(feature = "grpc")]
pub(crate) use request::is_hop_by_hop;

use crate::connection::{Charge, Connection, owned};
use crate::metered::Metered;
use crate::server::{self, Style};
use faas::Proxy;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use net::Clients;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
pub async fn serve(
    listener: TcpListener,
    clients: Arc<Clients>,
    (proxy, browsers): (Arc<Proxy>, Browsers),
    shutdown: CancellationToken,
) {
    let door = Door {
        proxy: Arc::clone(&proxy),
        browsers,
    };
    let cut = server::serve(listener, clients, (door, proxy), shutdown).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "HTTP connections were cut");
    }
}

/// What answers requests.
#[derive(Debug)]
struct Door {
    proxy: Arc<Proxy>,
    browsers: Browsers,
}

impl server::Door for Door {
    type Body = Metered<Full<Bytes>>;

    const STYLE: Style = Style::Http;

    async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Self::Body> {
        let is_head = request.method() == http::Method::HEAD;
        let mut is_unread = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
        let (response, held) = match connection.charge(request.headers()) {
            Ok(mut charge) => {
                let called = call(self, request, (connection, &mut charge, &mut is_unread)).await;
                let response = called.unwrap_or_else(|refusal| refusal);
                match charge.reply(connection, &response) {
                    Ok(held) => (response, held),
                    Err(spent) => (reply::spent(spent), None),
                }
            }
            Err(spent) => (reply::spent(spent), None),
        };
        let response = if is_unread {
            reply::last(response)
        } else {
            response
        };
        let response = if is_head {
            reply::without_body(response)
        } else {
            response
        };
        response.map(|body| Metered::new(body, held, connection))
    }
}

/// Decode, invoke, encode; errors are encoded too.
async fn call(
    door: &Door,
    request: Request<Incoming>,
    (connection, charge, is_unread): (&Connection, &mut Charge, &mut bool),
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let proxy = &door.proxy;
    let (head, body) = request.into_parts();
    request::check_host(&head).map_err(reply::bad_host)?;
    request::check_is_understood(&head).map_err(reply::not_implemented)?;
    door.browsers
        .check(&head)
        .map_err(|refused| reply::foreign(&refused))?;
    let name = request::function_name(head.uri.path());
    // An unknown name is told before its body is read.
    if !proxy.knows(&name) {
        return Err(reply::not_found(&name));
    }
    let limits = proxy.limits();
    let query = head.uri.query().unwrap_or_default();
    request::check_query(query, limits).map_err(|error| reply::failed(&error))?;
    let headers = request::headers(&head).map_err(reply::bad_headers)?;
    let payload = request::read_body(body, (connection, charge), limits).await;
    let payload = payload.map_err(|error| reply::bad_body(&error))?;
    *is_unread = false;
    let mut invocation = faas::Invocation {
        id: faas::InvocationId::next(),
        method: request::method(&head.method),
        path: Bytes::copy_from_slice(head.uri.path().as_bytes()),
        query: Bytes::copy_from_slice(query.as_bytes()),
        headers,
        payload,
    };
    let result = if head.headers.contains_key(ASYNC_HEADER) {
        let bytes = invocation.payload.len() + invocation.headers.len_bytes();
        let held = charge.detach(connection, bytes).map_err(reply::spent)?;
        // The payload goes when the call has ended, and with it what is held for it.
        invocation.payload = owned(invocation.payload, held);
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
    charge.shrink();
    proxy.hold_back(&error).await;
    Err(reply::failed(&error))
}
