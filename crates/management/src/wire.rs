//! The JSON shapes of `/v1`.

use crate::deployer::Deployer;
use crate::functions::Function;
use crate::underway::Far;
use faas::{
    BackendReport, Deployment, Entry, FunctionSpec, HandlerState, HandlerStatus, LogLine, Route,
    Runtime,
};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Lines of a handler that is not ready that are shown.
const LAST_LINES_MAX: usize = 20;

/// A function and how it does.
#[derive(Debug, Serialize)]
pub(crate) struct FunctionShape {
    name: String,
    runtime: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    /// `ready`, `degraded`, `starting` or `failed`.
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    handlers: HandlersShape,
    invocations: u64,
    errors: ErrorsShape,
    waiting: usize,
    deployed_at: String,
    digest: String,
    files: u64,
    packed_bytes: u64,
    unpacked_bytes: u64,
    /// The names only: values may be secret.
    envs: Vec<String>,
    network: bool,
    host_network: bool,
    host_ports: Vec<u16>,
    allow_hosts: Vec<String>,
    allow_scripts: bool,
    /// As it is set: `default` where it is the node's.
    cors: String,
    limits: LimitsShape,
    urls: Vec<String>,
    /// Where another version of it is being made ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<DeploymentShape>,
    /// After a deployment: settings that were not named and are as they were, not the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Vec<&'static str>>,
}

#[derive(Debug, Serialize)]
struct HandlersShape {
    wanted: u16,
    ready: usize,
    restarts: u64,
    in_flight: usize,
    each: Vec<HandlerShape>,
}

