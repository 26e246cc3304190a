//! What the head of a request may be, over HTTP/1.1, HTTP/2 and gRPC.

use faas::Limits;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

/// Why a request is refused for its head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("a request may have at most {most} header fields, got {count}")]
    Fields { most: usize, count: usize },
    #[error("an HTTP/1.1 request needs a Host field")]
    NoHost,
    #[error("a request needs one Host field, got several")]
    SeveralHosts,
    #[error("the host must be a name or an address and an optional port")]
    Host,
    #[error("the Host field and :authority name different hosts; send one of them")]
    OtherHost,
    #[error("a method may have at most {most} bytes, got {bytes}")]
    Method { most: usize, bytes: usize },
    #[error("this is not a proxy: CONNECT is not supported")]
    Connect,
    #[error("the only transfer coding that is supported is chunked; send Content-Encoding instead")]
    Coding,
}

/// Refuses a request that is malformed, over a bound, or asks for what functions can't be given.
///
/// # Errors
/// With the first fault that is found.
pub(crate) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), BadHead> {
    let (most, count) = (limits.http_fields_max, request.headers().len());
    if count > most {
        return Err(BadHead::Fields { most, count });
    }
    check_host(request.uri(), request.version(), request.headers())?;
    check_method(request.method(), limits)?;
    let codings = request.headers().get_all(TRANSFER_ENCODING);
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    // In another coding a body would reach the function undone and unnamed (RFC 9112 section 6.1).
    if codings.iter().all(is_chunked) {
        Ok(())
    } else {
        Err(BadHead::Coding)
    }
}

/// Refuses a tunnel (RFC 9110 section 9.3.6), and what is longer than any method (RFC 9112
/// section 3).
fn check_method(method: &Method, limits: &Limits) -> Result<(), BadHead> {
    if *method == Method::CONNECT {
        return Err(BadHead::Connect);
    }
    let (most, bytes) = (limits.http_method_bytes_max, method.as_str().len());
    if bytes > most {
        return Err(BadHead::Method { most, bytes });
    }
    Ok(())
}

/// Whether a request names its host as RFC 9112 section 3.2 and RFC 9113 section 8.3.1 want it.
fn check_host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), BadHead> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next().map(HeaderValue::as_bytes);
    if fields.next().is_some() {
        return Err(BadHead::SeveralHosts);
    }
    if field.is_none() && version == Version::HTTP_11 {
        return Err(BadHead::NoHost);
    }
    if field.is_some_and(|field| !is_authority(field)) {
        return Err(BadHead::Host);
    }
    let Some(authority) = uri.authority() else {
        return Ok(());
    };
    let authority = authority.as_str().as_bytes();
    if !is_authority(authority) {
        return Err(BadHead::Host);
    }
    // In HTTP/1.1 a target with a host makes the field void (RFC 9112 section 3.2.2).
    let own_port = if uri.scheme_str() == Some("https") {
        b"443".as_slice()
    } else {
        b"80"
    };
    match field {
        Some(field) if version >= Version::HTTP_2 && !is_same(field, authority, own_port) => {
            Err(BadHead::OtherHost)
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether two authorities are one, in whatever writing (RFC 3986 section 6.2).
fn is_same(one: &[u8], other: &[u8], own_port: &[u8]) -> bool {
    let split = |authority| {
        let (name, port) = split_port(authority);
        let port = port.strip_prefix(b":").filter(|port| !port.is_empty());
        (name, port.unwrap_or(own_port))
    };
    let ((name, port), (other, other_port)) = (split(one), split(other));
    name.eq_ignore_ascii_case(other) && port == other_port
}

/// The host, an address of IPv6 with its brackets, and what follows it.
fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let end = match authority {
        [b'[', ..] => authority.iter().position(|b| *b == b']').map(|at| at + 1),
        _ => authority.iter().position(|b| *b == b':'),
    };
    authority.split_at(end.unwrap_or(authority.len()))
}

/// Whether it is a host, in brackets where it is an IPv6 address, and an optional port (RFC 3986
/// section 3.2). It is empty where the target has none.
fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = split_port(authority);
    let is_host = if let Some(inner) = host.strip_prefix(b"[") {
        let is_allowed = |b: &u8| b.is_ascii_hexdigit() || b":.".contains(b);
        let address = inner.strip_suffix(b"]");
        address.is_some_and(|address| address.iter().all(is_allowed))
    } else {
        let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b);
        host.iter().all(is_allowed)
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_host && is_port
}
