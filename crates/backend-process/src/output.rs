//! Carries what a process prints into its function's log, line by line.

use faas::{FunctionLog, LogStream, Printer};
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
}

/// Reads until every writer has closed the pipe.
pub(crate) async fn pump(mut pipe: pipe::Receiver, stream: LogStream, target: Target) {
    let mut printer = Printer::new(target.log, target.handler, stream);
    // Most functions print little: the buffer grows with the first flood.
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        buffer.clear();
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => printer.take(&buffer[..count]),
        }
        if buffer.len() == buffer.capacity() {
            tokio::time::sleep(FLOOD_PAUSE).await;
            buffer.reserve(READ_BYTES);
        }
    }
    printer.end();
}