#[derive(Debug, Serialize)]
struct HandlerShape {
    id: String,
    state: &'static str,
    restarts: u64,
    in_flight: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_output: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ErrorsShape {
    function: u64,
    platform: u64,
}

#[derive(Debug, Serialize)]
struct LimitsShape {
    memory_bytes: u64,
    pids: u32,
    cpu_millis: u32,
    tmp_bytes: u64,
    tmp_files: u64,
    open_files: u64,
    deadline_ms: u64,
    queue: usize,
}

/// The functions of a node.
#[derive(Debug, Serialize)]
pub(crate) struct ListShape {
    pub(crate) functions: Vec<FunctionShape>,
    /// What is being made ready.
    pub(crate) deployments: Vec<DeploymentShape>,
}

/// What a node makes ready.
#[derive(Debug, Serialize)]
pub(crate) struct DeploymentsShape {
    pub(crate) deployments: Vec<DeploymentShape>,
}

/// A function that is being made ready.
#[derive(Debug, Serialize)]
pub(crate) struct DeploymentShape {
    name: String,
    /// `starts`, `waits-for-build` or `builds`.
    stage: &'static str,
    since: String,
    /// The functions whose builds it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<String>,
}

impl From<Far> for DeploymentShape {
    fn from(far: Far) -> Self {
        Self {
            name: far.name.to_string(),
            stage: far.stage.as_str(),
            since: rfc3339(far.since),
            waits_for: far.waits_for.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What is being made ready now.
pub(crate) fn deployments(deployer: &Deployer) -> Vec<DeploymentShape> {
    let all = deployer.underway.all().into_iter();
    all.map(DeploymentShape::from).collect()
}

/// A node and what it can do.
#[derive(Debug, Serialize)]
pub(crate) struct StatusShape {
    pub(crate) version: &'static str,
    pub(crate) started_at: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) backend: &'static str,
    /// Null until the backend has told.
    isolation: Option<Vec<IsolationShape>>,
    /// Null until the backend has told.
    runtimes: Option<Vec<RuntimeShape>>,
    endpoints: Vec<EndpointShape>,
    management: Option<String>,
    functions: CountsShape,
    deployments: Vec<DeploymentShape>,
}

#[derive(Debug, Serialize)]
struct IsolationShape {
    name: &'static str,
    is_on: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct RuntimeShape {
    runtime: &'static str,
    version: Option<String>,
    detail: String,
}

#[derive(Debug, Serialize)]
struct EndpointShape {
    scheme: &'static str,
    addr: String,
}

#[derive(Debug, Default, Serialize)]
struct CountsShape {
    total: usize,
    ready: usize,
    degraded: usize,
    starting: usize,
    failed: usize,
}

/// A line of a function's log.
#[derive(Debug, Serialize)]
pub(crate) struct LineShape<'a> {
    number: u64,
    time: String,
    function: &'a str,
    handler: &'a str,
    stream: &'static str,
    text: &'a str,
}

impl FunctionShape {
    /// How the function does now.
    pub(crate) fn new(function: &Function, route: Option<&Route>, urls: Vec<String>) -> Self {
        let (record, spec) = (&function.record, &function.record.spec);
        let deployment = route.and_then(Route::deployment);
        let failure = route
            .and_then(Route::failure)
            .filter(|_| deployment.is_none());
        let handlers = HandlersShape::new(spec, deployment.as_ref(), function);
        let count = |pick: fn(&Route) -> u64| route.map_or(0, pick);
        Self {
            name: spec.name.to_string(),
            runtime: match &record.fault {
                None => spec.runtime.as_str(),
                Some(_) => "unknown",
            },
            entry: match &spec.entry {
                Entry::Convention => None,
                Entry::EventHandler(file) => Some(file.clone()),
            },
            state: state(deployment.as_ref(), failure.is_some(), &handlers),
            failure: failure.map(|failure| failure.text()),
            handlers,
            invocations: count(|route| route.counters.invocations.load(Ordering::Relaxed)),
            errors: ErrorsShape {
                function: count(|route| route.counters.function_errors.load(Ordering::Relaxed)),
                platform: count(|route| route.counters.platform_errors.load(Ordering::Relaxed)),
            },
            waiting: route.map_or(0, Route::waiting),
            deployed_at: rfc3339(time_of(record.deployed_at_ms)),
            digest: record.digest.clone(),
            files: record.files,
            packed_bytes: record.packed_bytes,
            unpacked_bytes: record.unpacked_bytes,
            envs: spec.envs.iter().map(|(name, _)| name.clone()).collect(),
            network: spec.network.is_on(),
            host_network: spec.network.is_host(),
            host_ports: spec.network.host_ports().to_vec(),
            allow_hosts: spec.allow_hosts.iter().map(ToString::to_string).collect(),
            allow_scripts: spec.allow_scripts,
            cors: spec
                .cors
                .as_ref()
                .map_or_else(|| "default".to_owned(), ToString::to_string),
            limits: LimitsShape::new(spec),
            urls,
            deployment: None,
            kept: None,
        }
    }
}

fn state(
    deployment: Option<&Arc<Deployment>>,
    has_failed: bool,
    handlers: &HandlersShape,
) -> &'static str {
    match deployment {
        None if has_failed => "failed",
        None => "starting",
        Some(deployment) if handlers.ready == deployment.handlers().len() => "ready",
        Some(_) => "degraded",
    }
}

impl HandlersShape {
    fn new(spec: &FunctionSpec, deployment: Option<&Arc<Deployment>>, function: &Function) -> Self {
        let handlers = deployment.map_or(&[][..], |deployment| deployment.handlers());
        let statuses: Vec<_> = handlers.iter().map(|handler| handler.status()).collect();
        let is_ready = |status: &&HandlerStatus| status.state == HandlerState::Ready;
        Self {
            wanted: match spec.runtime {
                // One handler, which has as many instances at once.
                Runtime::Wasm => 1,
                Runtime::Nodejs | Runtime::Python3 | Runtime::Go | Runtime::Binary => spec.handlers,
            },
            ready: statuses.iter().filter(is_ready).count(),
            restarts: statuses.iter().map(|status| status.restarts).sum(),
            in_flight: statuses.iter().map(|status| status.in_flight).sum(),
            each: statuses
                .iter()
                .map(|status| HandlerShape::new(status, function))
                .collect(),
        }
    }
}

impl HandlerShape {
    fn new(status: &HandlerStatus, function: &Function) -> Self {
        let last_output = || {
            let lines = function.log.last_of(&status.id, LAST_LINES_MAX);
            lines.into_iter().map(|line| line.text).collect()
        };
        let (reason, retry_after_ms, last_output) = match &status.state {
            HandlerState::Pausing {
                failure,
                retry_after,
            } => (
                Some(failure.reason.clone()),
                Some(millis(*retry_after)),
                last_output(),
            ),
            HandlerState::Starting if status.restarts > 0 => (None, None, last_output()),
            HandlerState::Starting | HandlerState::Ready | HandlerState::Stopped => {
                (None, None, Vec::new())
            }
        };
        Self {
            id: status.id.to_string(),
            state: status.state.as_str(),
            restarts: status.restarts,
            in_flight: status.in_flight,
            reason,
            retry_after_ms,
            last_output,
        }
    }
}

impl LimitsShape {
    fn new(spec: &FunctionSpec) -> Self {
        let limits = &spec.limits;
        Self {
            memory_bytes: limits.memory_bytes_max,
            pids: limits.pids_max,
            cpu_millis: limits.cpu_millis_max,
            tmp_bytes: limits.tmp_bytes_max,
            tmp_files: limits.tmp_files_max,
            open_files: limits.open_files_max,
            deadline_ms: millis(limits.deadline),
            queue: limits.queue_max,
        }
    }
}

impl StatusShape {
    /// How the node does now, with what the backend can do here where it has told.
    pub(crate) fn new(deployer: &Deployer, report: Option<&BackendReport>) -> Self {
        let options = &deployer.options;
        let uptime = deployer.started.elapsed().unwrap_or_default();
        Self {
            version: options.version,
            started_at: rfc3339(deployer.started),
            uptime_seconds: uptime.as_secs(),
            backend: options.backend.name(),
            isolation: report.map(|report| {
                let each = report.isolation.iter().map(|isolation| IsolationShape {
                    name: isolation.name,
                    is_on: isolation.is_on,
                    detail: isolation.detail.clone(),
                });
                each.collect()
            }),
            runtimes: report.map(|report| {
                let each = report.runtimes.iter().map(|runtime| RuntimeShape {
                    runtime: runtime.runtime.as_str(),
                    version: runtime.version.clone(),
                    detail: runtime.detail.clone(),
                });
                each.collect()
            }),
            endpoints: options
                .endpoints
                .iter()
                .map(|endpoint| EndpointShape {
                    scheme: endpoint.scheme,
                    addr: endpoint.addr.to_string(),
                })
                .collect(),
            management: deployer.addr.get().map(ToString::to_string),
            functions: counts(deployer),
            deployments: deployments(deployer),
        }
    }
}

fn counts(deployer: &Deployer) -> CountsShape {
    let mut counts = CountsShape::default();
    for function in deployer.functions.all() {
        let route = deployer
            .options
            .router
            .find(function.record.spec.name.as_str());
        let shape = FunctionShape::new(&function, route.as_deref(), Vec::new());
        counts.total += 1;
        match shape.state {
            "ready" => counts.ready += 1,
            "degraded" => counts.degraded += 1,
            "failed" => counts.failed += 1,
            _ => counts.starting += 1,
        }
    }
    counts
}

impl<'a> LineShape<'a> {
    /// A line of that function.
    pub(crate) fn new(function: &'a str, line: &'a LogLine) -> Self {
        Self {
            number: line.number,
            time: rfc3339(line.time),
            function,
            handler: &line.handler,
            stream: line.stream.as_str(),
            text: &line.text,
        }
    }
}

/// A moment as RFC 3339 writes it, in UTC, to the millisecond. All have one length, so that those
/// who compare the texts compare the moments.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let formatted = OffsetDateTime::from(time).format(format);
    formatted.unwrap_or_default()
}

/// Reads a moment of RFC 3339.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(SystemTime::from)
}

fn time_of(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_one_length_and_are_read_back() {
        let text = |ms| rfc3339(time_of(ms));
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_700_000_000_100), "2023-11-14T22:13:20.100Z");
        assert!(text(1_700_000_000_000) < text(1_700_000_000_100));
        let read = parse_rfc3339(&text(1_700_000_000_123));
        assert_eq!(read, Some(time_of(1_700_000_000_123)));
    }
}
