//! From a request to what an invocation needs.

use crate::connection::{Charge, Connection};
use bytes::BytesMut;
use faas::{FunctionName, HeaderError, Headers, InvokeError, Limits, RequestPart};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use net::Spent;
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::Instant;

/// What is allocated for a body before any of it has come, at most.
const BODY_RESERVE_BYTES_MAX: usize = 1 << 20;

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
    let end_to_end = head.headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        !is_hop_by_hop(name) && !named.is_some_and(|n| lists(n, name))
    });
    let fields = end_to_end.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    // HTTP/2 has the host in a pseudo-header, RFC 9113 section 8.3.1.
    let authority = head
        .uri
        .authority()
        .filter(|_| !head.headers.contains_key(http::header::HOST))
        .map(|authority| (&b"host"[..], authority.as_str().as_bytes()));
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
    let options = headers.get(http::header::CONNECTION)?.to_str().ok()?;
    let usual = options.eq_ignore_ascii_case("close") || options.eq_ignore_ascii_case("keep-alive");
    (!usual).then_some(options)
}

fn lists(options: &str, name: &str) -> bool {
    let mut options = options.split(',');
    options.any(|option| option.trim().eq_ignore_ascii_case(name))
}

/// Why the `Host` field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHost {
    #[error("an HTTP/1.1 request needs a Host field")]
    Missing,
    #[error("a request needs one Host field, got several")]
    Several,
    #[error("the Host field must be a host and an optional port")]
    Malformed,
}

/// Whether a request names its host as RFC 9112 section 3.2 wants it.
pub(crate) fn check_host(head: &Parts) -> Result<(), BadHost> {
    let mut hosts = head.headers.get_all(http::header::HOST).iter();
    let Some(host) = hosts.next() else {
        return if head.version == Version::HTTP_11 {
            Err(BadHost::Missing)
        } else {
            Ok(())
        };
    };
    if hosts.next().is_some() {
        return Err(BadHost::Several);
    }
    if is_authority(host.as_bytes()) {
        Ok(())
    } else {
        Err(BadHost::Malformed)
    }
}

/// What a request wants that functions can't be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotImplemented {
    #[error("this is not a proxy: CONNECT is not supported")]
    Connect,
    #[error("the only transfer coding that is supported is chunked; send Content-Encoding instead")]
    Coding,
}

/// Refuses a tunnel, and bodies in codings that would reach the function undone and unnamed
/// (RFC 9110 section 9.3.6, RFC 9112 section 6.1).
pub(crate) fn check_is_understood(head: &Parts) -> Result<(), NotImplemented> {
    if head.method == Method::CONNECT {
        return Err(NotImplemented::Connect);
    }
    let codings = head.headers.get_all(http::header::TRANSFER_ENCODING);
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.iter().all(is_chunked) {
        Ok(())
    } else {
        Err(NotImplemented::Coding)
    }
}

/// Whether it is a host, in brackets where it is an IPv6 address, and an optional port (RFC 3986
/// section 3.2). It is empty where the target has none.
fn is_authority(host: &[u8]) -> bool {
    let (name, rest) = match host {
        [b'[', inner @ ..] => {
            let Some(end) = inner.iter().position(|b| *b == b']') else {
                return false;
            };
            let is_address = inner[..end]
                .iter()
                .all(|b| b.is_ascii_hexdigit() || b":.".contains(b));
            if !is_address {
                return false;
            }
            (&[][..], &inner[end + 1..])
        }
        _ => host.split_at(host.iter().position(|b| *b == b':').unwrap_or(host.len())),
    };
    let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b);
    let is_port = match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && name.iter().all(is_allowed)
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
    let mut pace = Pace::new(limits);
    let Some(first) = pace.next_piece(&mut body).await? else {
        return Ok(Bytes::new());
    };
    charge.grow(connection, first.len())?;
    // A small body comes in one piece, which is passed on as it is.
    if body.is_end_stream() && first.len() <= limits.payload_bytes_max {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.min(BODY_RESERVE_BYTES_MAX).max(first.len()));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = pace.next_piece(&mut body).await? {
        if whole.len() + data.len() > limits.payload_bytes_max {
            return Err(too_large(limits));
        }
        connection.understood();
        charge.grow(connection, data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How fast a body comes.
struct Pace<'a> {
    limits: &'a Limits,
    begin: Instant,
    received: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            begin: Instant::now(),
            received: 0,
        }
    }

    /// The next piece, which has to come within [`Limits::http_idle`], and all together no slower
    /// than [`Limits::pace_bytes_min`].
    async fn next_piece(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = tokio::time::timeout_at(self.deadline(), body.frame()).await;
            let Ok(frame) = frame else {
                return Err(BodyError::Slow(self.limits.pace_bytes_min));
            };
            let Some(frame) = frame.transpose()? else {
                return Ok(None);
            };
            // What is no data is trailers, which no function asks for.
            if let Ok(data) = frame.into_data() {
                self.received += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }

    fn deadline(&self) -> Instant {
        let idle = self.limits.http_idle;
        let paced = self.received * 1000 / self.limits.pace_bytes_min.max(1);
        let whole = self.begin + idle + Duration::from_millis(paced);
        if self.received == 0 {
            whole
        } else {
            whole.min(Instant::now() + idle)
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
