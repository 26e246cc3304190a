//! The calls that tinyFaaS has always had. Bodies are JSON whatever their content type says:
//! curl sends them as a form. Errors are one line of text.

use super::body::{self, Received};
use super::fields::Fields;
use super::settings::Settings;
use super::{Deployers, asker, urls};
use crate::bad_field::BadField;
use crate::deployer::Deployer;
use crate::download;
use crate::order::{DeployError, Order, Source};
use crate::problem::Problem;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use bytes::Bytes;
use faas::{Entry, FunctionName, LogLine, Runtime};
use net::Peer;
use std::borrow::Cow;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// A problem that is answered as a line of text.
#[derive(Debug)]
pub(crate) struct Line(Problem);

impl<E: Into<Problem>> From<E> for Line {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Line {
    fn into_response(self) -> Response {
        self.0.into_text()
    }
}

/// `GET /`: says who answers.
pub(crate) async fn greet(State(deployer): Deployers) -> String {
    let version = deployer.options.version;
    format!("tinyFaaS {version}: management service; GET /v1/openapi.json has every call\n")
}

/// `POST /`: the original call, `{"path", "resource", "entry", "threads"}`.
pub(crate) async fn deploy_folder(
    State(deployer): Deployers,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, Line> {
    let Received { bytes, room } = body::read(&deployer, &headers, body).await?;
    let fields = Fields::parse(&bytes, "body")?;
    let path = fields
        .required("path", "\"sieve-of-erasthostenes\"")?
        .into_owned();
    let resource = fields.required("resource", "\"/sieve/primes\"")?;
    let entry = fields.required("entry", "\"sieve.js\"")?.into_owned();
    let name = name("resource", resource.strip_prefix('/').unwrap_or(&resource))?;
    let mut settings = Settings::new(deployer.options.function_limits.clone());
    settings.set("runtime", Runtime::Nodejs.as_str())?;
    take_threads(&fields, &mut settings)?;
    settings.set_envs(fields.envs("envs")?);
    let (mut spec, undecided, named) = settings.into_spec(name)?;
    spec.entry = Entry::EventHandler(entry);
    let order = Order {
        spec,
        undecided,
        named,
        source: Source::Folder(PathBuf::from(path)),
        subfolder: None,
        room: Some(room),
        asker: asker(peer),
    };
    deploy(&deployer, &headers, order, "path").await
}

/// `POST /upload`: `{"name", "env", "threads", "zip", "envs"}`.
pub(crate) async fn upload(
    State(deployer): Deployers,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, Line> {
    let Received { bytes, room } = body::read(&deployer, &headers, body).await?;
    let mut order = {
        let fields = Fields::parse(&bytes, "body")?;
        let archive = decode(&fields.required("zip", "the zip in base64")?)?;
        order(&deployer, &fields, (Source::Archive(archive), peer))?
    };
    drop(bytes);
    order.room = Some(room);
    deploy(&deployer, &headers, order, "zip").await
}

/// `POST /uploadURL`: `{"name", "env", "threads", "url", "subfolder_path", "envs"}`.
pub(crate) async fn upload_url(
    State(deployer): Deployers,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, Line> {
    let Received { bytes, room } = body::read(&deployer, &headers, body).await?;
    let fields = Fields::parse(&bytes, "body")?;
    let url = fields
        .required("url", "\"https://example.org/fn.zip\"")?
        .into_owned();
    let subfolder = fields
        .text("subfolder_path")?
        .filter(|path| !path.is_empty());
    // What can be refused is refused before anything is fetched.
    let mut order = order(&deployer, &fields, (Source::Files(Vec::new()), peer))?;
    crate::order::check(&order.spec, &deployer.options.limits)?;
    order.subfolder = subfolder.map(Cow::into_owned);
    order.room = Some(room);
    order.source = Source::Archive(fetch(&deployer, url).await?);
    deploy(&deployer, &headers, order, "url").await
}

/// `POST /delete`: `{"name"}`.
pub(crate) async fn delete(
    State(deployer): Deployers,
    headers: HeaderMap,
    body: Body,
) -> Result<(), Line> {
    let Received { bytes, room: _room } = body::read(&deployer, &headers, body).await?;
    let fields = Fields::parse(&bytes, "body")?;
    let name = name("name", &fields.required("name", "\"sieve\"")?)?;
    if !deployer.delete(name.clone()).await? {
        return Err(Problem::unknown_function(name.as_str()).into());
    }
    Ok(())
}

/// `POST /wipe`: deletes every function.
pub(crate) async fn wipe(State(deployer): Deployers) -> Result<(), Line> {
    deployer.wipe().await?;
    Ok(())
}

/// `GET /list`: a name a line.
pub(crate) async fn list(State(deployer): Deployers) -> String {
    let mut text = String::new();
    for function in deployer.functions.all() {
        text.push_str(function.record.spec.name.as_str());
        text.push('\n');
    }
    text
}

/// `GET /logs[?name=NAME]`: what functions printed, the oldest first.
pub(crate) async fn logs(
    State(deployer): Deployers,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<String, Line> {
    let asked = pairs
        .into_iter()
        .find(|(key, value)| key == "name" && !value.is_empty());
    let functions = match asked {
        Some((_, name)) => match deployer.functions.get(&name) {
            Some(function) => vec![function],
            None => return Err(Problem::unknown_function(&name).into()),
        },
        None => deployer.functions.all(),
    };
    let mut lines: Vec<(&str, LogLine)> = Vec::new();
    for function in &functions {
        let name = function.record.spec.name.as_str();
        lines.extend(function.log.after(0).into_iter().map(|line| (name, line)));
    }
    lines.sort_by_key(|(_, line)| line.time);
    let mut text = String::new();
    for (name, line) in lines {
        // Writing to a string can't fail.
        let _infallible = writeln!(
            text,
            "function={name} handler={} {}",
            line.handler, line.text
        )
        .is_ok();
    }
    Ok(text)
}

fn order(
    deployer: &Deployer,
    fields: &Fields<'_>,
    (source, peer): (Source, Peer),
) -> Result<Order, BadField> {
    let name = name("name", &fields.required("name", "\"sieve\"")?)?;
    let mut settings = Settings::new(deployer.options.function_limits.clone());
    settings.set("env", &fields.required("env", "\"nodejs\"")?)?;
    take_threads(fields, &mut settings)?;
    settings.set_envs(fields.envs("envs")?);
    let (spec, undecided, named) = settings.into_spec(name)?;
    Ok(Order {
        spec,
        undecided,
        named,
        source,
        subfolder: None,
        room: None,
        asker: asker(peer),
    })
}

/// Deploys and tells how the function can be called. `code_field` is where the code came from.
async fn deploy(
    deployer: &Arc<Deployer>,
    headers: &HeaderMap,
    order: Order,
    code_field: &str,
) -> Result<String, Line> {
    let deployed = deployer.deploy(order).await;
    let deployed = deployed.map_err(|error| Problem::from(error).code_came_in(code_field))?;
    let mut text = String::new();
    for url in urls(deployer, headers, deployed.name.as_str()) {
        text.push_str(&url);
        text.push('\n');
    }
    Ok(text)
}

async fn fetch(deployer: &Arc<Deployer>, url: String) -> Result<Bytes, DeployError> {
    let Ok(_slot) = deployer.downloads.acquire().await else {
        return Err(DeployError::Stopping);
    };
    let limits = Arc::clone(&deployer.options.limits);
    let fetching = tokio::task::spawn_blocking(move || download::fetch(&url, &limits));
    match fetching.await {
        Ok(fetched) => Ok(fetched?),
        Err(_panicked) => Err(DeployError::Broken),
    }
}

fn take_threads(fields: &Fields<'_>, settings: &mut Settings) -> Result<(), BadField> {
    match fields.plain("threads")? {
        Some(threads) if !threads.is_empty() => settings.set("threads", &threads),
        Some(_) | None => Ok(()),
    }
}

/// Reads the name of a function; `field` is where it came from.
pub(crate) fn name(field: &str, text: &str) -> Result<FunctionName, BadField> {
    text.parse().map_err(|error: faas::NameError| {
        let fix = "use path segments of A-Z a-z 0-9 . _ ~ - such as sieve/primes";
        BadField::new(field, error.to_string(), fix)
    })
}

fn decode(zip: &str) -> Result<Bytes, BadField> {
    let is_space = |b: u8| b.is_ascii_whitespace();
    let text = if zip.bytes().any(is_space) {
        Cow::Owned(zip.split_ascii_whitespace().collect::<String>())
    } else {
        Cow::Borrowed(zip)
    };
    let decoded = STANDARD_PAD_INDIFFERENT.decode(text.as_bytes());
    decoded.map(Bytes::from).map_err(|error| {
        BadField::new(
            "zip",
            format!("it is no base64 ({error})"),
            "send the output of base64 -w0",
        )
    })
}
