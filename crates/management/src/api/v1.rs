//! The versioned API: functions as resources, JSON, problem details.

use super::body::{self, Received};
use super::old::name as parse_name;
use super::settings::Settings;
use super::{Deployers, asker, urls};
use crate::backup;
use crate::bad_field::BadField;
use crate::deployer::Deployer;
use crate::functions::Function;
use crate::order::{Order, Source};
use crate::problem::{Problem, ProblemKind};
use crate::wire::{self, DeploymentShape, DeploymentsShape, FunctionShape, ListShape, StatusShape};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use faas::FunctionName;
use futures_util::stream;
use multer::Multipart;
use net::Peer;
use std::convert::Infallible;
use std::sync::Arc;

/// A query, in its order.
pub(crate) type Pairs = Query<Vec<(String, String)>>;

/// The field of a backup's response that names a function which is not in it.
const LEFT_OUT: HeaderName = HeaderName::from_static("x-tinyfaas-left-out");

/// How many such functions are named, as a response's fields have a bound.
const LEFT_OUT_SHOWN: usize = 32;

/// `PUT /v1/functions/{name}`: deploys.
pub(crate) async fn deploy(
    State(deployer): Deployers,
    Path(name): Path<String>,
    Query(pairs): Pairs,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = parse_name("name", &name)?;
    let mut settings = Settings::new(deployer.options.function_limits.clone());
    settings.take_query(&pairs)?;
    let Received { bytes, room } = body::read(&deployer, &headers, body).await?;
    let archive = match boundary(&headers)? {
        Some(boundary) => {
            let parts_max = deployer.options.limits.upload_parts_max;
            take_parts(bytes, (boundary, parts_max), &mut settings).await?
        }
        None => bytes,
    };
    let source = Source::Archive(archive);
    let code = (source, room);
    put(&deployer, (&headers, peer), (settings, code), name).await
}

/// `PATCH /v1/functions/{name}`: changes settings and keeps the code.
pub(crate) async fn set(
    State(deployer): Deployers,
    Path(name): Path<String>,
    Query(pairs): Pairs,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    find(&deployer, &name)?;
    let name = parse_name("name", &name)?;
    let mut settings = Settings::new(deployer.options.function_limits.clone());
    settings.take_query(&pairs)?;
    let Received { bytes, room } = body::read(&deployer, &headers, body).await?;
    if !bytes.is_empty() {
        settings.take_json(&bytes)?;
    }
    let code = (Source::Kept, room);
    put(&deployer, (&headers, peer), (settings, code), name).await
}

