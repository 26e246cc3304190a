//! The calls of the management service: the old ones and `/v1`.

pub(crate) mod body;
mod fields;
mod guard;
mod logs;
mod metrics;
mod old;
mod settings;
mod v1;

pub(crate) use guard::Door;

use crate::deployer::Deployer;
use crate::problem::{Problem, ProblemKind};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use faas::Asker;
use net::Peer;
use std::sync::Arc;

/// What every call is given.
type Deployers = State<Arc<Deployer>>;

/// Whose share of the builds a client's deployments take.
fn asker(peer: Peer) -> Asker {
    Asker::Client(match peer {
        Peer::V4(addr) => addr.to_string().into(),
        Peer::V6(prefix) => format!("{prefix:016x}/64").into(),
        Peer::Local => "socket".into(),
    })
}

/// Every call, behind the guard where it comes over TCP.
pub(crate) fn routes(deployer: &Arc<Deployer>, door: Door) -> Router {
    let with = || Arc::clone(deployer);
    let (old, versioned) = (old_calls(), versioned_calls());
    let guarded = match door {
        Door::Socket => old.merge(versioned).merge(health()),
        Door::Tcp => {
            let old = old.layer(middleware::from_fn_with_state(
                with(),
                guard::check_token_of_old,
            ));
            let versioned =
                versioned.layer(middleware::from_fn_with_state(with(), guard::check_token));
            let all = old.merge(versioned).merge(health());
            all.layer(middleware::from_fn_with_state(with(), guard::check_browser))
        }
    };
    guarded
        .layer(DefaultBodyLimit::disable())
        .with_state(with())
}

/// The original's calls, and what tells nothing of functions' contents.
fn old_calls() -> Router<Arc<Deployer>> {
    Router::new()
        .route("/", get(old::greet).post(old::deploy_folder))
        .route("/upload", post(old::upload))
        .route("/uploadURL", post(old::upload_url))
        .route("/delete", post(old::delete))
        .route("/wipe", post(old::wipe))
        .route("/list", get(old::list))
        .route("/logs", get(old::logs))
        .route("/metrics", get(metrics::show))
        .route("/v1/openapi.json", get(v1::openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
}

fn versioned_calls() -> Router<Arc<Deployer>> {
    let function = get(v1::describe)
        .put(v1::deploy)
        .patch(v1::set)
        .delete(v1::delete);
    Router::new()
        .route("/v1/functions", get(v1::list).delete(v1::wipe))
        .route("/v1/functions/{name}", function)
        .route("/v1/functions/{name}/logs", get(logs::of_function))
        .route("/v1/logs", get(logs::of_all))
        .route("/v1/deployments", get(v1::deployments))
        .route("/v1/status", get(v1::status))
        .route("/v1/backup", get(v1::backup))
        .method_not_allowed_fallback(wrong_method)
}

fn health() -> Router<Arc<Deployer>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(wrong_method)
}

/// 200 once every stored function is ready or known to have failed, and the disk takes writes.
async fn readyz(State(deployer): Deployers) -> Response {
    const SHOWN_MAX: usize = 10;

    let awaited = deployer.awaited();
    if awaited.is_empty() {
        return match deployer.unwritable().await {
            None => "ready\n".into_response(),
            // Functions are served; whoever deploys is told the same by 507.
            Some(unwritable) => Problem::from(unwritable)
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .into_response(),
        };
    }
    let shown = awaited[..awaited.len().min(SHOWN_MAX)].join(", ");
    let detail = format!(
        "{} functions are still being started: {shown}",
        awaited.len()
    );
    Problem::new(ProblemKind::Starting, detail, "ask again in a second")
        .retry_after(1)
        .into_response()
}

async fn unknown_path(uri: Uri) -> Problem {
    let detail = format!("there is no call {:?}", uri.path());
    let fix = if uri.path().starts_with("/v1/functions/") {
        "a name with slashes is one segment: write sieve%2Fprimes for sieve/primes"
    } else {
        "this is the management service: functions are called at the endpoints (HTTP on port 8000 \
         unless set otherwise; GET /v1/status names them); see GET /v1/openapi.json for every call here"
    };
    Problem::new(ProblemKind::UnknownCall, detail, fix)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take the method {method}", uri.path());
    let fix = "see the Allow header and GET /v1/openapi.json";
    Problem::new(ProblemKind::WrongMethod, detail, fix)
}

/// How the function can be called, a URL for each endpoint that is on. The host is the one under
/// which the client reached this service.
pub(crate) fn urls(deployer: &Deployer, headers: &HeaderMap, name: &str) -> Vec<String> {
    let asked = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let asked = asked
        .map(guard::host_of)
        .filter(|host| guard::is_plain(host));
    let endpoints = deployer.options.endpoints.iter().map(|endpoint| {
        let (scheme, port) = (endpoint.scheme, endpoint.addr.port());
        match asked {
            Some(host) => format!("{scheme}://{host}:{port}/{name}"),
            None if endpoint.addr.ip().is_unspecified() => {
                format!("{scheme}://localhost:{port}/{name}")
            }
            None => format!("{scheme}://{}/{name}", endpoint.addr),
        }
    });
    endpoints.collect()
}
