//! One container: made, started, listened to, ended.

use crate::engine::{ENGINE_FIX, Engine, explain, is_gone};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerState, HostConfig, HostConfigLogConfig, Mount, ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use faas::{FunctionLimits, FunctionLog, LogStream, PrepareError, Printer};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The user and group that functions are: nobody, on every Linux.
pub(crate) const NOBODY: &str = "65534:65534";

/// The time over which the CPU limit holds, in microseconds.
const CPU_PERIOD_US: i64 = 100_000;

/// How long to wait before the engine is asked again, where it does not answer.
const ENGINE_PAUSE: Duration = Duration::from_millis(500);

/// How long an engine that does not answer is waited for.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// What to run, and within which limits.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) envs: Vec<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network: String,
    /// `None` is the image's own.
    pub(crate) user: Option<&'static str>,
    pub(crate) is_read_only: bool,
    /// Whether it may read what its user may not.
    pub(crate) reads_all: bool,
    /// How large a file it may write, but for those in `/tmp`; nothing is no bound.
    pub(crate) file_bytes_max: Option<u64>,
    /// Its seccomp profile; nothing is the engine's own.
    pub(crate) profile: Option<String>,
    pub(crate) limits: FunctionLimits,
    pub(crate) labels: HashMap<String, String>,
}

/// Where it prints to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) log: Arc<FunctionLog>,
    pub(crate) handler: Arc<str>,
}

/// A container that was started. Dropping it kills and removes it.
#[derive(Debug)]
pub(crate) struct Container {
    engine: Arc<Engine>,
    name: String,
    output: Option<JoinHandle<()>>,
    /// How it ended, once it has and nothing is left of it.
    ended: Option<Exit>,
}

/// What the engine says of a container.
enum State {
    Ended(Exit),
    Running,
    /// It does not answer.
    Unknown,
}

/// How a container ended.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) is_success: bool,
    pub(crate) text: String,
}

impl Container {
    /// Makes and starts a container. An error, or dropping the future, leaves nothing.
    pub(crate) async fn start(
        engine: &Arc<Engine>,
        plan: Plan,
        target: Target,
    ) -> Result<Self, PrepareError> {
        let image = plan.image.clone();
        let failed = |error: Error| {
            let error = explain(&error);
            let detail = format!("a container of {image} could not be started: {error}");
            PrepareError::host(detail, ENGINE_FIX)
        };
        let mut container = Self {
            engine: Arc::clone(engine),
            name: plan.name.clone(),
            output: None,
            ended: None,
        };
        let options = CreateContainerOptionsBuilder::default().name(&plan.name);
        let mut body = body(plan);
        if engine.is_podman {
            leave_inodes_unbounded(&mut body);
        }
        let docker = &engine.docker;
        let made = docker.create_container(Some(options.build()), body).await;
        if let Err(Error::DockerResponseServerError { .. }) = &made {
            // It was not made: what has its name is another's and stays.
            container.ended = Some(gone());
        }
        made.map_err(failed)?;
        let options = AttachContainerOptionsBuilder::default();
        let options = options.stream(true).stdout(true).stderr(true).build();
        // Before it starts, so that nothing that it prints is missed.
        let attached = docker.attach_container(&container.name, Some(options));
        let output = attached.await.map_err(failed)?.output;
        container.output = Some(engine.tracker.spawn(print(output, target)));
        let started = docker.start_container(&container.name, None::<StartContainerOptions>);
        started.await.map_err(failed)?;
        Ok(container)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it has ended and all that it printed is in the log, then removes it. An engine
    /// that is away is waited for, but for [`ENGINE_PATIENCE`] only: the container is removed when
    /// there is one again.
    pub(crate) async fn wait(&mut self) -> Exit {
        let mut silent = None;
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone();
            }
            match self.exit().await {
                State::Ended(exit) => {
                    if let Some(output) = &mut self.output {
                        // Whatever came of it, there is no more.
                        let _printed = output.await.is_ok();
                        self.output = None;
                    }
                    remove(&self.engine, &self.name).await;
                    self.ended = Some(exit);
                }
                State::Running => silent = None,
                State::Unknown => {
                    let since = *silent.get_or_insert_with(Instant::now);
                    if since.elapsed() > ENGINE_PATIENCE {
                        self.kill();
                        self.ended = Some(Exit {
                            is_success: false,
                            text: "the Docker engine does not answer".to_owned(),
                        });
                    }
                }
            }
        }
    }

    async fn exit(&self) -> State {
        let docker = &self.engine.docker;
        let options = WaitContainerOptionsBuilder::default().condition("not-running");
        let mut waiting = Box::pin(docker.wait_container(&self.name, Some(options.build())));
        match waiting.next().await {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {}
            Some(Err(error)) if is_gone(&error) => return State::Ended(gone()),
            Some(Err(_)) | None => tokio::time::sleep(ENGINE_PAUSE).await,
        }
        let inspected = docker.inspect_container(&self.name, None::<InspectContainerOptions>);
        match inspected.await {
            Ok(found) => match found.state {
                Some(state) if state.running != Some(true) => State::Ended(describe(&state)),
                Some(_) => State::Running,
                None => State::Unknown,
            },
            Err(error) if is_gone(&error) => State::Ended(gone()),
            Err(_) => State::Unknown,
        }
    }

    /// Ends it now. [`Self::wait`] tells when nothing is left.
    pub(crate) fn kill(&self) {
        let (engine, name) = (Arc::clone(&self.engine), self.name.clone());
        self.engine.tracker.spawn(async move {
            remove(&engine, &name).await;
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
        }
    }
}