async fn put(
    deployer: &Arc<Deployer>,
    (headers, peer): (&HeaderMap, Peer),
    (settings, (source, room)): (Settings, (Source, crate::upload::Room)),
    name: FunctionName,
) -> Result<Response, Problem> {
    let (spec, undecided, named) = settings.into_spec(name.clone())?;
    let order = Order {
        spec,
        undecided,
        named,
        source,
        subfolder: None,
        room: Some(room),
        asker: asker(peer),
    };
    let deployed = deployer.deploy(order).await?;
    let status = if deployed.is_replacement {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    // A deletion may have come right after.
    let function = find(deployer, name.as_str())?;
    let mut shape = shape(deployer, headers, &function);
    shape.kept = Some(deployed.kept);
    Ok((status, Json(shape)).into_response())
}

/// `GET /v1/functions/{name}`.
pub(crate) async fn describe(
    State(deployer): Deployers,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<FunctionShape>, Problem> {
    let function = find(&deployer, &name)?;
    Ok(Json(shape(&deployer, &headers, &function)))
}

/// `DELETE /v1/functions/{name}`.
pub(crate) async fn delete(
    State(deployer): Deployers,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let parsed = parse_name("name", &name)?;
    if !deployer.delete(parsed).await? {
        return Err(Problem::unknown_function(&name));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/functions`.
pub(crate) async fn list(State(deployer): Deployers, headers: HeaderMap) -> Json<ListShape> {
    let functions = deployer.functions.all();
    let functions = functions
        .iter()
        .map(|function| shape(&deployer, &headers, function));
    Json(ListShape {
        functions: functions.collect(),
        deployments: wire::deployments(&deployer),
    })
}

/// `DELETE /v1/functions`: deletes every function.
pub(crate) async fn wipe(State(deployer): Deployers) -> Result<StatusCode, Problem> {
    deployer.wipe().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/deployments`: what is being made ready now.
pub(crate) async fn deployments(State(deployer): Deployers) -> Json<DeploymentsShape> {
    let deployments = wire::deployments(&deployer);
    Json(DeploymentsShape { deployments })
}

/// `GET /v1/status`.
pub(crate) async fn status(State(deployer): Deployers) -> Json<StatusShape> {
    let options = &deployer.options;
    let report = tokio::time::timeout(options.limits.report, options.backend.report()).await;
    Json(StatusShape::new(&deployer, report.as_ref().ok()))
}

/// `GET /v1/backup`: everything that is deployed, as a gzipped tar.
/// What is damaged is left out, and named in a field.
pub(crate) async fn backup(State(deployer): Deployers) -> Result<Response, Problem> {
    let Ok(turn) = Arc::clone(&deployer.backups).try_acquire_owned() else {
        let at_once = deployer.options.limits.backups_at_once_max;
        let detail = format!("backups are being written already, {at_once} at once are the most");
        let fix = "wait for one of them to end, then try again";
        return Err(Problem::new(ProblemKind::Busy, detail, fix).retry_after(5));
    };
    let made = backup::write(&deployer, turn).await;
    let pieces = stream::unfold(made.pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let media = [(header::CONTENT_TYPE, "application/gzip")];
    let mut response = (media, Body::from_stream(pieces)).into_response();
    for name in made.left_out.iter().take(LEFT_OUT_SHOWN) {
        if let Ok(value) = HeaderValue::from_str(name.as_str()) {
            response.headers_mut().append(LEFT_OUT, value);
        }
    }
    Ok(response)
}

/// `GET /v1/openapi.json`.
pub(crate) async fn openapi() -> Response {
    let media = [(header::CONTENT_TYPE, "application/json")];
    (media, include_str!("../openapi.json")).into_response()
}

/// The function of that name, or the problem that there is none.
pub(crate) fn find(deployer: &Deployer, name: &str) -> Result<std::sync::Arc<Function>, Problem> {
    let function = deployer.functions.get(name);
    function.ok_or_else(|| match deployer.underway.of(name) {
        Some(far) => Problem::not_yet(&far),
        None => Problem::unknown_function(name),
    })
}

fn shape(deployer: &Deployer, headers: &HeaderMap, function: &Function) -> FunctionShape {
    let name = function.record.spec.name.as_str();
    let route = deployer.options.router.find(name);
    let mut shape = FunctionShape::new(function, route.as_deref(), urls(deployer, headers, name));
    shape.deployment = deployer.underway.of(name).map(DeploymentShape::from);
    shape
}

/// The boundary of a multipart body; none where the body is the archive itself.
fn boundary(headers: &HeaderMap) -> Result<Option<String>, BadField> {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|media| media.to_str().ok());
    let Some(media) = media.filter(|media| media.starts_with("multipart/")) else {
        return Ok(None);
    };
    let boundary = multer::parse_boundary(media);
    boundary.map(Some).map_err(|error| {
        let fix = "send multipart/form-data with a boundary, as curl --form does";
        BadField::new("content-type", error.to_string(), fix)
    })
}

/// Reads the parts `archive` and `settings`; other names are refused.
async fn take_parts(
    body: Bytes,
    (boundary, parts_max): (String, usize),
    settings: &mut Settings,
) -> Result<Bytes, BadField> {
    let bad = |error: multer::Error| {
        BadField::new(
            "body",
            format!("it is no multipart body ({error})"),
            "send it again",
        )
    };
    let mut parts = Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let mut archive = None;
    for _ in 0..parts_max {
        let Some(part) = parts.next_field().await.map_err(bad)? else {
            break;
        };
        match part.name().unwrap_or_default().to_owned().as_str() {
            "archive" => archive = Some(part.bytes().await.map_err(bad)?),
            "settings" => settings.take_json(&part.bytes().await.map_err(bad)?)?,
            other => {
                let fix = "send the parts archive and settings";
                return Err(BadField::new(other, "there is no such part", fix));
            }
        }
    }
    let fix = "send a part of that name with a zip or tar.gz";
    archive.ok_or_else(|| BadField::new("archive", "it is missing", fix))
}
