//! From a reply or an error to a response.

use super::browser::Refused;
use super::head::BadHead;
use super::request::{BodyError, is_hop_by_hop};
use super::{ERROR_HEADER, is_ours};
use faas::{Fault, HeaderError, InvokeError, InvokeErrorKind, Reply, RequestPart};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Bytes;
use net::Spent;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// The response for a function's reply. A function that names no content type gets
/// `text/plain; charset=utf-8` where its payload is UTF-8, else `application/octet-stream`.
pub(crate) fn encode(reply: Reply) -> Response<Full<Bytes>> {
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        let text = format!("the function answered with the status {}", reply.status);
        return failed(&InvokeError::Function(text));
    };
    let mut headers = HeaderMap::with_capacity(4);
    for (name, value) in reply.headers.iter() {
        if is_hop_by_hop(name) || name == "content-length" || is_ours(name) {
            continue;
        }
        // The fields were checked to follow RFC 9110, so that both conversions hold.
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let has_body = !matches!(status.as_u16(), 204 | 205 | 304);
    let payload = if has_body {
        reply.payload
    } else {
        Bytes::new()
    };
    if has_body && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, content_type(&payload));
    }
    let mut response = Response::new(Full::new(payload));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn content_type(payload: &[u8]) -> HeaderValue {
    if std::str::from_utf8(payload).is_ok() {
        TEXT
    } else {
        BINARY
    }
}

/// The status of an invocation that brought no reply.
pub(crate) fn status(kind: InvokeErrorKind) -> StatusCode {
    match kind {
        InvokeErrorKind::NotFound => StatusCode::NOT_FOUND,
        InvokeErrorKind::TooLarge(RequestPart::Body | RequestPart::HeadAndBody) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        InvokeErrorKind::TooLarge(RequestPart::Headers) => {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        }
        InvokeErrorKind::TooLarge(RequestPart::Query) => StatusCode::URI_TOO_LONG,
        InvokeErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        InvokeErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        InvokeErrorKind::Overloaded | InvokeErrorKind::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The response for an invocation that brought no reply.
pub(crate) fn failed(error: &InvokeError) -> Response<Full<Bytes>> {
    let mut response = text(status(error.kind()), error.fault(), &error.to_string());
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The response where no function has the name; at `/` it says how to call one.
pub(crate) fn not_found(name: &str) -> Response<Full<Bytes>> {
    if name.is_empty() {
        let how = "call a function by its name as the path, such as /sieve; \
                   tinyfaas list shows the names";
        return text(StatusCode::NOT_FOUND, Fault::Caller, how);
    }
    failed(&InvokeError::NotFound(name.to_owned()))
}

/// The response where the fields can't be passed on.
pub(crate) fn bad_headers(error: HeaderError) -> Response<Full<Bytes>> {
    let status = match error {
        HeaderError::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        HeaderError::Truncated
        | HeaderError::BadName
        | HeaderError::Capitals
        | HeaderError::BadValue => StatusCode::BAD_REQUEST,
    };
    text(status, Fault::Caller, &error.to_string())
}

/// The response where the body did not come.
pub(crate) fn bad_body(error: &BodyError) -> Response<Full<Bytes>> {
    let status = match error {
        BodyError::TooLarge(error) => return failed(error),
        BodyError::Spent(error) => return spent(*error),
        BodyError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken(_) => StatusCode::BAD_REQUEST,
    };
    text(status, Fault::Caller, &error.to_string())
}

/// The response where there is no memory for the request or its reply.
pub(crate) fn spent(error: Spent) -> Response<Full<Bytes>> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = text(status, Fault::Platform, &error.to_string());
    let pause = HeaderValue::from_static("5");
    response.headers_mut().insert(RETRY_AFTER, pause);
    response
}

/// The response where the head of a request is refused.
pub(crate) fn bad_head(error: &BadHead) -> Response<Full<Bytes>> {
    let status = match error {
        BadHead::Fields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        BadHead::NoHost | BadHead::SeveralHosts | BadHead::Host | BadHead::OtherHost => {
            StatusCode::BAD_REQUEST
        }
        BadHead::Method { .. } | BadHead::Connect | BadHead::Coding => StatusCode::NOT_IMPLEMENTED,
    };
    text(status, Fault::Caller, &error.to_string())
}

/// The response to what a browser sends for a page of another site.
pub(crate) fn foreign(refused: &Refused) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::FORBIDDEN, Fault::Caller, &refused.to_string());
    response.headers_mut().insert(VARY, ORIGIN);
    response
}

/// The response before the function has run.
pub(crate) fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// A response after which the connection ends, since the request's body was not read: it says so
/// (RFC 9112 section 9.6).
pub(super) fn last<B>(mut response: Response<B>) -> Response<B> {
    let close = http::HeaderValue::from_static("close");
    response
        .headers_mut()
        .insert(http::header::CONNECTION, close);
    response
}

/// The response as a HEAD request gets it: the fields alone, with the length that the body has.
pub(crate) fn without_body(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut head, body) = response.into_parts();
    if let Some(len) = body.size_hint().exact().filter(|len| *len > 0) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    Response::from_parts(head, Full::default())
}

fn text(status: StatusCode, fault: Fault, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    let fault = HeaderValue::from_static(fault.as_str());
    headers.insert(HeaderName::from_static(ERROR_HEADER), fault);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_status() {
        let check = |kind, expected: u16| assert_eq!(status(kind).as_u16(), expected, "{kind:?}");
        check(InvokeErrorKind::NotFound, 404);
        check(InvokeErrorKind::TooLarge(RequestPart::Body), 413);
        check(InvokeErrorKind::TooLarge(RequestPart::HeadAndBody), 413);
        check(InvokeErrorKind::TooLarge(RequestPart::Headers), 431);
        check(InvokeErrorKind::TooLarge(RequestPart::Query), 414);
        check(InvokeErrorKind::Failed, 500);
        check(InvokeErrorKind::Deadline, 504);
        check(InvokeErrorKind::Overloaded, 503);
        check(InvokeErrorKind::Unavailable, 503);
    }
}