fn gone() -> Exit {
    Exit {
        is_success: false,
        text: "it was removed".to_owned(),
    }
}

pub(crate) fn describe(state: &ContainerState) -> Exit {
    let code = state.exit_code.unwrap_or(-1);
    let text = match (state.oom_killed, code) {
        (Some(true), _) => "it used up its memory".to_owned(),
        // As a shell tells signals.
        (_, 129..=159) => format!("signal {}", code - 128),
        _ => format!("exit status {code}"),
    };
    Exit {
        is_success: code == 0,
        text,
    }
}

/// A container's address on a network; none before it has one and after it has ended.
pub(crate) async fn addr(
    engine: &Engine,
    name: &str,
    network: &str,
) -> Result<Option<IpAddr>, Error> {
    let inspected = engine
        .docker
        .inspect_container(name, None::<InspectContainerOptions>);
    let networks = inspected.await?.network_settings.and_then(|s| s.networks);
    let endpoint = networks.and_then(|mut networks| networks.remove(network));
    let addr = endpoint.and_then(|endpoint| endpoint.ip_address);
    Ok(addr.and_then(|addr| addr.parse().ok()))
}

/// Removes a container, running or not. Without an engine this waits until there is one.
async fn remove(engine: &Engine, name: &str) {
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        let removed = engine.docker.remove_container(name, Some(options.build()));
        match removed.await {
            Ok(()) => return,
            Err(error) if is_gone(&error) => return,
            Err(error) => tracing::debug!(%error, container = name, "not removed yet"),
        }
        tokio::time::sleep(ENGINE_PAUSE).await;
    }
}

/// Shorter rests are taken together: a timer is coarser.
const REST_MIN: Duration = Duration::from_millis(2);

