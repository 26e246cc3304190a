//! What a browser sends for pages of other sites.

use super::grant::{Grant, Readers};
use faas::{Cors, Route};
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use std::net::IpAddr;

/// What of an origin or a host is shown where it is refused.
const SHOWN_BYTES_MAX: usize = 200;

/// Which pages may call functions through a browser, and under which names of this host.
///
/// A page of any site can make the browser of a machine send requests to that machine, where the
/// endpoint may listen for it alone. It says so in the field `Origin`, or it has its own name point
/// here (DNS rebinding), which shows in the field `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browsers {
    /// Whether only names of this machine and those in `hosts` are answered to.
    is_closed: bool,
    hosts: Vec<String>,
    /// For functions that have no setting of their own.
    cors: Cors,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "a page of {0:?} may not call this function; allow its origin with tinyfaas set NAME --cors \
         ORIGIN, or for all functions with serve --cors; a client that is no page sends no Origin field"
    )]
    Origin(String),
    #[error(
        "{0:?} is not a name of this machine; call it by its address or localhost, or allow the \
         name with --http-hosts"
    )]
    Host(String),
}

impl Default for Browsers {
    /// Every name, and functions answer for themselves.
    fn default() -> Self {
        Self::new(false, Vec::new(), None)
    }
}

impl Browsers {
    /// Lets the pages of `cors` call the functions that have no setting of their own, and those that
    /// were loaded from here, under these names of this host; `*` is any.
    ///
    /// Where nothing is named, an endpoint that listens for this machine alone answers to its local
    /// names and lets no page of another site call; another one answers to all names, and its functions
    /// answer for themselves.
    #[must_use]
    pub fn new(is_loopback: bool, hosts: Vec<String>, cors: Option<Cors>) -> Self {
        let is_certain = cors.as_ref().is_some_and(Cors::is_closed);
        let suiting = if is_loopback {
            Cors::None
        } else {
            Cors::Function
        };
        Self {
            is_closed: is_loopback || !hosts.is_empty() || is_certain,
            hosts,
            cors: cors.unwrap_or(suiting),
        }
    }

    /// Whether requests under this name of the host may reach a function.
    pub(crate) fn check_host(&self, head: &Parts) -> Result<(), Refused> {
        if !self.is_closed {
            return Ok(());
        }
        let name = name_of(host(head));
        if name.is_empty() || self.knows(name) {
            Ok(())
        } else {
            Err(Refused::Host(shown(name)))
        }
    }

    /// Whether the page that a request is from may call a function, and what its response says; `route`
    /// is the function's. A request from no page costs one look for its field at the most.
    pub(crate) fn judge(&self, head: &Parts, route: Option<&Route>) -> Result<Grant, Refused> {
        let own = route.and_then(Route::cors);
        let is_functions = own.is_some();
        let grant = |to| Ok(Grant { to, is_functions });
        match own.as_deref().unwrap_or(&self.cors) {
            Cors::Function => grant(Readers::Unsaid),
            Cors::Any => grant(Readers::All),
            Cors::None => match origin(&head.headers) {
                Some(origin) => self.check_own(origin, head).and(grant(Readers::Unsaid)),
                None => grant(Readers::Unsaid),
            },
            Cors::Origins(origins) => {
                let Some(origin) = origin(&head.headers) else {
                    return grant(Readers::Of(None));
                };
                // Not the request's own bytes, which would keep its whole head in memory.
                let listed = origins
                    .iter()
                    .map(faas::Origin::as_str)
                    .find(|listed| listed.eq_ignore_ascii_case(origin))
                    .and_then(|listed| HeaderValue::from_str(listed).ok());
                match listed {
                    Some(listed) => grant(Readers::Of(Some(listed))),
                    None => self.check_own(origin, head).and(grant(Readers::Of(None))),
                }
            }
        }
    }

    /// Whether a page was loaded from here, under a name that no other site can have made up.
    fn check_own(&self, origin: &str, head: &Parts) -> Result<(), Refused> {
        let host = host(head);
        let site = origin.split_once("://").map(|(_scheme, site)| site);
        if !site.is_some_and(|site| site.eq_ignore_ascii_case(host)) {
            return Err(Refused::Origin(shown(origin)));
        }
        let name = name_of(host);
        if self.knows(name) {
            Ok(())
        } else {
            Err(Refused::Host(shown(name)))
        }
    }

    fn knows(&self, name: &str) -> bool {
        is_local_name(name) || lists(&self.hosts, name)
    }
}

/// The host that a request names, with its port.
fn host(head: &Parts) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(HOST).map(text).unwrap_or_default(),
    }
}

fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned()
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
        let judged = browsers.check_host(&head);
        let judged = judged.and_then(|()| browsers.judge(&head, None));
        assert_eq!(judged.is_ok(), is_allowed, "{host} {origin:?}");
    }

    #[test]
    fn on_loopback_pages_of_other_sites_and_made_up_names_are_refused() {
        let closed = Browsers::new(true, Vec::new(), None);
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
            "https://app.example".parse().ok(),
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
        let any = Browsers::new(true, names(&["*"]), "*".parse().ok());
        check(&any, "evil.example", Some("https://evil.example"), true);
    }

    #[test]
    fn off_loopback_functions_decide_themselves() {
        let open = Browsers::new(false, Vec::new(), None);
        check(&open, "edge.example", Some("https://app.example"), true);
    }
    #[test]
    fn a_page_under_a_made_up_name_of_this_host_is_not_its_own() {
        let own = Some("http://rebound.example:8000");
        let open = Browsers::new(false, Vec::new(), "*".parse().ok());
        check(&open, "rebound.example:8000", own, true);
        for cors in ["none", "https://app.example"] {
            let closed = Browsers::new(false, Vec::new(), cors.parse().ok());
            check(&closed, "rebound.example:8000", own, false);
            let local = Some("http://edge.local:8000");
            check(&closed, "edge.local:8000", local, true);
        }
    }
}
