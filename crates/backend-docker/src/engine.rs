//! The connection to the engine, what our things are called there, and what its errors mean.

use crate::profile;
use crate::subnet::first_block;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::task::TaskTracker;

/// The label of everything that is ours; its value is the instance.
pub(crate) const LABEL: &str = "tinyFaaS";
/// The label of what belongs to a function; its value is the function.
pub(crate) const FUNCTION_LABEL: &str = "tinyFaaS.function";
/// The label of what outlives a run: the reverse proxy and its networks.
pub(crate) const ROLE_LABEL: &str = "tinyFaaS.role";

/// The oldest API that has what is used here: Docker 19.03.
const API_OLDEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 40,
};

/// How long the engine may take to answer, in seconds; starting a container on a small machine
/// that is busy takes many.
const ANSWER_S: u64 = 120;

/// How often, and after which pause, it is tried to remove what a container that is just going
/// still uses.
pub(crate) const REMOVALS: u32 = 40;
pub(crate) const REMOVAL_PAUSE: Duration = Duration::from_millis(250);

/// What to do where the engine refuses something that it should do.
pub(crate) const ENGINE_FIX: &str =
    "see that the engine is well (docker info) and has room, then try again";

/// Why the engine can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub(crate) String);

/// The socket that the environment names in `DOCKER_HOST`, or the usual one.
///
/// # Errors
/// If `DOCKER_HOST` names no Unix socket.
pub fn default_socket(docker_host: Option<&str>) -> Result<PathBuf, EngineError> {
    match docker_host {
        None | Some("") => Ok("/var/run/docker.sock".into()),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => Err(EngineError(format!(
                "DOCKER_HOST is {host:?}; tinyFaaS must run beside its engine: set it to \
                 unix:///var/run/docker.sock or the like"
            ))),
        },
    }
}

/// The engine, and this instance's name for it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) docker: Docker,
    /// Whether it is Podman, which does not take all that Docker does.
    pub(crate) is_podman: bool,
    /// Whether it takes seccomp profiles.
    pub(crate) takes_profiles: bool,
    /// What our labels say.
    pub(crate) instance: String,
    /// What has to end before this backend has ended.
    pub(crate) tracker: TaskTracker,
    /// Tells this run's names from those of an earlier one.
    run: String,
    next_number: AtomicU64,
    /// The subnet that is tried next.
    pub(crate) next_block: AtomicU32,
}

impl Engine {
    /// Connects and agrees on a version.
    ///
    /// # Errors
    /// With what to do, where there is no engine or we may not use it.
    pub(crate) async fn connect(socket: &Path, instance: String) -> Result<Arc<Self>, EngineError> {
        let path = socket.display().to_string();
        let at = |error: &Error| EngineError(format!("Docker at {path}: {}", explain(error)));
        let docker = Docker::connect_with_unix(&path, ANSWER_S, API_DEFAULT_VERSION)
            .map_err(|error| at(&error))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|error| at(&error))?;
        let found = docker.client_version();
        let is_old = (found.major_version, found.minor_version)
            < (API_OLDEST.major_version, API_OLDEST.minor_version);
        if is_old {
            return Err(EngineError(format!(
                "Docker at {path} speaks version {}.{} of its API, tinyFaaS wants {}.{} or later; \
                 update Docker to 19.03 or later",
                found.major_version,
                found.minor_version,
                API_OLDEST.major_version,
                API_OLDEST.minor_version
            )));
        }
        let version = docker.version().await.map_err(|error| at(&error))?;
        let mut parts = version.components.into_iter().flatten();
        let is_podman = parts.any(|part| part.name.contains("Podman"));
        // Where a filter before the engine's socket lets nobody ask, it has none that we know of.
        let info = docker.info().await.unwrap_or_default();
        let security_options = info.security_options.unwrap_or_default();
        let version = version.version.unwrap_or_default();
        // Podman takes them as files of its machine only.
        let takes_profiles = !is_podman && profile::is_taken(&version, &security_options);
        Ok(Arc::new(Self {
            docker,
            is_podman,
            takes_profiles,
            next_block: first_block(&instance),
            instance,
            tracker: TaskTracker::new(),
            run: run_name(),
            next_number: AtomicU64::new(1),
        }))
    }

    /// An id that nothing else of this run has.
    pub(crate) fn id(&self, what: &str) -> String {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", what.replace('/', "-"))
    }

    /// A name that nothing else on this engine has.
    pub(crate) fn unique(&self, what: &str) -> String {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.name(&numbered(&self.run, number, what))
    }

    /// A name as the engine allows it, cut after 64 characters of `what`.
    pub(crate) fn name(&self, what: &str) -> String {
        name(&self.instance, what)
    }

    /// The labels of everything that this instance makes.
    pub(crate) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.instance.clone())])
    }

    /// The labels of what belongs to a function.
    pub(crate) fn labels_of(&self, function: &str) -> HashMap<String, String> {
        let mut labels = self.labels();
        labels.insert(FUNCTION_LABEL.to_owned(), function.to_owned());
        labels
    }

    /// The labels of what outlives a run.
    pub(crate) fn labels_for(&self, role: &str) -> HashMap<String, String> {
        let mut labels = self.labels();
        labels.insert(ROLE_LABEL.to_owned(), role.to_owned());
        labels
    }

    /// Picks what carries our label: of this instance, or of any.
    pub(crate) fn filter(instance: Option<&str>) -> HashMap<String, Vec<String>> {
        let label = match instance {
            Some(instance) => format!("{LABEL}={instance}"),
            None => LABEL.to_owned(),
        };
        HashMap::from([("label".to_owned(), vec![label])])
    }
}

