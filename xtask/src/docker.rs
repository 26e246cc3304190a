//! A Docker engine for the tests, with base images that come from no registry.

use crate::command;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The names that the product uses where none are given, and whether Go is in the image.
const IMAGES: [(&str, bool); 4] = [
    ("node:20-alpine", false),
    ("python:3-alpine", false),
    ("alpine:3", false),
    ("golang:alpine", true),
];

/// What is in every one of them.
const PACKAGES: &str = "nodejs,python3,python3-pip,python3-setuptools,python3-wheel";

/// Says which packages an image here was made of, so that it is made again when they change.
const RECIPE_LABEL: &str = "tinyfaas-test-recipe";

/// What the Dockerfile begins with.
const RUST_IMAGE: &str = "rust:1-slim-bookworm";

/// The environment of every image here; those without Go or Rust lack the folders.
const ENVIRONMENT: [&str; 3] = [
    "ENV PATH=/usr/local/rust/bin:/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin",
    "ENV CARGO_HOME=/usr/local/cargo",
    "ENV CARGO_NET_OFFLINE=true",
];

/// How long an engine may take to answer.
const START: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(200);

/// An engine. One that was started here is stopped when it is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    /// As `DOCKER_HOST` has it.
    pub(crate) host: String,
    own: Option<(Child, TempDir)>,
}

impl Engine {
    /// Finds the engine of this machine, or installs and starts one, and sees that it has the base
    /// images; quick where it has.
    ///
    /// # Errors
    /// If there is none and none can be started.
    pub(crate) fn start() -> Result<Self> {
        let usual = Self {
            host: std::env::var("DOCKER_HOST")
                .unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned()),
            own: None,
        };
        let engine = if command::is_there("docker") && usual.answers() {
            usual
        } else {
            Self::start_own()?
        };
        engine.make_images()?;
        Ok(engine)
    }

    fn start_own() -> Result<Self> {
        tools::install_for_docker()?;
        if command::output(Command::new("id").arg("-u"))?.trim() != "0" {
            bail!(
                "no Docker engine answers, and only root can start one: start yours (systemctl \
                 start docker), or run the tests as root"
            );
        }
        let folder = crate::target_dir()?.join("test-tools/docker");
        fs::create_dir_all(&folder)?;
        let run = tempfile::Builder::new()
            .prefix("tinyfaas-docker-")
            .tempdir()?;
        let log = folder.join("dockerd.log");
        let mut engine = Self::launch(&folder, run, &log)?;
        if engine.is_up() {
            return Ok(engine);
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<_> = said.lines().rev().take(5).collect();
        bail!("dockerd could not be started: {}", last.join(" | "))
    }

    fn launch(folder: &Path, run: TempDir, log: &Path) -> Result<Self> {
        let host = format!("unix://{}", run.path().join("docker.sock").display());
        let (output, errors) = (File::create(log)?, File::options().append(true).open(log)?);
        // To its containers its socket is the usual one, and nobody else's is in the way: it has a
        // /var/run of its own, which is `run`.
        let var_run = fs::canonicalize("/var/run").context("find /var/run")?;
        let mut dockerd = program("unshare");
        dockerd.args(["--mount", "--propagation", "slave", "sh", "-c"]);
        dockerd.arg(r#"mount --bind "$0" "$1" && shift && exec dockerd "$@""#);
        dockerd.arg(run.path()).arg(&var_run);
        dockerd
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(run.path().join("exec"))
            .arg("--pidfile")
            .arg(run.path().join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", var_run.join("docker.sock").display()))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = dockerd.spawn().context("start dockerd")?;
        Ok(Self {
            host,
            own: Some((child, run)),
        })
    }

    fn is_up(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < START {
            if self.answers() {
                return true;
            }
            let own = self.own.as_mut();
            let has_ended = own.is_none_or(|(child, _)| !matches!(child.try_wait(), Ok(None)));
            if has_ended {
                return false;
            }
            // There is no event to wait for: its socket appears some time.
            std::thread::park_timeout(STEP);
        }
        false
    }

    fn answers(&self) -> bool {
        let asked = command::output(self.docker().args(["version", "--format", "{{.Server}}"]));
        asked.is_ok()
    }

    /// The client's command.
    fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", &self.host);
        docker
    }

    /// Makes the images that a test builds the product's image from: what `root` holds is what the
    /// first stage of the Dockerfile would have made.
    ///
    /// # Errors
    /// If the engine refuses.
    pub(crate) fn make_build_stage(&self, root: &Path) -> Result<()> {
        let stage = root.with_file_name("stage");
        if stage.exists() {
            fs::remove_dir_all(&stage)?;
        }
        fs::create_dir_all(&stage)?;
        let mut copy = Command::new("cp");
        command::output(copy.arg("--recursive").arg(root).arg(stage.join("out")))?;
        self.import(&stage, "build")?;
        fs::remove_dir_all(stage)?;
        Ok(())
    }

    /// Makes the image that the whole Dockerfile begins with, around this machine's toolchain and
    /// the crates that it has fetched: a container here may not reach the registry.
    ///
    /// # Errors
    /// If it can't be made.
    pub(crate) fn make_rust_image(&self) -> Result<()> {
        tools::install_for_docker()?;
        let folder = crate::target_dir()?.join("test-tools/docker");
        fs::create_dir_all(&folder)?;
        let root = folder.join("root");
        bootstrap(&root, "gcc,libc6-dev,ca-certificates")?;
        command::run(
            Command::new("cargo")
                .args(["fetch", "--locked"])
                .current_dir(crate::root()?),
        )?;
        let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        let registry = home.context("find cargo's folder")?.join("registry");
        let local = root.join("usr/local");
        fs::create_dir_all(local.join("cargo"))?;
        for (from, to) in [
            (Path::new(sysroot.trim()), local.join("rust")),
            (&registry, local.join("cargo/registry")),
        ] {
            let mut copy = Command::new("cp");
            copy.args([
                "--recursive",
                "--no-dereference",
                "--preserve=mode,timestamps",
            ]);
            command::output(copy.arg(from).arg(to)).context("copy the toolchain")?;
        }
        self.import(&root, RUST_IMAGE)?;
        fs::remove_dir_all(&root).context("remove the root of the base image")
    }

    /// Whether it has the image, made of today's packages or brought by somebody.
    fn has_made(&self, image: &str) -> bool {
        let inspect = [
            "image",
            "inspect",
            "--format",
            "{{json .Config.Labels}}",
            image,
        ];
        let labels = command::output(self.docker().args(inspect));
        labels.is_ok_and(|labels| !self.is_own() || labels.contains(PACKAGES))
    }

    /// Whether the engine was started here, so that its images are ours.
    fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Makes those of the images that are missing from Debian's packages.
    fn make_images(&self) -> Result<()> {
        let missing = IMAGES.iter().filter(|(name, _)| !self.has_made(name));
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        tools::install_for_docker()?;
        let folder = crate::target_dir()?.join("test-tools/docker");
        fs::create_dir_all(&folder)?;
        let root = folder.join("root");
        bootstrap(&root, PACKAGES)?;
        // The one with Go is the last.
        for (name, has_go) in missing {
            if *has_go {
                copy_go(&root)?;
            }
            self.import(&root, name)?;
        }
        fs::remove_dir_all(&root).context("remove the root of the base images")
    }

    /// Makes an image of a folder.
    fn import(&self, root: &Path, name: &str) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--directory"]).arg(root);
        tar.args(["--exclude=./var/cache", "--exclude=./usr/share/doc"]);
        tar.args([
            "--exclude=./usr/share/locale",
            "--exclude=./usr/share/man",
            ".",
        ]);
        let mut tar = tar.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let packed = tar.stdout.take().context("it is piped")?;
        let mut import = self.docker();
        import.arg("import");
        for line in ENVIRONMENT {
            import.args(["--change", line]);
        }
        let label = format!("LABEL {RECIPE_LABEL}={PACKAGES}");
        import.args(["--change", &label]);
        import.args(["-", name]);
        let imported = import.stdin(packed).stdout(Stdio::null()).status()?;
        let is_packed = tar.wait()?.success();
        if !imported.success() || !is_packed {
            bail!("the image {name} could not be made");
        }
        println!("made the image {name}");
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some((child, _)) = &mut self.own else {
            return;
        };
        // It stops its containers and its containerd, which a kill would leave.
        let pid = child.id().to_string();
        drop(command::output(Command::new("kill").args(["-TERM", &pid])));
        drop(child.wait());
    }
}

