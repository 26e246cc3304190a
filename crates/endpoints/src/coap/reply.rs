//! From a reply or an error to a response.

use super::format;
use bytes::Bytes;
use coap::{Code, Response};
use faas::{HeaderError, Headers, InvokeError, InvokeErrorKind, Reply};

/// The longest text of an error: together with the rest of the message it fits into the smallest
/// packet that IPv6 carries whole.
const DIAGNOSTIC_BYTES_MAX: usize = 1024;

/// The response for a function's reply to `method`.
pub(super) fn encode(method: &str, reply: Reply) -> Response {
    let code = code(method, reply.status);
    let has_payload = !matches!(reply.status, 204 | 205 | 304);
    let payload = if has_payload {
        reply.payload
    } else {
        Bytes::new()
    };
    let content_type = text_field(&reply.headers, "content-type");
    let content_format = match content_type {
        Some(content_type) => format::number(content_type),
        // The text of an error needs no format (RFC 7252, section 5.5.2).
        None if code.class() == 2 => Some(guess(&payload)),
        None => None,
    };
    let cache_control = text_field(&reply.headers, "cache-control");
    Response {
        code,
        content_format: content_format.filter(|_| !payload.is_empty()),
        max_age: cache_control.and_then(max_age),
        payload,
        has_run: true,
    }
}

fn text_field<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?).ok()
}

fn guess(payload: &[u8]) -> u16 {
    if std::str::from_utf8(payload).is_ok() {
        format::TEXT
    } else {
        format::BINARY
    }
}

/// How long a response may be kept, in seconds; RFC 7252 says 60 where nothing is said. A longer
/// time than the option can hold is the longest that it can.
fn max_age(cache_control: &str) -> Option<u32> {
    let mut directives = cache_control.split(',').map(str::trim);
    directives.find_map(|directive| match directive.split_once('=') {
        Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => whole_seconds(seconds),
        Some(_) => None,
        None => {
            let names = ["no-store", "no-cache"];
            let is_never = names.iter().any(|n| n.eq_ignore_ascii_case(directive));
            is_never.then_some(0)
        }
    })
}