fn name(instance: &str, what: &str) -> String {
    let allowed = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-' => c,
        _ => '-',
    };
    let what: String = what.chars().map(allowed).take(64).collect();
    format!("tinyfaas-{instance}-{what}")
}

/// What makes it unique comes first: the rest may be cut.
fn numbered(run: &str, number: u64, what: &str) -> String {
    format!("{run}-{number}-{what}")
}

/// Differs from one start to the next.
fn run_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    format!("{:x}", ms & 0xffff_ffff)
}

/// Whether the engine does not know the thing, which for removing it is as good.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// What an error means and what to do about it.
pub(crate) fn explain(error: &Error) -> String {
    let text = chain(error);
    let lower = text.to_lowercase();
    // What the engine itself was denied is another matter.
    let is_refused_here = !matches!(error, Error::DockerResponseServerError { .. });
    let fix = if matches!(error, Error::SocketNotFoundError(_))
        || lower.contains("connection refused")
    {
        "no engine runs there; start it (systemctl start docker), or name its socket in \
         DOCKER_HOST=unix:///…"
    } else if is_refused_here && lower.contains("permission denied") {
        "this user may not use the engine; run tinyFaaS as root or as a member of the group docker"
    } else if lower.contains("already allocated") || lower.contains("address already in use") {
        "another program of this machine has that port; stop it, or choose another port with \
         -e TINYFAAS_COAP=PORT, -e TINYFAAS_HTTP=PORT or -e TINYFAAS_GRPC=PORT before the image's \
         name; off instead of a port does without that endpoint"
    } else if lower.contains("no space left") {
        "the engine's disk is full; make room, such as by docker system prune"
    } else if lower.contains("is already in use") {
        "something else has that name; remove it, or what an earlier tinyFaaS left: tinyfaas clean"
    } else if lower.contains("non-overlapping ipv4") || lower.contains("pool overlaps") {
        "there is no free subnet; remove networks that are not used: docker network prune"
    } else if matches!(error, Error::RequestTimeoutError) {
        "the engine did not answer in time; see its log (journalctl -u docker)"
    } else {
        return text;
    };
    format!("{text}: {fix}")
}

/// The error with what caused it.
fn chain(error: &Error) -> String {
    use std::error::Error as _;

    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let said = |status_code, message: &str| {
            explain(&Error::DockerResponseServerError {
                status_code,
                message: message.to_owned(),
            })
        };
        let full = said(500, "write /var/lib/docker/tmp: no space left on device");
        assert!(full.contains("docker system prune"), "{full}");
        let taken = said(
            409,
            "The container name \"/x\" is already in use by container 1",
        );
        assert!(taken.contains("tinyfaas clean"), "{taken}");
        let absent = explain(&Error::SocketNotFoundError("/run/x.sock".to_owned()));
        assert!(absent.contains("DOCKER_HOST"), "{absent}");
    }

    #[test]
    fn names_that_are_cut_still_differ() {
        let long = "a/very-long-name/".repeat(15);
        let names = (0..20).map(|number| name("test", &numbered("run", number, &long)));
        let names: std::collections::HashSet<_> = names.collect();
        assert_eq!(names.len(), 20);
    }

    #[test]
    fn only_unix_sockets_are_taken() {
        let path = default_socket(Some("unix:///run/podman.sock")).unwrap();
        assert_eq!(path, Path::new("/run/podman.sock"));
        assert_eq!(
            default_socket(None).unwrap(),
            Path::new("/var/run/docker.sock")
        );
        let refused = default_socket(Some("tcp://10.0.0.1:2375")).unwrap_err();
        assert!(refused.to_string().contains("unix://"));
    }
}
