//! The way out of a sandbox that has a network of its own: a process beside it that takes the
//! packets of its interface apart and makes the same connections from the host, where
//! [`policy`] allows them.
//!
//! It is this same program, executed again, as another user of the host and behind the same
//! system call filter as a function. What it takes counts as the sandbox's. It ends when the
//! connection to tinyFaaS does.

mod channel;
mod datagrams;
mod policy;
mod stack;
mod tcp;

use crate::sandbox::netlink::Netlink;
use crate::sandbox::{SandboxMode, Walls, syscalls};
use policy::Policy;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use stack::Stack;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// `argv[0]` of a relay.
const RELAY_ARG0: &str = "tinyfaas-relay";

/// What a relay is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Ports of the host that are reached.
    pub(crate) host_ports: Vec<u16>,
    /// Connections at once, and flows of datagrams at once.
    pub(crate) connections_max: usize,
    /// How long a connection may take to be made.
    pub(crate) connect: Duration,
    /// How long a flow of datagrams waits for the next reply.
    pub(crate) datagrams_idle: Duration,
}

/// A relay that was started. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    process: tokio::process::Child,
    /// The relay ends when this does.
    _leash: OwnedFd,
}

impl Relay {
    /// Starts a relay as this user of the host, and returns it with what the launcher sends its
    /// interface through.
    pub(crate) fn start(terms: &Terms, host_id: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        let launchers = ours.try_clone()?.into();
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .arg0(RELAY_ARG0)
            .arg(serde_json::to_string(terms)?)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        if let Some(id) = host_id {
            command.uid(id).gid(id);
        }
        let mut command = tokio::process::Command::from(command);
        let process = command.kill_on_drop(true).spawn()?;
        let relay = Self {
            process,
            _leash: ours.into(),
        };
        Ok((relay, launchers))
    }

    /// Its process id; none once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Has the sandboxed process ended when the relay ends before it: it would go on without its
    /// network.
    pub(crate) fn bind(self, sandboxed: OwnedFd, tracker: &TaskTracker) -> Bound {
        let (stop, stopped) = oneshot::channel();
        let task = tracker.spawn(self.guard(sandboxed, stopped));
        Bound { stop, task }
    }

    async fn guard(mut self, sandboxed: OwnedFd, stopped: oneshot::Receiver<()>) -> bool {
        tokio::select! {
            biased;
            _stop_or_dropped = stopped => {
                // It fails only where it has ended by itself.
                let _ended = self.process.kill().await;
                false
            }
            _status = self.process.wait() => {
                // It fails only where the process has ended too.
                let _ended = pidfd_send_signal(&sandboxed, Signal::KILL);
                true
            }
        }
    }
}

/// A relay that a sandboxed process does not outlive. Dropping it ends the relay.
#[derive(Debug)]
pub(crate) struct Bound {
    stop: oneshot::Sender<()>,
    task: JoinHandle<bool>,
}

impl Bound {
    /// Ends the relay and waits until it has; whether it had ended before.
    pub(crate) async fn stop(self) -> bool {
        drop(self.stop);
        self.task.await.unwrap_or(true)
    }
}

/// Runs the relay where this process was started as one; none else.
pub(crate) fn relay_main() -> Option<ExitCode> {
    let mut args = std::env::args();
    if args.next()? != RELAY_ARG0 {
        return None;
    }
    let outcome = run(&args.next().unwrap_or_default());
    // Without a log of its own it says why by its exit code.
    Some(outcome.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

fn run(terms: &str) -> io::Result<()> {
    let terms: Terms = serde_json::from_str(terms)?;
    // A signal from the terminal is for tinyFaaS, whose calls under way still need this.
    rustix::process::setsid()?;
    let leash = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut fds = receive(&leash)?.into_iter();
    let Some(interface) = fds.next() else {
        // The sandbox failed before it had one.
        return Ok(());
    };
    let listeners = fds.map(TcpListener::from);
    let policy = Policy::new(terms.host_ports.clone(), Netlink::open()?);
    rustix::thread::set_no_new_privs(true)?;
    syscalls::restrict(SandboxMode::Full, Walls { landlock: None }, true)
        .map_err(|failure| io::Error::other(failure.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let stack = Rc::new(Stack::open(interface, policy, terms)?);
        for listener in listeners {
            tokio::task::spawn_local(forward(listener, Rc::clone(&stack)));
        }
        tokio::select! {
            result = stack.run() => result,
            () = ended(leash) => Ok(()),
        }
    })
}

/// The descriptors that the launcher sends; none where it failed.
fn receive(leash: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    use crate::sandbox::network::HOST_PORTS_MAX;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1 + 2 * HOST_PORTS_MAX))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(leash, &mut bytes, &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = part {
            fds.extend(sent);
        }
    }
    Ok(fds)
}

/// Returns when tinyFaaS has let go of this relay.
async fn ended(leash: UnixStream) {
    use tokio::io::AsyncReadExt;

    let nonblocking = leash.set_nonblocking(true);
    let Ok(mut leash) = nonblocking.and_then(|()| tokio::net::UnixStream::from_std(leash)) else {
        return;
    };
    // Nothing is sent any more.
    let _end = leash.read(&mut [0]).await.is_ok();
}

/// Carries what the sandbox sends to a named port on its own loopback to the host's.
async fn forward(listener: TcpListener, stack: Rc<Stack>) {
    let port = listener.local_addr().map(|addr| addr.port());
    let nonblocking = listener.set_nonblocking(true);
    let (Ok(port), Ok(())) = (port, nonblocking) else {
        return;
    };
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((mut inside, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = stack.place() else { continue };
        tokio::task::spawn_local(async move {
            let _place = place;
            let host = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            if let Ok(mut host) = host {
                // Either side may hang up.
                let _copied = tokio::io::copy_bidirectional(&mut inside, &mut host).await;
            }
        });
    }
}
