//! Carries what a process prints into its function's log, line by line.

use faas::{CoreShare, FunctionLog, LogStream, Printer};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What is read at once: of blank lines, the most that there is to do with so many bytes, it takes
/// well below a millisecond.
const READ_BYTES: usize = 8 << 10;
/// Shorter rests are taken together: a timer is coarser.
const REST_MIN: Duration = Duration::from_millis(2);

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

/// Reads until every writer has closed the pipe, within the share of its function and that
/// of all functions together: a flood costs the function that prints it time, in which it waits for its full
/// pipe, and no other function.
pub(crate) async fn pump(
    mut pipe: pipe::Receiver,
    stream: LogStream,
    target: Target,
    of_all: Arc<CoreShare>,
) {
    let mut printer = Printer::new(Arc::clone(&target.log), target.handler, stream);
    // Most functions print little: the buffer grows with what is printed.
    let mut buffer = Vec::with_capacity(1 << 10);
    loop {
        buffer.clear();
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let begun = Instant::now();
        printer.take(&buffer);
        if buffer.len() == buffer.capacity() && buffer.len() < READ_BYTES {
            buffer.reserve(READ_BYTES);
        }
        let now = Instant::now();
        let took = now - begun;
        let of_function = target.log.core_share().rest(now, took);
        let until = of_function.max(of_all.rest(now, took));
        if until.saturating_duration_since(now) >= REST_MIN {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    printer.end();
}
