//! A node of tinyFaaS, as a user starts it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running node; dropping it stops it.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    child: Child,
    folder: TempDir,
    addresses: Value,
    /// From the start of the program to its line of addresses.
    pub start: Duration,
}

impl Node {
    /// Starts the program on free ports.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_in(program, tempfile::tempdir()?)
    }

    /// Starts it where another one was.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start_in(program: &Path, folder: TempDir) -> Result<Self> {
        // A data directory that others can enter and that holds more than tinyFaaS's own is refused.
        let owner_only = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder.path(), owner_only)?;
        let begin = Instant::now();
        let mut command = Command::new(program);
        command
            .args(["serve", "--json", "--insecure-management", "--data-dir"])
            .arg(folder.path());
        for flag in ["--management", "--coap", "--http", "--grpc"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let log = std::fs::File::create(folder.path().join("bench.log"))?;
        let mut child = command.stderr(log).spawn()?;
        let stdout = child.stdout.take().context("it is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let start = begin.elapsed();
        let addresses = serde_json::from_str(&line).context("the node did not start")?;
        Ok(Self {
            program: program.to_owned(),
            child,
            folder,
            addresses,
            start,
        })
    }

    /// Stops it and returns its folder, for the next.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn stop(mut self) -> Result<TempDir> {
        self.end()?;
        let folder = tempfile::tempdir()?;
        Ok(std::mem::replace(&mut self.folder, folder))
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the node ended with {status}");
        Ok(())
    }

    /// The address of `coap`, `http`, `grpc` or `management`.
    ///
    /// # Errors
    /// If it is off.
    pub fn addr(&self, part: &str) -> Result<SocketAddr> {
        let addr = self.addresses[part].as_str().context("it is off")?;
        Ok(addr.parse()?)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Deploys a folder or file and returns how long the command took.
    ///
    /// # Errors
    /// If it is refused.
    pub fn deploy(&self, source: &Path, name: &str, flags: &[&str]) -> Result<Duration> {
        let begin = Instant::now();
        let output = Command::new(&self.program)
            .arg("deploy")
            .arg(source)
            .args(["--name", name, "--node"])
            .arg(format!("http://{}", self.addr("management")?))
            .args(flags)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", source.display());
        Ok(begin.elapsed())
    }

    /// The handlers of its functions.
    ///
    /// # Errors
    /// If /proc can't be read.
    pub fn handlers(&self) -> Result<Vec<u32>> {
        crate::process::descendants(self.pid())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What went wrong before is told by whoever saw it.
        drop(self.end());
    }
}
