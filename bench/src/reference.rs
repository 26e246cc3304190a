//! Reference points: the least that a server in Rust can be, and what users would write instead.

mod coap;
mod grpc;
mod http;

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers CoAP with what came: `recvmmsg`, `sendmmsg`, a thread and socket for each core.
    BareCoap,
    /// Answers HTTP with what came, on hyper.
    BareHyper,
    /// Answers gRPC with what came, on tonic.
    BareTonic,
    /// Python's `ThreadingHTTPServer` with the function, connections kept (HTTP/1.1).
    PythonKept,
    /// The same as it is by default: HTTP/1.0, a connection and a thread for each call.
    PythonDefault,
    /// Node's `http` with the function.
    NodeHttp,
    /// Express with the function.
    Express,
}

/// What a reference in a process of its own is started with.
pub const WORD: &str = "reference";

/// Serves one of those that are in this program, until it is killed.
///
/// # Errors
/// If the name is not known or the port is taken.
pub fn serve(name: &str) -> Result<()> {
    match name {
        "bare-coap" => coap::serve(),
        "bare-hyper" => http::serve(),
        "bare-tonic" => grpc::serve(),
        _ => bail!("there is no reference {name}"),
    }
}

/// Tells whoever started this process where it listens.
fn tell(addr: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{addr}")?;
    Ok(out.flush()?)
}

/// A running reference; dropping it ends it.
#[derive(Debug)]
pub struct Reference {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Drop for Reference {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Reference {
    /// Starts it. `tools` has Express in `node_modules`.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn start(kind: Kind, tools: &Path) -> Result<Self> {
        Self::start_by(&std::env::current_exe()?, kind, tools)
    }

    /// The same; `bench` is this crate's program.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn start_by(bench: &Path, kind: Kind, tools: &Path) -> Result<Self> {
        let folder = crate::folder();
        let own = |name: &str| {
            let mut command = Command::new(bench);
            command.args([WORD, name]);
            command
        };
        let script = |interpreter: &str, file: &str, word: &str| {
            let mut command = Command::new(interpreter);
            command.arg(folder.join("servers").join(file)).arg(word);
            command.env("NODE_PATH", tools.join("node_modules"));
            command
        };
        let mut command = match kind {
            Kind::BareCoap => own("bare-coap"),
            Kind::BareHyper => own("bare-hyper"),
            Kind::BareTonic => own("bare-tonic"),
            Kind::PythonKept => script("python3", "threading_server.py", "HTTP/1.1"),
            Kind::PythonDefault => script("python3", "threading_server.py", "HTTP/1.0"),
            Kind::NodeHttp => script("node", "http_server.js", "http"),
            Kind::Express => script("node", "http_server.js", "express"),
        };
        command.current_dir(folder.join(".."));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdout = child.stdout.take().context("it is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().parse();
        let addr = addr.with_context(|| format!("{command:?} said {line:?}"))?;
        Ok(Self { child, addr })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
