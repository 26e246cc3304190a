//! Who may call: the token, and no pages of other sites in a browser of this machine.

use super::Deployers;
use crate::deployer::Deployer;
use crate::problem::{Problem, ProblemKind};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Over TCP, where anybody may be: the guard checks the token and what a browser sends.
    Tcp,
    /// Through the socket in the data directory, which its mode keeps for its owner.
    Socket,
}

/// Lets requests pass that carry the token, or all where there is none.
pub(crate) async fn check_token(
    State(deployer): Deployers,
    request: Request,
    next: Next,
) -> Response {
    let reason = "calls under /v1 always do";
    match token_problem(&deployer, request.headers(), reason) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

/// The same for the original's calls, which need a token only where it was turned on for them.
pub(crate) async fn check_token_of_old(
    State(deployer): Deployers,
    request: Request,
    next: Next,
) -> Response {
    let is_exposed = deployer.is_exposed();
    if !deployer.demands_token_always() && !is_exposed {
        return next.run(request).await;
    }
    let reason = if deployer.options.is_token_always {
        "this tinyFaaS was started so that every call does"
    } else {
        "every call does as long as a function is there that can reach this service, by \
         --network=host or its port as --host-port; deploy that one without, or delete it"
    };
    match token_problem(&deployer, request.headers(), reason) {
        None => next.run(request).await,
        Some(_) if !deployer.demands_token_always() => build_runs().into_response(),
        Some(problem) => problem.into_response(),
    }
}

/// Who calls could be the code that is just installed.
fn build_runs() -> Problem {
    let detail = "a function is being built, and what it installs can reach this service";
    let fix = "send it again when that is deployed, or now with \"Authorization: Bearer TOKEN\"";
    Problem::new(ProblemKind::BuildRuns, detail, fix).retry_after(1)
}

fn token_problem(deployer: &Deployer, headers: &HeaderMap, reason: &str) -> Option<Problem> {
    let token = deployer.options.token.as_ref()?;
    let sent = headers.get(header::AUTHORIZATION).and_then(bearer);
    if sent.is_some_and(|sent| token.is(sent)) {
        return None;
    }
    let detail = match sent {
        Some(_) => format!("the bearer token is not the one of this tinyFaaS ({reason})"),
        None => format!("this call needs a bearer token: {reason}"),
    };
    let fix = "send \"Authorization: Bearer TOKEN\" with the token in the file that tinyfaas serve \
               names at its start";
    Some(Problem::new(ProblemKind::Token, detail, fix))
}

/// Refuses what a page of another site makes a browser send: requests with a foreign `Origin`,
/// and, where no token is needed, names that a stranger's DNS may have pointed here.
pub(crate) async fn check_browser(
    State(deployer): Deployers,
    request: Request,
    next: Next,
) -> Response {
    match refusal(
        request.headers(),
        deployer.options.token.is_some() && deployer.demands_token_always(),
    ) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(headers: &HeaderMap, has_token: bool) -> Option<Problem> {
    let forbidden =
        |detail: String, fix: &str| Some(Problem::new(ProblemKind::ForeignPage, detail, fix));
    let host = headers.get(header::HOST).map(text);
    if let Some(origin) = headers.get(header::ORIGIN).map(text) {
        let site = origin.split_once("://").map(|(_scheme, site)| site);
        if site.is_none() || site != host {
            let detail = format!("the request comes from a page of {origin:?}");
            return forbidden(
                detail,
                "send it without an Origin header, not from a web page",
            );
        }
    }
    let name = host_of(host?);
    if has_token || is_local_name(name) {
        return None;
    }
    let detail = format!("the Host header {name:?} is a name that another site could have made up");
    forbidden(
        detail,
        "call by IP address or localhost, or start tinyfaas with a token",
    )
}

/// Whether a page of another site can't have this as its own name: an address, localhost, a name
/// without dots, as in a container network, or one of the local network (RFC 6762), which no
/// stranger can register.
fn is_local_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let is_local = lower.ends_with(".localhost") || lower.ends_with(".local");
    bare.parse::<IpAddr>().is_ok() || is_local || !lower.contains('.')
}

/// The host of a `Host` header, without its port.
pub(crate) fn host_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// Whether the host can be told back in a URL.
pub(crate) fn is_plain(host: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    !host.is_empty() && host.bytes().all(is_allowed)
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_stranger_can_not_own_pass_without_a_token() {
        let check = |host: &str, is_local: bool| {
            assert_eq!(is_local_name(host_of(host)), is_local, "{host:?}");
        };
        check("127.0.0.1:8080", true);
        check("[::1]:8080", true);
        check("[::1]", true);
        check("localhost:8080", true);
        check("LOCALHOST.", true);
        check("a.localhost", true);
        check("tinyfaas-mgmt:8080", true);
        check("raspberrypi.local:8080", true);
        check("evil.example:8080", false);
        check("127.0.0.1.evil.example", false);
        check("localhost.evil.example", false);
        check("192.168.1.7", true);
    }
}