/// A program of the system, which calls others.
pub(crate) fn program(name: &str) -> Command {
    let mut program = Command::new(name);
    program.env("PATH", command::path());
    program
}

/// Where apt gets the packages of a release of Debian from.
pub(crate) fn mirror(codename: &str) -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
    let targets = command::output(targets.arg("Created-By: Packages"))?;
    targets
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .find_map(|(mirror, release)| (release == codename).then(|| mirror.to_owned()))
        .with_context(|| format!("apt knows no mirror of {codename}"))
}

/// A Debian like this machine's, with some packages.
fn bootstrap(root: &Path, packages: &str) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no release")?;
    let mirror = mirror(codename)?;
    let mut debootstrap = program("debootstrap");
    debootstrap.arg("--variant=minbase");
    debootstrap
        .arg(format!("--include={packages}"))
        .arg(codename);
    debootstrap.arg(root).arg(mirror);
    // What it prints names the mirror.
    command::output(&mut debootstrap).context("debootstrap")?;
    Ok(())
}

/// This machine's Go, in `/usr/local/go` below `root`.
pub(crate) fn copy_go(root: &Path) -> Result<()> {
    let go = command::output(Command::new("go").args(["env", "GOROOT"]))?;
    let target = root.join("usr/local/go");
    // Debian's has links to its other half.
    let mut copy = Command::new("cp");
    copy.args(["--recursive", "--dereference"]).arg(go.trim());
    command::output(copy.arg(&target)).context("copy Go")?;
    // A quarter of it, and of no use for building.
    for unused in ["test", "src/cmd", "doc", "api"] {
        let unused = target.join(unused);
        if unused.exists() {
            fs::remove_dir_all(unused)?;
        }
    }
    Ok(())
}
