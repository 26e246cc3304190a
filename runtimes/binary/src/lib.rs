//! The shim of the binary runtime: runs `fn.sh` or `fn.cgi` for every request, payload on standard
//! input, reply on standard output.
//!
//! It is part of the `tinyfaas` program, which executes itself in the sandbox. One thread waits for
//! the proxy and all children at once.

mod call;
mod caller;
mod reply;
mod request;
mod script;

pub use caller::accept;

use bytes::BytesMut;
use call::{Call, Settled};
use handler_protocol::frame::{self, FromProxy};
use request::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, getpid, wait};
use script::Script;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

/// Requests that run at once; what comes beyond waits here.
const AT_ONCE: u16 = 16;
const READ_BYTES: usize = 64 << 10;
/// How soon a process that lost its parent is reaped while nothing else happens.
const REAP_EVERY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Serves the proxy at the other end of `socket` until it closes its side. `envs` is the whole
/// environment of the function, `TINYFAAS_CODE` among it.
///
/// # Errors
/// If the stream breaks or the proxy breaks the protocol. No process is left running.
pub fn run(socket: OwnedFd, envs: Vec<(String, String)>) -> io::Result<()> {
    let mut stream = File::from(socket);
    let script = match Script::find(envs) {
        Ok(script) => script,
        Err(reason) => {
            let mut out = BytesMut::new();
            frame::encode_failed(&mut out, &reason);
            stream.write_all(&out)?;
            return Err(io::Error::other(reason));
        }
    };
    rustix::io::ioctl_fionbio(&stream, true)?;
    // No script has it.
    rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
    let mut shim = Shim {
        stream,
        script,
        received: BytesMut::new(),
        chunk: vec![0; READ_BYTES].into_boxed_slice(),
        out: BytesMut::new(),
        waiting: VecDeque::new(),
        running: Vec::new(),
        is_init: getpid() == Pid::INIT,
        has_orphans: false,
    };
    frame::encode_hello(&mut shim.out, AT_ONCE);
    let served = shim.serve();
    for call in &shim.running {
        call.kill();
    }
    match served {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        served => served,
    }
}

struct Shim {
    stream: File,
    script: Script,
    received: BytesMut,
    chunk: Box<[u8]>,
    out: BytesMut,
    waiting: VecDeque<Request>,
    running: Vec<Call>,
    /// Whether processes that lost their parent become children of this one.
    is_init: bool,
    /// Whether there may be such processes.
    has_orphans: bool,
}

impl Shim {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.write()?;
            let is_readable = self.wait()?;
            if is_readable && !self.read()? {
                return Ok(());
            }
            if self.is_init {
                self.reap()?;
            }
            self.settle();
            self.begin();
        }
    }

    /// Sleeps until something can go on; whether the proxy sent something.
    fn wait(&mut self) -> io::Result<bool> {
        let mut interest = PollFlags::IN;
        if !self.out.is_empty() {
            interest |= PollFlags::OUT;
        }
        let timeout = self.has_orphans.then_some(&REAP_EVERY);
        let mut fds = vec![PollFd::new(&self.stream, interest)];
        for call in &self.running {
            fds.extend(call.interests());
        }
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok(fds[0].revents().intersects(readable))
    }

    /// Reads what has come; `false` where the proxy closed its side.
    fn read(&mut self) -> io::Result<bool> {
        let count = match self.stream.read(&mut self.chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if is_transient(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        self.received.extend_from_slice(&self.chunk[..count]);
        let broken = |error| io::Error::new(ErrorKind::InvalidData, error);
        while let Some(frame) = frame::decode_from_proxy(&mut self.received).map_err(broken)? {
            self.take(frame);
        }
        Ok(true)
    }

    fn take(&mut self, frame: FromProxy) {
        match frame {
            FromProxy::Request {
                id,
                invocation,
                time_left: _,
                method,
                path,
                query,
                headers,
                payload,
            } => self.waiting.push_back(Request {
                id,
                invocation,
                method,
                path,
                query,
                headers,
                payload,
            }),
            FromProxy::Cancel { id } => self.cancel(id),
            FromProxy::Ping(bytes) => frame::encode_pong(&mut self.out, &bytes),
        }
    }

    fn cancel(&mut self, id: u32) {
        if let Some(at) = self.waiting.iter().position(|request| request.id == id) {
            self.waiting.remove(at);
            frame::encode_failure(&mut self.out, id, "cancelled");
        }
        for call in self.running.iter().filter(|call| call.id == id) {
            call.kill();
        }
    }

    /// Starts what waits, as far as there is room.
    fn begin(&mut self) {
        while self.running.len() < usize::from(AT_ONCE) {
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            let id = request.id;
            match Call::start(&self.script, request) {
                Ok(call) => self.running.push(call),
                Err(error) => {
                    let name = self.script.form.file_name();
                    let message = format!("{name} could not be started: {error}");
                    frame::encode_failure(&mut self.out, id, &message);
                }
            }
        }
    }

    /// Reaps all that has ended, children of this process and those that it inherited.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(call) = self.running.iter_mut().find(|call| call.pid == pid) {
                        call.ended(status);
                    }
                }
                Ok(None) => {
                    // Those of calls that run count, too, which costs a look each second.
                    self.has_orphans = true;
                    return Ok(());
                }
                Err(rustix::io::Errno::CHILD) => {
                    self.has_orphans = false;
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves every call on, and answers those that are done.
    fn settle(&mut self) {
        let out = &mut self.out;
        self.running.retain_mut(|call| {
            let Some(settled) = call.proceed() else {
                return true;
            };
            answer(out, call.id, settled);
            false
        });
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.split_to(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn answer(out: &mut BytesMut, id: u32, settled: Settled) {
    match settled {
        Settled::Replied(reply) => {
            frame::encode_reply(out, id, &reply).expect("the output is bounded below a frame");
        }
        Settled::Failed(message) => frame::encode_failure(out, id, &message),
    }
}

/// What `fuzz/` reaches of this crate.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{reply, script::Form};

    /// What a `fn.cgi` printed, as a reply.
    ///
    /// # Errors
    /// The text for whoever wrote it.
    pub fn cgi(printed: &[u8]) -> Result<faas::Reply, String> {
        reply::of(Form::Cgi, printed.to_vec())
    }
}
