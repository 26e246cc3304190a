//! A running node.

use crate::answer::{Answer, request};
use crate::function::{Function, escaped};
use crate::leftovers::{self, Process};
use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How much of a node's log a failing test shows.
const LOG_BYTES_SHOWN: usize = 16 << 10;

/// How long a node may take to be ready, with the examples deployed and Go compiling for the first
/// time.
const READY: Duration = Duration::from_secs(180);

/// How long the kernel may take to remove what a node killed last.
const GRACE: Duration = Duration::from_secs(1);

/// Where a node keeps its data; nodes that are started one after the other may share it.
#[derive(Debug, Clone)]
pub struct Place {
    folder: Arc<TempDir>,
    /// Whether its nodes run as somebody without rights.
    is_unprivileged: bool,
}

/// The user and group without rights, on every Linux distribution.
const NOBODY: u32 = 65_534;

impl Place {
    /// A new empty place, removed with its last clone.
    ///
    /// # Panics
    /// If none can be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir();
        Self {
            folder: Arc::new(folder.expect("a temporary folder")),
            is_unprivileged: false,
        }
    }

    /// A new place whose nodes run as somebody without rights: nobody, or, where root does not run
    /// the tests, whoever does.
    ///
    /// # Panics
    /// If none can be made.
    #[must_use]
    pub fn unprivileged() -> Self {
        let mut place = Self::new();
        place.is_unprivileged = rustix::process::geteuid().is_root();
        if place.is_unprivileged {
            let copy = place.folder().join("tinyfaas");
            std::fs::copy(crate::program(), &copy).expect("the program can be copied");
            std::os::unix::fs::chown(place.folder(), Some(NOBODY), Some(NOBODY))
                .expect("root gives folders away");
        }
        place
    }

    /// The place's folder, which is also the node's working directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory of nodes here.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The command `tinyfaas serve` on free ports, with more arguments; a later one of a flag wins.
    #[must_use]
    pub fn serve(&self, args: &[&str]) -> Command {
        let mut command = if self.is_unprivileged {
            let mut command = program_command(&self.folder().join("tinyfaas"));
            // Interpreters in somebody's home are out of reach.
            command.uid(NOBODY).gid(NOBODY).env("PATH", "/usr/bin:/bin");
            command
        } else {
            program_command(&crate::program())
        };
        command.arg("serve").arg("--json");
        command.arg("--data-dir").arg(self.data_dir());
        for flag in ["--management", "--coap", "--http", "--grpc"] {
            if !args.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        command.args(args).current_dir(self.folder());
        command
    }
}

