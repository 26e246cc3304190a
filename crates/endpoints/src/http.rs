//! The HTTP endpoint: HTTP/1.1 and HTTP/2 without TLS on one port, any method at `/NAME`.

mod browser;
mod grant;
pub(crate) mod head;
mod reply;
mod request;

pub use browser::Browsers;
#[cfg(feature = "grpc")]
pub(crate) use request::is_hop_by_hop;

use crate::connection::{Charge, Connection, owned};
use crate::metered::Metered;
use crate::server::{self, Style};
use faas::{Proxy, Route};
use grant::Grant;
use http::request::Parts;
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

impl Door {
    /// Whether a request may reach the function, and what its response lets pages do.
    fn admit(&self, head: &Parts, route: Option<&Route>) -> Result<Grant, browser::Refused> {
        self.browsers.check_host(head)?;
        self.browsers.judge(head, route)
    }
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
        let is_unread = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
        let mut turn = Turn {
            connection,
            charge: Charge::default(),
            is_unread,
            grant: Grant::default(),
        };
        let called = call(self, request, &mut turn).await;
        let (grant, is_unread) = (turn.grant, turn.is_unread);
        let mut response = called.unwrap_or_else(|refusal| refusal);
        // Errors too: a page is to see why.
        grant.put_into(&mut response);
        let (response, held) = match turn.charge.reply(connection, &response) {
            Ok(held) => (response, held),
            Err(spent) => {
                let mut response = reply::spent(spent);
                grant.put_into(&mut response);
                (response, None)
            }
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

/// A request that is answered, beside itself.
struct Turn<'a> {
    connection: &'a Connection,
    /// What it holds in memory.
    charge: Charge,
    /// Whether some of its body may be unread when it is answered.
    is_unread: bool,
    /// What its response lets pages of other sites do.
    grant: Grant,
}

/// Decode, invoke, encode; errors are encoded too.
async fn call(
    door: &Door,
    request: Request<Incoming>,
    turn: &mut Turn<'_>,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let proxy = &door.proxy;
    head::check(&request, proxy.limits()).map_err(|error| reply::bad_head(&error))?;
    let (head, body) = request.into_parts();
    let name = request::function_name(head.uri.path());
    let route = proxy.route(&name);
    let admitted = door.admit(&head, route.as_deref());
    turn.grant = admitted.map_err(|refused| reply::foreign(&refused))?;
    // An unknown name is told before its body is read.
    if route.is_none() {
        return Err(reply::not_found(&name));
    }
    drop(route);
    turn.charge = turn
        .connection
        .charge(&head.headers)
        .map_err(reply::spent)?;
    if let Some(response) = turn.grant.preflight(&head) {
        return Ok(response);
    }
    let limits = proxy.limits();
    let query = head.uri.query().unwrap_or_default();
    request::check_query(query, limits).map_err(|error| reply::failed(&error))?;
    let headers = request::headers(&head).map_err(reply::bad_headers)?;
    let payload = request::read_body(body, (turn.connection, &mut turn.charge), limits).await;
    let payload = payload.map_err(|error| reply::bad_body(&error))?;
    turn.is_unread = false;
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
        let held = turn
            .charge
            .detach(turn.connection, bytes)
            .map_err(reply::spent)?;
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
    turn.charge.shrink();
    proxy.hold_back(&error).await;
    Err(reply::failed(&error))
}
