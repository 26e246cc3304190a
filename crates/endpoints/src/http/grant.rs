//! What a response lets pages of other sites do: the CORS protocol (Fetch standard, section 3.3).
//!
//! Credentials (cookies, certificates) are never granted: a function that wants them from pages of
//! another site answers for itself.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

/// What a preflight asks and is told where the endpoint is on a network that the page's site is not
/// on (Private Network Access).
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// The methods that a preflight is told, and which method it asked for where it is another one.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const LISTED: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// How long a browser may remember what a preflight was told, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers");

/// What the response to one request lets pages of other sites do.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    /// The pages that may read it.
    pub(crate) to: Readers,
    /// Whether the function's own setting says so: then what the function itself says is void.
    pub(crate) is_functions: bool,
}

/// The pages that may read a response.
#[derive(Debug, Default)]
pub(crate) enum Readers {
    /// Those that the function lets.
    #[default]
    Unsaid,
    /// Those of this origin, where there is one; another request may be told something else.
    Of(Option<HeaderValue>),
    /// All.
    All,
}

impl Grant {
    /// The response to a preflight, the request with which a browser asks before it sends another;
    /// none where it is no preflight, or its page may not read a reply.
    pub(crate) fn preflight<B: Default>(&self, head: &Parts) -> Option<Response<B>> {
        let asked = preflight_method(head)?;
        match self.to {
            Readers::Of(Some(_)) | Readers::All => {}
            Readers::Unsaid | Readers::Of(None) => return None,
        }
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let is_listed = LISTED.iter().any(|listed| asked == listed);
        let methods = if is_listed { METHODS } else { asked.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        for names in head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.append(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if head.headers.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE) {
            headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
        }
        headers.append(VARY, PREFLIGHT_VARY);
        Some(response)
    }

    /// Says it in the response.
    pub(crate) fn put_into<B>(&self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        let origin = match &self.to {
            Readers::Unsaid => return,
            Readers::Of(origin) => {
                vary_by_origin(headers);
                origin.clone()
            }
            Readers::All => Some(ANY),
        };
        if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) && !self.is_functions {
            return;
        }
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        let Some(origin) = origin else {
            headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    }
}

/// The method that a preflight asks for.
fn preflight_method(head: &Parts) -> Option<&HeaderValue> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(http::header::ORIGIN) {
        return None;
    }
    head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells caches that the response depends on the page's origin.
fn vary_by_origin(headers: &mut HeaderMap) {
    let lists = |value: &HeaderValue| {
        let names = value.to_str().unwrap_or_default().split(',');
        let mut names = names.map(str::trim);
        names.any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    };
    if !headers.get_all(VARY).iter().any(lists) {
        headers.append(VARY, ORIGIN);
    }
}