/// The program under test, without settings from this process's environment.
pub(crate) fn program_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_string_lossy().starts_with("TINYFAAS_");
        if is_ours
            || ["COAP_PORT", "HTTP_PORT", "GRPC_PORT", "TF_BACKEND"]
                .iter()
                .any(|n| name == *n)
        {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running node. Dropping it stops it and sees that nothing is left of it.
#[derive(Debug)]
pub struct Node {
    child: Option<Child>,
    /// Where it keeps its data.
    pub place: Place,
    addresses: Value,
    log: PathBuf,
}

impl Node {
    /// Starts a node on free ports, in a new place.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(&Place::new(), &[])
    }

    /// Starts a node on free ports, with more arguments for `tinyfaas serve`.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start_at(place: &Place, args: &[&str]) -> Self {
        Self::start_command(place, &mut place.serve(args))
    }

    /// Starts a node by a command made from [`Place::serve`].
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start_command(place: &Place, command: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new_in(place.folder());
        let (file, log) = log
            .and_then(|log| Ok(log.keep()?))
            .expect("a file for the log");
        command.stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut node = Self {
            child: Some(child),
            place: place.clone(),
            addresses: Value::Null,
            log,
        };
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Where nobody waits any more, the test has failed already.
            drop(tell.send(read.map(|_| line)));
        });
        let line = told.recv_timeout(READY);
        let line = line.ok().and_then(Result::ok).unwrap_or_default();
        node.addresses = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the node printed no addresses but {line:?}"));
        node
    }

    /// The address of `management`, `coap`, `http` or `grpc`.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn addr(&self, part: &str) -> &str {
        let addr = self.addresses[part].as_str();
        addr.unwrap_or_else(|| panic!("{part} is off"))
    }

    /// The port of `management`, `coap`, `http` or `grpc`.
    ///
    /// # Panics
    /// If it is off.
    #[must_use]
    pub fn port(&self, part: &str) -> u16 {
        let port = self.addr(part).rsplit(':').next();
        let port = port.and_then(|port| port.parse().ok());
        port.expect("an address ends with a port")
    }

    /// The node's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// A request to the management service; `path` begins with a slash.
    #[must_use]
    pub fn manage(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let url = format!("http://{}{path}", self.addr("management"));
        let token = self.token().map(|token| format!("Bearer {token}"));
        let headers = token.as_deref().map(|token| ("authorization", token));
        request(method, &url, headers.as_slice(), body)
    }

    /// The token of the management service; none where it has none.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.place.data_dir().join("token"));
        text.ok().map(|text| text.trim().to_owned())
    }

    /// Deploys a function; the answer may be a refusal.
    #[must_use]
    pub fn try_deploy(&self, function: &Function) -> Answer {
        self.deploy_archive(&function.name, &function.query(), &function.zip())
    }

    /// Deploys a function.
    ///
    /// # Panics
    /// If it is refused.
    pub fn deploy(&self, function: &Function) {
        let answer = self.try_deploy(function).expect_success();
        drop(answer);
    }

    /// Deploys an archive as it is; `query` has the settings.
    #[must_use]
    pub fn deploy_archive(&self, name: &str, query: &str, archive: &[u8]) -> Answer {
        let path = format!("/v1/functions/{}?{query}", escaped(name));
        self.manage("PUT", &path, archive)
    }

    /// Where a function is deployed.
    #[must_use]
    pub fn management_url(&self, name: &str) -> String {
        let addr = self.addr("management");
        format!("http://{addr}/v1/functions/{}", escaped(name))
    }

    /// What the node says of a function.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn describe(&self, name: &str) -> Value {
        let path = format!("/v1/functions/{}", escaped(name));
        self.manage("GET", &path, b"").expect_success().json()
    }

    /// Calls a function over HTTP.
    #[must_use]
    pub fn post(&self, name: &str, payload: &[u8]) -> Answer {
        self.call("POST", name, &[], payload)
    }

    /// Calls a function over HTTP with a method and headers.
    #[must_use]
    pub fn call(
        &self,
        method: &str,
        name: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Answer {
        request(method, &self.url("http", name), headers, payload)
    }

    /// The URL of a function.
    #[must_use]
    pub fn url(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}/{name}", self.addr(scheme))
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its handlers and whatever else it started.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        leftovers::descendants(self.pid())
    }

    /// What lies in the folders of the data directory that are for a moment only.
    #[must_use]
    pub fn temporary_files(&self) -> Vec<String> {
        leftovers::temporary_files(&self.place.data_dir())
    }

    /// Asks it to end, waits until it has, and sees that nothing is left of it.
    ///
    /// # Panics
    /// If something is left, or it ends with another code than 0.
    pub fn stop(mut self) {
        self.end(Signal::TERM);
    }

    /// Kills it, waits, and sees that nothing runs any more. Returns its process id.
    ///
    /// # Panics
    /// If a process is left.
    pub fn kill(mut self) -> u32 {
        let pid = self.pid();
        self.end(Signal::KILL);
        pid
    }

    /// Kills it and waits for nothing; [`Node::kill`] does that.
    pub fn kill_now(&self) {
        if let Some(child) = &self.child {
            send(child, Signal::KILL);
        }
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child.id();
        let started = leftovers::descendants(pid);
        send(&child, signal);
        let status = ended(&mut child);
        let data_dir = self.place.data_dir();
        if signal == Signal::KILL {
            // Folders and cgroups are for the next start to remove.
            until("every handler ends with its node", || {
                (!started.iter().any(Process::is_alive)).then_some(())
            });
            return;
        }
        let log = self.log();
        assert!(status.success(), "the node ended with {status}:\n{log}");
        // What was killed takes the kernel a moment to be gone.
        let since = Instant::now();
        let left = loop {
            let left = leftovers::of(pid, &data_dir, &started);
            if left.is_empty() || since.elapsed() > GRACE {
                break left;
            }
        };
        assert!(left.is_empty(), "left behind: {left:#?}\n{log}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.end(Signal::TERM);
        }
        let log = self.log();
        let start = log.len().saturating_sub(LOG_BYTES_SHOWN);
        eprintln!("the node's log:\n{}", log.get(start..).unwrap_or(&log));
        if let Some(mut child) = self.child.take() {
            send(&child, Signal::KILL);
            ended(&mut child);
        }
    }
}

/// Sends a signal to a process that this one started.
fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let sent = pid.map(|pid| kill_process(pid, signal));
    // One that has ended already needs none.
    let _was_alive = sent.is_some_and(|sent| sent.is_ok());
}

fn ended(child: &mut Child) -> ExitStatus {
    until("the node ends", || child.try_wait().ok().flatten())
}
