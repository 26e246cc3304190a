//! From a request to what an invocation needs.

use bytes::BytesMut;
use faas::{FunctionName, HeaderError, Headers, InvokeError, Limits};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
        what: "query",
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

/// The memory that large bodies may take together, in KiB.
#[derive(Debug)]
pub(crate) struct Room(Arc<Semaphore>);

/// Bodies up to this size need no room: connections are bounded, and so are these.
const SMALL_BYTES_MAX: usize = 16 << 10;

impl Room {
    pub(crate) fn new(limits: &Limits) -> Self {
        let kib =
            (limits.payload_bytes_max / 1024 + 1).saturating_mul(limits.http_large_bodies_max);
        Self(Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))))
    }

    /// Waits for room for a body, as long as its client may take for a piece of it.
    async fn take(&self, bytes: usize, limits: &Limits) -> Result<OwnedSemaphorePermit, BodyError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let taking = Arc::clone(&self.0).acquire_many_owned(kib);
        match tokio::time::timeout(limits.http_idle, taking).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(BodyError::NoRoom),
        }
    }
}

/// A large body, which gives its room back when its last reference goes: after an asynchronous
/// call, that is later than the answer.
struct Large {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    TooLarge(#[from] InvokeError),
    #[error("the body stopped coming for {} s; send it faster", .0.as_secs())]
    Slow(Duration),
    #[error("other bodies fill the memory that they may take together; try again in a few seconds")]
    NoRoom,
    #[error("the body could not be read: {0}")]
    Broken(#[from] hyper::Error),
}

/// Reads a whole body within its bounds of size and pace.
pub(crate) async fn read_body(
    mut body: Incoming,
    room: &Room,
    limits: &Limits,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let hint = body.size_hint();
    let announced = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
    if announced > limits.payload_bytes_max {
        return Err(too_large(limits));
    }
    let bytes_max = match hint.exact() {
        Some(_) => announced,
        None => limits.payload_bytes_max,
    };
    let Some(first) = next_piece(&mut body, limits).await? else {
        return Ok(Bytes::new());
    };
    // A small body comes in one piece, which is passed on as it is.
    if body.is_end_stream() && first.len() <= limits.payload_bytes_max {
        return Ok(first);
    }
    let room = if bytes_max > SMALL_BYTES_MAX {
        Some(room.take(bytes_max, limits).await?)
    } else {
        None
    };
    let mut whole = BytesMut::with_capacity(announced.min(BODY_RESERVE_BYTES_MAX));
    let mut piece = Some(first);
    while let Some(data) = piece {
        if whole.len() + data.len() > limits.payload_bytes_max {
            return Err(too_large(limits));
        }
        whole.extend_from_slice(&data);
        piece = next_piece(&mut body, limits).await?;
    }
    let bytes = whole.freeze();
    Ok(match room {
        Some(_room) => Bytes::from_owner(Large { bytes, _room }),
        None => bytes,
    })
}

async fn next_piece(body: &mut Incoming, limits: &Limits) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = tokio::time::timeout(limits.http_idle, body.frame()).await;
        let Ok(frame) = frame else {
            return Err(BodyError::Slow(limits.http_idle));
        };
        let Some(frame) = frame.transpose()? else {
            return Ok(None);
        };
        // What is no data is trailers, which no function asks for.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

fn too_large(limits: &Limits) -> BodyError {
    BodyError::TooLarge(InvokeError::TooLarge {
        what: "body",
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
