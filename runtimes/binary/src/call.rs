//! One run of the function's file.

use crate::reply;
use crate::request::Request;
use crate::script::{Form, Script};
use bytes::{Buf, Bytes};
use handler_protocol::frame::MESSAGE_BYTES_MAX;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open, waitpid,
};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

/// The largest body of a reply, as for every runtime.
const PAYLOAD_BYTES_MAX: usize = 8 << 20;
const READ_BYTES: usize = 16 << 10;

/// What came of a call.
pub(crate) enum Settled {
    /// What the script printed.
    Replied(faas::Reply),
    /// Why there is no reply.
    Failed(String),
}

/// A script that runs.
pub(crate) struct Call {
    pub(crate) id: u32,
    pub(crate) pid: Pid,
    form: Form,
    /// Readable when the process has ended.
    pidfd: OwnedFd,
    /// None when the script has all or wants no more.
    stdin: Option<File>,
    payload: Bytes,
    /// None when it has ended.
    stdout: Option<File>,
    output: Vec<u8>,
    status: Option<WaitStatus>,
}

impl Call {
    pub(crate) fn start(script: &Script, request: Request) -> io::Result<Self> {
        let mut child = script.command(&request).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the kernel's process ids are positive and fit");
        let stdin = child
            .stdin
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        let stdout = child
            .stdout
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        for pipe in [&stdin, &stdout].into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let mut call = Self {
            id: request.id,
            pid,
            form: script.form,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| kill_group(pid))?,
            stdin,
            payload: request.payload,
            stdout,
            output: Vec::new(),
            status: None,
        };
        call.feed();
        Ok(call)
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let stdin = self.stdin.as_ref();
        let stdout = self.stdout.as_ref();
        let end = PollFd::new(&self.pidfd, PollFlags::IN);
        stdin
            .map(|pipe| PollFd::new(pipe, PollFlags::OUT))
            .into_iter()
            .chain(stdout.map(|pipe| PollFd::new(pipe, PollFlags::IN)))
            .chain([end])
    }

    /// Ends the script and what it started.
    pub(crate) fn kill(&self) {
        kill_group(self.pid);
    }

    /// Takes note that the process has ended and was reaped.
    pub(crate) fn ended(&mut self, status: WaitStatus) {
        self.status = Some(status);
    }

    /// Does what can be done without waiting; the outcome once the script has ended.
    pub(crate) fn proceed(&mut self) -> Option<Settled> {
        if self.status.is_none()
            && let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::NOHANG)
        {
            self.status = Some(status);
        }
        self.feed();
        // After the end has been seen, so that nothing that was printed before it is missed.
        if let Err(message) = self.collect() {
            self.kill();
            // Its remains are reaped with the orphans, or by `waitpid` here.
            if self.status.is_none() {
                let _reaped = waitpid(Some(self.pid), WaitOptions::empty());
            }
            return Some(Settled::Failed(message));
        }
        let status = self.status?;
        // What the script left running would hold memory that the next call may need.
        self.kill();
        Some(self.outcome(status))
    }

    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else {
            return;
        };
        while !self.payload.is_empty() {
            match stdin.write(&self.payload) {
                Ok(count) => self.payload.advance(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The script has closed its input: it wants no more.
                Err(_closed) => break,
            }
        }
        self.payload = Bytes::new();
        self.stdin = None;
    }

    fn collect(&mut self) -> Result<(), String> {
        let Some(stdout) = &mut self.stdout else {
            return Ok(());
        };
        let mut chunk = [0; READ_BYTES];
        loop {
            match stdout.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.output.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(format!("the output of {} was lost: {error}", self.name()));
                }
            }
            let bytes_max = match self.form {
                Form::Body => PAYLOAD_BYTES_MAX,
                Form::Cgi => PAYLOAD_BYTES_MAX + reply::HEADERS_BYTES_MAX,
            };
            if self.output.len() > bytes_max {
                return Err(format!(
                    "{} printed more than {bytes_max} bytes",
                    self.name()
                ));
            }
        }
        self.stdout = None;
        Ok(())
    }

    fn outcome(&mut self, status: WaitStatus) -> Settled {
        if status.exit_status() == Some(0) {
            let printed = std::mem::take(&mut self.output);
            return match reply::of(self.form, printed) {
                Ok(reply) if reply.payload.len() > PAYLOAD_BYTES_MAX => Settled::Failed(format!(
                    "{} printed a body of more than {PAYLOAD_BYTES_MAX} bytes",
                    self.name()
                )),
                Ok(reply) => Settled::Replied(reply),
                Err(message) => Settled::Failed(message),
            };
        }
        self.output.truncate(MESSAGE_BYTES_MAX);
        let printed = String::from_utf8_lossy(&self.output);
        let printed = printed.trim();
        if !printed.is_empty() {
            return Settled::Failed(printed.to_owned());
        }
        let name = self.name();
        Settled::Failed(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("{name} exited with status {code}"),
            (None, Some(signal)) => format!("{name} was ended by signal {signal}"),
            (None, None) => format!("{name} ended"),
        })
    }

    fn name(&self) -> &'static str {
        self.form.file_name()
    }
}

fn kill_group(pid: Pid) {
    // It may have ended on its own.
    let _gone = kill_process_group(pid, Signal::KILL);
}
