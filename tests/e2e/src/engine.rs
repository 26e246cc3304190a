//! A Docker engine beside the one of the other tests, which may be killed.

use crate::until;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A Docker engine. Dropping it ends it with everything that it runs.
#[derive(Debug)]
pub struct Engine {
    folder: TempDir,
    dockerd: Child,
    /// The network namespace that it is in, where it is not in this one.
    namespace: Option<String>,
    /// Whether its containers live on while it is away.
    is_live_restore: bool,
}

impl Engine {
    /// Starts one whose containers this machine reaches. It leaves the rules of the other engine
    /// alone, so its containers do not reach each other.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(None, false)
    }

    /// The same, with containers that live on while it is restarted (`--live-restore`).
    #[must_use]
    pub fn start_live_restore() -> Self {
        Self::start_in(None, true)
    }

    /// Starts one in a network namespace of its own, with all that containers want. Its socket is
    /// the usual one for what runs in it.
    #[must_use]
    pub fn start_apart() -> Self {
        let name = format!("tf-engine-{}", std::process::id());
        for words in [
            &["netns", "add", &name][..],
            &["-n", &name, "link", "set", "lo", "up"],
        ] {
            let done = Command::new("ip").args(words).status();
            assert!(done.is_ok_and(|done| done.success()), "ip {words:?}");
        }
        Self::start_in(Some(name), false)
    }

    fn start_in(namespace: Option<String>, is_live_restore: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("e2e-docker-").tempdir();
        let folder = folder.expect("a temporary folder");
        let dockerd = launch(folder.path(), namespace.as_deref(), is_live_restore);
        let engine = Self {
            folder,
            dockerd,
            namespace,
            is_live_restore,
        };
        engine.wait();
        engine
    }

    /// As `DOCKER_HOST` has it.
    #[must_use]
    pub fn host(&self) -> String {
        format!(
            "unix://{}",
            self.folder.path().join("docker.sock").display()
        )
    }

    /// A program where the engine is.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        match &self.namespace {
            None => Command::new(program),
            Some(name) => {
                let mut command = within(name);
                command.arg(program);
                command
            }
        }
    }

    /// What the engine's own client prints; none where it fails.
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Option<String> {
        let mut docker = Command::new("docker");
        let output = docker.args(["--host", &self.host()]).args(words).output();
        let output = output.expect("the docker client is there");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Kills it and not its containers. Its containerd goes with it, a moment later; an engine that
    /// starts meanwhile takes it for alive.
    pub fn kill(&mut self) {
        let pid = self.folder.path().join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(pid).expect("containerd runs");
        self.dockerd.kill().expect("it runs");
        self.dockerd.wait().expect("it ends");
        let containerd = Path::new("/proc").join(pid.trim());
        until("its containerd ends", || {
            (!containerd.exists()).then_some(())
        });
    }

    /// Restarts it after it was killed.
    pub fn restart(&mut self) {
        let (folder, namespace) = (self.folder.path(), self.namespace.as_deref());
        self.dockerd = launch(folder, namespace, self.is_live_restore);
        self.wait();
    }

    /// Stops it in order, which leaves its containers only with `--live-restore`.
    pub fn stop(&mut self) {
        let pid = self.dockerd.id().to_string();
        drop(Command::new("kill").arg(pid).status());
        self.dockerd.wait().expect("it ends");
    }

    fn wait(&self) {
        until("the engine answers", || self.docker(&["version"]));
    }

    /// Gives it an image of the other engine.
    pub fn bring(&self, image: &str) {
        let mut save = Command::new("docker");
        let mut save = save.args(["save", image]).stdout(Stdio::piped()).spawn();
        let save = save.as_mut().expect("the docker client is there");
        let image = save.stdout.take().expect("it is piped");
        let mut load = Command::new("docker");
        load.args(["--host", &self.host(), "load", "--quiet"]);
        let loaded = load.stdin(image).stdout(Stdio::null()).status();
        assert!(loaded.is_ok_and(|status| status.success()));
        assert!(save.wait().is_ok_and(|status| status.success()));
    }
}

fn launch(folder: &Path, namespace: Option<&str>, is_live_restore: bool) -> Child {
    let path = |name: &str| folder.join(name);
    let log = File::create(path("log")).expect("a file for the log");
    // One that was killed leaves it.
    drop(fs::remove_file(path("pid")));
    let mut dockerd = match namespace {
        None => {
            let mut dockerd = Command::new("dockerd");
            dockerd.arg("--host");
            dockerd.arg(format!("unix://{}", path("docker.sock").display()));
            // It takes the same bridge: one that is told to have none would remove it.
            dockerd.arg("--iptables=false");
            dockerd
        }
        Some(name) => apart(folder, name),
    };
    dockerd.arg("--data-root").arg(path("data"));
    dockerd.arg("--exec-root").arg(path("exec"));
    dockerd.arg("--pidfile").arg(path("pid"));
    if is_live_restore {
        dockerd.arg("--live-restore");
    }
    dockerd
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    dockerd.spawn().expect("dockerd is there")
}

/// What follows runs in a network namespace, with this machine's files.
fn within(name: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/var/run/netns/{name}"));
    command
}

/// In a network namespace, with a `/var/run` of its own, which is `folder`.
fn apart(folder: &Path, name: &str) -> Command {
    let var_run: PathBuf = fs::canonicalize("/var/run").expect("it is there");
    let mut dockerd = within(name);
    dockerd.args(["unshare", "--mount", "--propagation", "slave", "sh", "-c"]);
    dockerd.arg(r#"mount --bind "$0" "$1" && shift && exec dockerd "$@""#);
    dockerd.arg(folder).arg(&var_run).arg("--host");
    dockerd.arg(format!("unix://{}", var_run.join("docker.sock").display()));
    dockerd
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.is_live_restore {
            // Else they would outlive it.
            let containers = self.docker(&["ps", "--all", "--quiet"]).unwrap_or_default();
            let containers: Vec<_> = containers.lines().collect();
            let remove = [&["rm", "--force"][..], &containers].concat();
            let _is_removed = containers.is_empty() || self.docker(&remove).is_some();
        }
        let pid = self.dockerd.id().to_string();
        // It ends its containers and its containerd.
        drop(Command::new("kill").arg(pid).status());
        drop(self.dockerd.wait());
        // The one that was killed has left its folder mounted on itself.
        let data = self.folder.path().join("data");
        drop(
            Command::new("umount")
                .arg(data)
                .stderr(Stdio::null())
                .status(),
        );
        if let Some(name) = &self.namespace {
            drop(Command::new("ip").args(["netns", "del", name]).status());
        }
    }
}