async fn print(
    mut output: std::pin::Pin<
        Box<dyn futures_util::Stream<Item = Result<LogOutput, Error>> + Send>,
    >,
    target: Target,
) {
    let printer =
        |stream| Printer::new(Arc::clone(&target.log), Arc::clone(&target.handler), stream);
    let (mut stdout, mut stderr) = (printer(LogStream::Stdout), printer(LogStream::Stderr));
    while let Some(Ok(piece)) = output.next().await {
        let begun = Instant::now();
        match piece {
            LogOutput::StdErr { message } => stderr.take(&message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => stdout.take(&message),
            LogOutput::StdIn { .. } => {}
        }
        // A flood costs its function time, not the others.
        let now = Instant::now();
        let until = target.log.core_share().rest(now, now - begun);
        if until.saturating_duration_since(now) >= REST_MIN {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    stdout.end();
    stderr.end();
}

fn body(plan: Plan) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(plan.image),
        user: plan.user.map(str::to_owned),
        entrypoint: Some(plan.command),
        // Else the image's own words would follow.
        cmd: Some(Vec::new()),
        env: Some(plan.envs),
        working_dir: Some("/fn".to_owned()),
        labels: Some(plan.labels),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(host_config(
            &plan.limits,
            plan.is_read_only,
            plan.network,
            plan.mounts,
            (plan.reads_all, plan.file_bytes_max, plan.profile),
        )),
        ..ContainerCreateBody::default()
    }
}

fn host_config(
    limits: &FunctionLimits,
    is_read_only: bool,
    network: String,
    mounts: Vec<Mount>,
    (reads_all, file_bytes_max, profile): (bool, Option<u64>, Option<String>),
) -> HostConfig {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let memory = Some(signed(limits.memory_bytes_max));
    let (bytes, files) = (limits.tmp_bytes_max, limits.tmp_files_max);
    let tmp = format!("rw,nosuid,nodev,exec,mode=1777,size={bytes},nr_inodes={files}");
    let bounds = [
        ("nofile", Some(limits.open_files_max)),
        ("fsize", file_bytes_max),
    ];
    let bounds = bounds.into_iter().filter_map(|(name, bound)| {
        Some(ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(signed(bound?)),
            hard: Some(signed(bound?)),
        })
    });
    let no_privileges = "no-new-privileges:true".to_owned();
    let profile = profile.map(|profile| format!("seccomp={profile}"));
    HostConfig {
        memory,
        // The same number is no swap.
        memory_swap: memory,
        pids_limit: Some(i64::from(limits.pids_max)),
        // As a quota, which may be more than the machine has; a number of cores may not.
        cpu_period: Some(CPU_PERIOD_US),
        cpu_quota: Some(i64::from(limits.cpu_millis_max) * CPU_PERIOD_US / 1000),
        ulimits: Some(bounds.collect()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: reads_all.then(|| vec!["DAC_READ_SEARCH".to_owned()]),
        security_opt: Some(std::iter::once(no_privileges).chain(profile).collect()),
        readonly_rootfs: Some(is_read_only),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        mounts: Some(mounts),
        network_mode: Some(network),
        // What it prints comes by the attached stream, and no log wears out the disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

/// Podman 4 has no bound on the number of files in a tmpfs; their bytes stay bounded.
fn leave_inodes_unbounded(body: &mut ContainerCreateBody) {
    let mounts = body.host_config.as_mut().and_then(|it| it.tmpfs.as_mut());
    for options in mounts.into_iter().flat_map(HashMap::values_mut) {
        let kept = options
            .split(',')
            .filter(|it| !it.starts_with("nr_inodes="));
        *options = kept.collect::<Vec<_>>().join(",");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_no_more_than_it_needs() {
        let limits = FunctionLimits {
            memory_bytes_max: 1 << 28,
            pids_max: 12,
            cpu_millis_max: 500,
            tmp_bytes_max: 1 << 20,
            tmp_files_max: 100,
            open_files_max: 64,
            ..FunctionLimits::default()
        };
        let net = "net".to_owned();
        let config = host_config(&limits, true, net, Vec::new(), (false, None, None));
        assert_eq!(config.memory, Some(1 << 28));
        assert_eq!(config.memory_swap, config.memory);
        assert_eq!(config.cpu_quota, Some(CPU_PERIOD_US / 2));
        assert_eq!(config.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(config.cap_add, None);
        assert_eq!(config.security_opt.unwrap(), ["no-new-privileges:true"]);
        assert_eq!(config.readonly_rootfs, Some(true));
        assert_eq!(config.privileged, None);
        assert_eq!(config.binds, None);
    }
}
