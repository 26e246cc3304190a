//! Carries what a process prints into its function's log, line by line.

use faas::{FunctionLog, LogStream};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What is read at once; the size of a pipe's buffer.
const READ_BYTES: usize = 64 << 10;
/// After a full buffer, the pump rests, so that a flood costs its function time, not the node.
const FLOOD_PAUSE: Duration = Duration::from_millis(5);

/// Both ends of a pipe: ours to read, and the process's.
pub(crate) fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// Where the lines of a process go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) log: Arc<FunctionLog>,
    pub(crate) handler: Arc<str>,
    pub(crate) line_bytes_max: usize,
}

/// Reads until every writer has closed the pipe.
pub(crate) async fn pump(mut pipe: pipe::Receiver, stream: LogStream, target: Target) {
    let mut line = Vec::new();
    // Most functions print little: the buffer grows with the first flood.
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        buffer.clear();
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => take_lines(&mut line, &buffer[..count], stream, &target),
        }
        if buffer.len() == buffer.capacity() {
            tokio::time::sleep(FLOOD_PAUSE).await;
            buffer.reserve(READ_BYTES);
        }
    }
    if !line.is_empty() {
        push(&line, stream, &target);
    }
}

fn take_lines(line: &mut Vec<u8>, mut bytes: &[u8], stream: LogStream, target: &Target) {
    while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
        line.extend_from_slice(&bytes[..end]);
        push(line, stream, target);
        line.clear();
        bytes = &bytes[end + 1..];
    }
    for piece in bytes.chunks(target.line_bytes_max) {
        if line.len() + piece.len() > target.line_bytes_max {
            push(line, stream, target);
            line.clear();
        }
        line.extend_from_slice(piece);
    }
}

/// A line over the bound becomes several.
fn push(line: &[u8], stream: LogStream, target: &Target) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    let mut rest = &*text;
    loop {
        let (head, tail) = rest.split_at(rest.floor_char_boundary(target.line_bytes_max));
        target.log.push(&target.handler, stream, head);
        rest = tail;
        if rest.is_empty() || head.is_empty() {
            return;
        }
    }
}
