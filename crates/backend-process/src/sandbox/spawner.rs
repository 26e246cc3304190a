//! The one thread that clones launchers. It lives as long as tinyFaaS: the kernel ends a child
//! when the *thread* that made it ends (`PR_SET_PDEATHSIG`).

use super::sys::{Cloned, Inherited, clone_launcher};
use super::warden::Warden;
use super::{Handover, HostUser, INNER_ID, Plan, Reach, SandboxMode};
use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// Launches that wait for the thread; callers beyond wait to enqueue.
const QUEUE_MAX: usize = 256;
/// Descriptors for launchers are kept above those that a launcher has.
const HIGH_FD: i32 = 10;

/// What is needed to launch one process.
pub(crate) struct Launch {
    pub(crate) plan: Plan,
    /// The user of the host that it is; none for the one that tinyFaaS is.
    pub(crate) host_user: Option<HostUser>,
    /// Whether reduced isolation may go on where the kernel has no Landlock.
    pub(crate) may_lack_landlock: bool,
    /// Whether it prints its walls first.
    pub(crate) tells_walls: bool,
    /// A cgroup of version 2 to be born into.
    pub(crate) cgroup: Option<OwnedFd>,
    /// Puts the process, by its id, into cgroups of version 1.
    pub(crate) enroll: Option<Box<dyn FnOnce(u32) -> io::Result<()> + Send>>,
    pub(crate) protocol: OwnedFd,
    /// The way to the relay of a sandbox with a network of its own.
    pub(crate) network: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A launched process, which may still be preparing itself.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Ends when the program is executed; before that, the launcher's complaint.
    pub(crate) control: UnixStream,
}

/// What every launcher inherits.
struct Constant {
    executable: OwnedFd,
    stdin: OwnedFd,
}

type Job = (Box<Launch>, oneshot::Sender<io::Result<Launched>>);

/// A handle to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    jobs: SyncSender<Job>,
}

impl Spawner {
    /// Starts the thread, and the warden, which also ends whatever is in the children of these
    /// cgroups.
    pub(crate) fn start(cgroups: Vec<PathBuf>) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let executable = rustix::fs::open("/proc/self/exe", flags, Mode::empty())?;
        let constant = Constant {
            executable: fcntl_dupfd_cloexec(&executable, HIGH_FD)?,
            stdin: fcntl_dupfd_cloexec(File::open("/dev/null")?, HIGH_FD)?,
        };
        let mut warden = Warden::start(cgroups)?;
        let work = move || serve(&queue, &constant, &mut warden);
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(work)?;
        Ok(Self { jobs })
    }

    /// Clones a launcher and hands it its plan.
    pub(crate) async fn launch(&self, launch: Launch) -> io::Result<Launched> {
        let (sender, receiver) = oneshot::channel();
        let jobs = self.jobs.clone();
        let gone = || io::Error::other("the spawner thread has ended");
        if let Err(rejected) = jobs.try_send((Box::new(launch), sender)) {
            let job = match rejected {
                std::sync::mpsc::TrySendError::Full(job) => job,
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(gone()),
            };
            let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
            sent.map_err(io::Error::other)?
                .map_err(|_disconnected| gone())?;
        }
        receiver.await.map_err(|_dropped| gone())?
    }
}

fn serve(queue: &Receiver<Job>, constant: &Constant, warden: &mut Warden) {
    while let Ok((launch, reply)) = queue.recv() {
        if let Err(Ok(unwanted)) = reply.send(start(*launch, constant, warden)) {
            // Whoever asked has gone; the pidfd's owner would have killed it.
            kill_and_reap(&unwanted.pidfd);
        }
    }
}

fn kill_and_reap(pidfd: &OwnedFd) {
    // Both fail only where it has ended by itself.
    let _ended = pidfd_send_signal(pidfd, Signal::KILL);
    let _reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

fn start(launch: Launch, constant: &Constant, warden: &mut Warden) -> io::Result<Launched> {
    let (ours, theirs) = UnixStream::pair()?;
    let high = |fd: &OwnedFd| fcntl_dupfd_cloexec(fd, HIGH_FD);
    let protocol = high(&launch.protocol)?;
    let network = launch.network.as_ref().map(high).transpose()?;
    let stdout = high(&launch.stdout)?;
    let stderr = high(&launch.stderr)?;
    let control = high(&OwnedFd::from(theirs))?;
    let inherited = Inherited {
        stdin: constant.stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        protocol: protocol.as_fd(),
        network: network.as_ref().map(AsFd::as_fd),
        control: control.as_fd(),
        executable: constant.executable.as_fd(),
    };
    let cgroup = launch.cgroup.as_ref().map(AsFd::as_fd);
    let cloned = clone_launcher(namespaces(&launch.plan), cgroup, &inherited)?;
    // The launcher waits for its plan, and ends by itself if tinyFaaS ends before.
    let held = warden.hold(cloned.pidfd.as_fd());
    match held.and_then(|()| hand_over(&cloned, launch, &ours)) {
        Ok(()) => Ok(Launched {
            pid: cloned.pid,
            pidfd: cloned.pidfd,
            control: ours,
        }),
        Err(error) => {
            kill_and_reap(&cloned.pidfd);
            Err(error)
        }
    }
}

fn namespaces(plan: &Plan) -> u64 {
    if plan.mode == SandboxMode::Reduced {
        return 0;
    }
    let always = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let flags = match plan.reach {
        Reach::Host => always,
        Reach::Nothing | Reach::Relay { .. } => always | libc::CLONE_NEWNET,
    };
    u64::from(flags.cast_unsigned())
}

fn hand_over(cloned: &Cloned, launch: Launch, mut control: &UnixStream) -> io::Result<()> {
    if let Some(enroll) = launch.enroll {
        enroll(cloned.pid.as_raw_pid().cast_unsigned())?;
    }
    if launch.plan.mode == SandboxMode::Full {
        map_ids(cloned.pid, launch.host_user.map(|user| user.id))?;
    }
    let handover = Handover {
        plan: launch.plan,
        host_user: launch.host_user,
        may_lack_landlock: launch.may_lack_landlock,
        tells_walls: launch.tells_walls,
    };
    control.write_all(&serde_json::to_vec(&handover)?)?;
    control.shutdown(std::net::Shutdown::Write)
}

/// Maps [`INNER_ID`] to a user and group of the host: as root to ids that nothing else has,
/// otherwise to our own.
fn map_ids(pid: Pid, host_id: Option<u32>) -> io::Result<()> {
    let (uid, gid) = match host_id {
        Some(id) => (id, id),
        None => {
            put(pid, "setgroups", "deny")?;
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )
        }
    };
    put(pid, "uid_map", &format!("{INNER_ID} {uid} 1"))?;
    put(pid, "gid_map", &format!("{INNER_ID} {gid} 1"))
}

fn put(pid: Pid, file: &str, text: &str) -> io::Result<()> {
    let path = format!("/proc/{}/{file}", pid.as_raw_pid());
    // These files take their text in one write.
    File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}
