//! From a request to what an invocation needs.

use crate::connection::{Charge, Connection};
use bytes::BytesMut;
use faas::{FunctionName, HeaderError, Headers, InvokeError, Limits, RequestPart};
use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use net::{Pace, Spent};
use std::borrow::Cow;

/// The function that a path names: the path without its leading slash, exactly. A path with
/// percent-escapes is decoded where that makes it a name.
pub(crate) fn function_name(path: &str) -> Cow<'_, str> {
    let name = path.strip_prefix('/').unwrap_or(path);
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8();
    match decoded {
        Ok(decoded) if decoded.parse::<FunctionName>().is_ok() => decoded,
        Ok(_) | Err(_) => Cow::Borrowed(name),
    }
}

/// The method without an allocation where it is a usual one.
pub(crate) fn method(method: &Method) -> Bytes {
    let usual = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::HEAD,
        Method::OPTIONS,
    ];
    let texts = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    let found = usual.iter().position(|m| m == method);
    found.map_or_else(
        || Bytes::copy_from_slice(method.as_str().as_bytes()),
        |at| Bytes::from_static(texts[at].as_bytes()),
    )
}

pub(crate) fn check_query(query: &str, limits: &Limits) -> Result<(), InvokeError> {
    if query.len() <= limits.query_bytes_max {
        return Ok(());
    }
    Err(InvokeError::TooLarge {
        part: RequestPart::Query,
        bytes_max: limits.query_bytes_max,
    })
}

/// The fields that are meant for the function.
pub(crate) fn headers(head: &Parts) -> Result<Headers, HeaderError> {
    let named = connection_options(&head.headers);
    // The target's host is the request's: HTTP/2 has it in a pseudo-header (RFC 9113 section 8.3.1),
    // and in HTTP/1.1 it makes the field void (RFC 9112 section 3.2.2).
    let authority = head.uri.authority();
    let end_to_end = head.headers.iter().filter(|(name, _)| {
        let is_void = authority.is_some() && *name == HOST;
        let name = name.as_str();
        !is_void && !is_hop_by_hop(name) && !named.is_some_and(|n| lists(n, name))
    });
    let fields = end_to_end.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let authority = authority.map(|authority| (&b"host"[..], authority.as_str().as_bytes()));
    Headers::collect(authority.into_iter().chain(fields))
}

/// Whether a field belongs to one connection and not to the message, RFC 9110 section 7.6.1.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What the `Connection` field lists beyond `close` and `keep-alive`.
fn connection_options(headers: &HeaderMap) -> Option<&str> {
    let options = headers.get(CONNECTION)?.to_str().ok()?;
    let usual = options.eq_ignore_ascii_case("close") || options.eq_ignore_ascii_case("keep-alive");
    (!usual).then_some(options)
}

fn lists(options: &str, name: &str) -> bool {
    let mut options = options.split(',');
    options.any(|option| option.trim().eq_ignore_ascii_case(name))
}

/// Why a body did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    TooLarge(#[from] InvokeError),
    #[error("the body came too slowly; send at least {0} bytes a second")]
    Slow(u64),
    #[error(transparent)]
    Spent(#[from] Spent),
    #[error("the body could not be read: {0}")]
    Broken(#[from] hyper::Error),
}

/// Reads a whole body within its bounds of size and pace. Memory is taken as it comes.
pub(crate) async fn read_body(
    mut body: Incoming,
    (connection, charge): (&Connection, &mut Charge),
    limits: &Limits,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits.payload_bytes_max {
        return Err(too_large(limits));
    }
    let mut pace = Pace::new(limits.http_idle, limits.pace_bytes_min);
    let Some(first) = next_piece(&mut pace, &mut body, limits).await? else {
        return Ok(Bytes::new());
    };
    charge.grow(connection, first.len())?;
    // A small body comes in one piece, which is passed on as it is.
    if body.is_end_stream() && first.len() <= limits.payload_bytes_max {
        return Ok(first);
    }
    let reserve = announced.min(limits.http_body_reserve_bytes_max);
    let mut whole = BytesMut::with_capacity(reserve.max(first.len()));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = next_piece(&mut pace, &mut body, limits).await? {
        if whole.len() + data.len() > limits.payload_bytes_max {
            return Err(too_large(limits));
        }
        connection.understood();
        charge.grow(connection, data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The next piece, which has to come at its pace.
async fn next_piece(
    pace: &mut Pace,
    body: &mut Incoming,
    limits: &Limits,
) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = tokio::time::timeout_at(pace.deadline(), body.frame()).await;
        let Ok(frame) = frame else {
            return Err(BodyError::Slow(limits.pace_bytes_min));
        };
        let Some(frame) = frame.transpose()? else {
            return Ok(None);
        };
        // What is no data is trailers, which no function asks for.
        if let Ok(data) = frame.into_data() {
            pace.came(data.len());
            return Ok(Some(data));
        }
    }
}

fn too_large(limits: &Limits) -> BodyError {
    BodyError::TooLarge(InvokeError::TooLarge {
        part: RequestPart::Body,
        bytes_max: limits.payload_bytes_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_function_exactly() {
        let check = |path: &str, name: &str| assert_eq!(function_name(path), name, "{path}");
        check("/sieve", "sieve");
        check("/sieve/primes", "sieve/primes");
        check("/sieve%2Fprimes", "sieve/primes");
        check("/%73ieve", "sieve");
        check("/sieve/", "sieve/");
        check("//sieve", "/sieve");
        check("/a%20b", "a%20b");
        check("/%ff", "%ff");
        check("/%2e%2e", "%2e%2e");
        check("/", "");
        check("*", "*");
    }

    #[test]
    fn fields_of_the_connection_stay_with_the_connection() {
        let request = http::Request::builder()
            .header("Connection", "X-Mine, close")
            .header("X-Mine", "1")
            .header("Transfer-Encoding", "chunked")
            .header("TE", "trailers")
            .header("X-Yours", "2");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let headers = headers(&head).unwrap();
        let fields: Vec<_> = headers.iter().collect();
        assert_eq!(fields, [("x-yours", &b"2"[..])]);
    }
}
