//! Calls of a handler over its own socket, with nothing of the platform in between: what the
//! shim and the function take alone.

use super::{Outcome, one_by_one};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HELLO: u8 = 1;
const REQUEST: u8 = 2;
const REPLY: u8 = 3;
const HEADER_BYTES: usize = 16;

/// A shim with its function.
#[derive(Debug)]
pub struct Handler {
    child: Child,
    stream: UnixStream,
    next_id: u32,
}

impl Drop for Handler {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Handler {
    /// Starts `program` (interpreter and shim) for the code in a folder.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start(program: &[&str], code: &Path) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let first = program.first().context("a program")?;
        // The stream is descriptor 3.
        let child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 0</dev/null"#, "sh"])
            .args(program)
            .env("TINYFAAS_FUNCTION", "bench")
            .env("TINYFAAS_HANDLER", "bench-0")
            .env("TINYFAAS_CODE", code)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {first}"))?;
        let mut handler = Self {
            child,
            stream: ours,
            next_id: 1,
        };
        let (kind, _) = handler.frame()?;
        ensure!(kind == HELLO, "the handler did not say hello");
        Ok(handler)
    }

    /// A call with its reply's payload.
    ///
    /// # Errors
    /// If the handler ended.
    pub fn call(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        const METHOD: &[u8] = b"POST";
        const PATH: &[u8] = b"/bench";
        let id = self.next_id;
        self.next_id += 1;
        let mut body = Vec::with_capacity(64 + payload.len());
        body.extend_from_slice(&u64::from(id).to_be_bytes());
        body.extend_from_slice(&60_000_u32.to_be_bytes());
        body.extend_from_slice(&u16::try_from(PATH.len())?.to_be_bytes());
        body.extend_from_slice(&0_u16.to_be_bytes());
        body.extend_from_slice(METHOD);
        body.extend_from_slice(PATH);
        body.extend_from_slice(payload);
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend_from_slice(&u32::try_from(12 + body.len())?.to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&[REQUEST, 0]);
        frame.extend_from_slice(&u16::try_from(METHOD.len())?.to_be_bytes());
        frame.extend_from_slice(&0_u32.to_be_bytes());
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame)?;
        let (kind, payload) = self.frame()?;
        ensure!(kind == REPLY, "a frame of kind {kind} is no reply");
        Ok(payload)
    }

    /// Calls for that long, one after the other.
    ///
    /// # Errors
    /// As [`Handler::call`].
    pub fn run(&mut self, payload: &[u8], time: Duration) -> Result<Outcome> {
        one_by_one(time, || Ok(self.call(payload)? == payload))
    }

    /// The kind of the next frame, and what follows its header block.
    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.stream
            .read_exact(&mut header)
            .context("the handler ended")?;
        let number = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_be_bytes(bytes) as usize
        };
        let kind = header[8];
        // In a hello the place of this length has another number.
        let headers = if kind == REPLY { number(12) } else { 0 };
        let mut body = vec![0; number(0).saturating_sub(12)];
        self.stream.read_exact(&mut body)?;
        ensure!(headers <= body.len(), "a header block beyond its frame");
        Ok((kind, body.split_off(headers)))
    }
}
