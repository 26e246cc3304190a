//! The warden: a process of ours that ends every handler when tinyFaaS is gone.
//!
//! The kernel's own way (`PR_SET_PDEATHSIG`) is lost when a thread of the handler executes a
//! program: the new program has that thread's signal, which is none. The warden holds every
//! handler by its pidfd, out of their reach, and knows by its end of a socket when tinyFaaS ends.

use super::cgroup::tree;
use super::step::{Failure, Step};
use super::sys::{WARDEN_ARG0, ignore_stop_signals, take_inherited};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the socket is called among the things that epoll watches; pidfds go by their numbers.
const SOCKET: u64 = u64::MAX;
const EVENTS_AT_ONCE: usize = 32;

/// The warden of this process, which ends with it.
#[derive(Debug)]
pub(crate) struct Warden {
    process: Child,
    /// None once it was told that we end.
    socket: Option<UnixStream>,
    cgroups: Vec<PathBuf>,
}

impl Warden {
    /// Starts a warden that also ends whatever is in the children of these cgroups.
    pub(crate) fn start(cgroups: Vec<PathBuf>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new("/proc/self/exe")
            .arg0(std::ffi::OsStr::from_bytes(WARDEN_ARG0.to_bytes()))
            .args(&cgroups)
            .env_clear()
            .current_dir("/")
            // The signals of a terminal go to a group.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            process,
            socket: Some(ours),
            cgroups,
        })
    }

    /// Entrusts a handler to it; to another one, where it was killed.
    pub(crate) fn hold(&mut self, handler: BorrowedFd<'_>) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        if send(socket, handler).is_ok() {
            return Ok(());
        }
        tracing::warn!("the process that ends handlers with tinyFaaS was killed; started another");
        *self = Self::start(std::mem::take(&mut self.cgroups))?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(send(socket, handler)?)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        drop(self.socket.take());
        // It was told to end by that.
        drop(self.process.wait());
    }
}

fn send(socket: &UnixStream, handler: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let handlers = [handler];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&handlers));
    let byte = [IoSlice::new(&[0])];
    rustix::io::retry_on_intr(|| {
        sendmsg(socket, &byte, &mut control, SendFlags::NOSIGNAL).map(drop)
    })
}

/// Holds handlers until tinyFaaS is gone, then ends them.
pub(crate) fn run(cgroups: impl Iterator<Item = PathBuf>) -> Result<(), Failure> {
    // Whoever stops a unit or a session signals all of it; tinyFaaS stops in order, then we end.
    ignore_stop_signals();
    let socket = UnixStream::from(take_inherited(0));
    let handlers = hold_handlers(&socket).step("watching")?;
    for handler in handlers.values() {
        // It fails only where the handler has ended.
        let _ended = pidfd_send_signal(handler, Signal::KILL);
    }
    for folder in cgroups {
        end_children(&folder);
    }
    Ok(())
}

/// Returns those that are left when the other end of the socket is closed.
fn hold_handlers(socket: &UnixStream) -> io::Result<HashMap<u64, OwnedFd>> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let readable = epoll::EventFlags::IN;
    epoll::add(&watch, socket, epoll::EventData::new_u64(SOCKET), readable)?;
    let mut handlers = HashMap::new();
    loop {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        match epoll::wait(&watch, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut is_told = false;
        for event in events {
            let number = event.data.u64();
            is_told |= number == SOCKET;
            // Closing the descriptor of one that has ended takes it off the watch.
            drop(handlers.remove(&number));
        }
        if !is_told {
            continue;
        }
        let Some(received) = receive(socket)? else {
            return Ok(handlers);
        };
        for handler in received {
            let number = u64::from(handler.as_raw_fd().cast_unsigned());
            let data = epoll::EventData::new_u64(number);
            epoll::add(&watch, handler.as_fd(), data, readable)?;
            handlers.insert(number, handler);
        }
    }
}

/// None where the other end is closed.
fn receive(socket: &UnixStream) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a descriptor was lost"));
    }
    let mut received = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            received.extend(descriptors);
        }
    }
    Ok(Some(received))
}

/// The cgroup of tinyFaaS itself, in which we are, is none of a handler's: those have numbers.
fn end_children(folder: &Path) {
    let children = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for child in children {
        let name = child.file_name();
        if name.as_bytes().iter().all(u8::is_ascii_digit) {
            tree::end(&child.path());
        }
    }
    // Version 1 has nothing else there.
    drop(std::fs::remove_dir(folder));
}
