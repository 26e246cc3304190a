//! What a browser sends for pages of other sites.

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use std::net::IpAddr;

/// Which pages may call functions through a browser, and under which names of this host.
///
/// A page of any site can make the browser of a machine send requests to that machine, where the
/// endpoint may listen for it alone. It says so in the field `Origin`, or it has its own name point
/// here (DNS rebinding), which shows in the field `Host`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Browsers {
    /// Whether only names of this machine and those in `hosts` are answered to.
    is_closed: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "a page of {0:?} may not call functions here; allow it with --http-origins, or send no \
         Origin field"
    )]
    Origin(String),
    #[error(
        "{0:?} is not a name of this machine; call it by its address or localhost, or allow the \
         name with --http-hosts"
    )]
    Host(String),
}

impl Browsers {
    /// Lets pages of these origins (`https://example.com`) call, and those that were loaded from
    /// here, under these names of this host; `*` is any. Where nothing is named, an endpoint that
    /// listens for this machine alone answers to its local names and its own pages, another one to
    /// all.
    #[must_use]
    pub fn new(is_loopback: bool, hosts: Vec<String>, origins: Vec<String>) -> Self {
        Self {
            is_closed: is_loopback || !hosts.is_empty() || !origins.is_empty(),
            hosts,
            origins,
        }
    }

    /// Whether the request may reach a function.
    pub(crate) fn check(&self, head: &Parts) -> Result<(), Refused> {
        if !self.is_closed {
            return Ok(());
        }
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => head.headers.get(HOST).map(text).unwrap_or_default(),
        };
        let name = name_of(host);
        let is_known = is_local_name(name) || lists(&self.hosts, name);
        if !name.is_empty() && !is_known {
            return Err(Refused::Host(name.to_owned()));
        }
        match origin(&head.headers) {
            Some(origin) if !self.allows(origin, host) => Err(Refused::Origin(origin.to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    fn allows(&self, origin: &str, host: &str) -> bool {
        let site = origin.split_once("://").map(|(_scheme, site)| site);
        site.is_some_and(|site| site.eq_ignore_ascii_case(host)) || lists(&self.origins, origin)
    }
}

/// Whether a page of another site can't have this as its own name: an address, localhost, a name
/// without dots, or one of the local network (RFC 6762), which no stranger can register.
fn is_local_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let is_local = lower.ends_with(".localhost") || lower.ends_with(".local");
    bare.parse::<IpAddr>().is_ok() || is_local || !lower.contains('.')
}

fn lists(names: &[String], name: &str) -> bool {
    names
        .iter()
        .any(|listed| listed == "*" || listed.eq_ignore_ascii_case(name))
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(ORIGIN).map(text)
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(browsers: &Browsers, host: &str, origin: Option<&str>, is_allowed: bool) {
        let mut request = http::Request::get("/f").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(
            browsers.check(&head).is_ok(),
            is_allowed,
            "{host} {origin:?}"
        );
    }

    #[test]
    fn on_loopback_pages_of_other_sites_and_made_up_names_are_refused() {
        let closed = Browsers::new(true, Vec::new(), Vec::new());
        check(&closed, "127.0.0.1:8000", None, true);
        check(
            &closed,
            "localhost:8000",
            Some("http://localhost:8000"),
            true,
        );
        check(&closed, "[::1]:8000", None, true);
        check(
            &closed,
            "localhost:8000",
            Some("https://evil.example"),
            false,
        );
        check(&closed, "localhost:8000", Some("null"), false);
        check(
            &closed,
            "localhost:8000",
            Some("http://localhost:3000"),
            false,
        );
        check(&closed, "evil.example:8000", None, false);
        check(
            &closed,
            "127.0.0.1.evil.example",
            Some("http://127.0.0.1.evil.example"),
            false,
        );
    }

    #[test]
    fn what_is_named_is_allowed_and_closes_to_the_rest() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let named = Browsers::new(
            false,
            names(&["edge.example"]),
            names(&["https://app.example"]),
        );
        check(
            &named,
            "edge.example:8000",
            Some("https://app.example"),
            true,
        );
        check(
            &named,
            "edge.example:8000",
            Some("http://edge.example:8000"),
            true,
        );
        check(
            &named,
            "edge.example:8000",
            Some("https://evil.example"),
            false,
        );
        check(&named, "evil.example", None, false);
        let any = Browsers::new(true, names(&["*"]), names(&["*"]));
        check(&any, "evil.example", Some("https://evil.example"), true);
    }

    #[test]
    fn off_loopback_functions_decide_themselves() {
        let open = Browsers::new(false, Vec::new(), Vec::new());
        check(&open, "edge.example", Some("https://app.example"), true);
    }
}