fn whole_seconds(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// The response code for a status as in HTTP.
pub(super) fn code(method: &str, status: u16) -> Code {
    match status {
        201 => Code::CREATED,
        204 | 205 => Code::CHANGED,
        200..=299 => match method {
            "GET" | "FETCH" => Code::CONTENT,
            "DELETE" => Code::DELETED,
            _ => Code::CHANGED,
        },
        304 => Code::VALID,
        // CoAP has no redirection.
        300..=399 => Code::BAD_GATEWAY,
        401 => Code::UNAUTHORIZED,
        403 => Code::FORBIDDEN,
        404 => Code::NOT_FOUND,
        405 => Code::METHOD_NOT_ALLOWED,
        406 => Code::NOT_ACCEPTABLE,
        408 => Code::REQUEST_ENTITY_INCOMPLETE,
        409 => Code::CONFLICT,
        412 => Code::PRECONDITION_FAILED,
        413 => Code::REQUEST_ENTITY_TOO_LARGE,
        415 => Code::UNSUPPORTED_CONTENT_FORMAT,
        422 => Code::UNPROCESSABLE_ENTITY,
        429 => Code::TOO_MANY_REQUESTS,
        400..=499 => Code::BAD_REQUEST,
        501 => Code::NOT_IMPLEMENTED,
        502 => Code::BAD_GATEWAY,
        503 => Code::SERVICE_UNAVAILABLE,
        504 => Code::GATEWAY_TIMEOUT,
        _ => Code::INTERNAL_SERVER_ERROR,
    }
}

/// The code of an invocation that brought no reply.
pub(super) fn status(kind: InvokeErrorKind) -> Code {
    match kind {
        InvokeErrorKind::NotFound => Code::NOT_FOUND,
        InvokeErrorKind::TooLarge(_) => Code::REQUEST_ENTITY_TOO_LARGE,
        InvokeErrorKind::Failed => Code::INTERNAL_SERVER_ERROR,
        InvokeErrorKind::Deadline => Code::GATEWAY_TIMEOUT,
        InvokeErrorKind::Overloaded | InvokeErrorKind::Unavailable => Code::SERVICE_UNAVAILABLE,
    }
}

/// The response for an invocation that brought no reply.
pub(super) fn failed(error: &InvokeError) -> Response {
    let mut response = diagnostic(status(error.kind()), error.to_string());
    response.has_run = error.may_have_run();
    let seconds = error.retry_after_seconds();
    response.max_age = seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    response
}

/// The response where no function has the name; at the root it says how to call one.
pub(super) fn not_found(name: &str) -> Response {
    if name.is_empty() {
        let how = "call a function by its name as the path, such as /sieve";
        return without_run(diagnostic(Code::NOT_FOUND, how.to_owned()));
    }
    failed(&InvokeError::NotFound(name.to_owned()))
}

/// The response where an option can't be passed on.
pub(super) fn bad_option(error: HeaderError) -> Response {
    without_run(diagnostic(Code::BAD_OPTION, error.to_string()))
}

fn without_run(response: Response) -> Response {
    Response {
        has_run: false,
        ..response
    }
}

fn diagnostic(code: Code, mut text: String) -> Response {
    text.truncate(text.floor_char_boundary(DIAGNOSTIC_BYTES_MAX));
    let mut response = Response::new(code);
    response.payload = text.into();
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas::RequestPart;

    #[test]
    fn every_status_has_its_code() {
        let check = |method: &str, status: u16, expected: &str| {
            assert_eq!(
                code(method, status).to_string(),
                expected,
                "{method} {status}"
            );
        };
        check("GET", 200, "2.05");
        check("FETCH", 200, "2.05");
        check("POST", 200, "2.04");
        check("PUT", 202, "2.04");
        check("DELETE", 200, "2.02");
        check("POST", 201, "2.01");
        check("GET", 204, "2.04");
        check("GET", 304, "2.03");
        check("GET", 302, "5.02");
        for (status, expected) in [
            (400, "4.00"),
            (401, "4.01"),
            (403, "4.03"),
            (404, "4.04"),
            (405, "4.05"),
            (406, "4.06"),
            (408, "4.08"),
            (409, "4.09"),
            (412, "4.12"),
            (413, "4.13"),
            (415, "4.15"),
            (418, "4.00"),
            (422, "4.22"),
            (429, "4.29"),
            (499, "4.00"),
            (500, "5.00"),
            (501, "5.01"),
            (502, "5.02"),
            (503, "5.03"),
            (504, "5.04"),
            (599, "5.00"),
        ] {
            check("POST", status, expected);
        }
    }

    #[test]
    fn every_kind_of_error_has_its_code() {
        let check = |kind, expected: &str| {
            assert_eq!(status(kind).to_string(), expected, "{kind:?}");
        };
        check(InvokeErrorKind::NotFound, "4.04");
        check(InvokeErrorKind::TooLarge(RequestPart::Query), "4.13");
        check(InvokeErrorKind::Failed, "5.00");
        check(InvokeErrorKind::Deadline, "5.04");
        check(InvokeErrorKind::Overloaded, "5.03");
        check(InvokeErrorKind::Unavailable, "5.03");
    }

    #[test]
    fn the_content_type_becomes_a_content_format() {
        let check = |status: u16, headers: &[(&str, &str)], payload: &'static [u8], expected| {
            let fields = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            let reply = Reply {
                status,
                headers: Headers::collect(fields).unwrap(),
                payload: Bytes::from_static(payload),
            };
            let response = encode("GET", reply);
            assert_eq!(response.content_format, expected, "{headers:?}");
        };
        check(
            200,
            &[("content-type", "application/json")],
            b"{}",
            Some(50),
        );
        check(200, &[("content-type", "text/html")], b"<p>", None);
        check(200, &[], b"text", Some(0));
        check(200, &[], b"\xff\xfe", Some(42));
        check(200, &[], b"", None);
        check(404, &[], b"not here", None);
        check(204, &[("content-type", "text/plain")], b"dropped", None);
    }

    #[test]
    fn caching_is_passed_on() {
        let check = |cache_control: &str, expected| {
            assert_eq!(max_age(cache_control), expected, "{cache_control}");
        };
        check("max-age=5", Some(5));
        check("public, Max-Age=600", Some(600));
        check("no-store", Some(0));
        check("max-age=much", None);
        check("max-age=-1", None);
        check("max-age=4294967295", Some(u32::MAX));
        check("max-age=4294967296", Some(u32::MAX));
        check("max-age=99999999999999999999999", Some(u32::MAX));
        check("private", None);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let response = failed(&InvokeError::Function("ü".repeat(4000)));
        assert_eq!(response.payload.len(), DIAGNOSTIC_BYTES_MAX);
        assert!(std::str::from_utf8(&response.payload).is_ok());
    }
}
