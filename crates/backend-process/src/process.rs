//! A process in a sandbox, from its start to the moment when nothing of it is left.

use crate::output::{self, Target};
use crate::relay::{Bound, Relay, Terms};
use crate::sandbox::cgroup::{Cgroup, Cgroups};
use crate::sandbox::spawner::{Launch, Launched, Spawner};
use crate::sandbox::{HostUser, Plan, Reach, SandboxMode, watch};
use faas::{BoxFuture, CoreShare, FunctionLimits, Limits, LogStream};
use handler_protocol::Process;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

/// How long reading the last output may take after its process has ended, on a slow machine too.
/// Nothing but a process in reduced isolation without a cgroup can leave children that hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// How a process ends that is killed.
const KILLED: &str = "signal 9";

/// What starts sandboxed processes.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) spawner: Spawner,
    pub(crate) cgroups: Arc<Cgroups>,
    /// The group of the host that may enter the folders of code.
    pub(crate) group: u32,
    /// Whether reduced isolation may go on where the kernel has no Landlock.
    pub(crate) may_lack_landlock: bool,
    pub(crate) limits: Arc<Limits>,
    /// The share of a core that reading what all functions print may take.
    pub(crate) log_share: Arc<CoreShare>,
    /// Holds the tasks that wait for processes whose owner has gone.
    pub(crate) tracker: TaskTracker,
}

/// A process to start.
pub(crate) struct Order<'a> {
    pub(crate) plan: Plan,
    pub(crate) limits: &'a FunctionLimits,
    pub(crate) host_id: Option<u32>,
    /// A folder of its own, removed when nothing of the process is left.
    pub(crate) scratch: Option<PathBuf>,
    /// Its descriptor 3. Standard input is empty.
    pub(crate) protocol: OwnedFd,
    pub(crate) output: Target,
}

impl Sandbox {
    /// Starts a process. Dropping the future, or an error, leaves nothing running.
    pub(crate) async fn start(&self, order: Order<'_>) -> io::Result<SandboxedProcess> {
        self.start_with(order, false).await
    }

    /// Starts a process that first prints the [`Walls`](crate::sandbox::Walls) around it.
    pub(crate) async fn start_telling(&self, order: Order<'_>) -> io::Result<SandboxedProcess> {
        self.start_with(order, true).await
    }

    async fn start_with(
        &self,
        order: Order<'_>,
        tells_walls: bool,
    ) -> io::Result<SandboxedProcess> {
        let cgroup = self.cgroups.make(order.limits)?;
        let (stdout, their_stdout) = output::pipe()?;
        let (stderr, their_stderr) = output::pipe()?;
        let is_reduced = order.plan.mode == SandboxMode::Reduced;
        let (relay, network) = self.relay_for(&order, cgroup.as_ref())?.unzip();
        let launch = Launch {
            plan: order.plan,
            host_user: order.host_id.map(|id| HostUser {
                id,
                group: self.group,
            }),
            may_lack_landlock: self.may_lack_landlock,
            tells_walls,
            cgroup: cgroup
                .as_ref()
                .map(Cgroup::to_be_born_into)
                .transpose()?
                .flatten(),
            enroll: cgroup.as_ref().and_then(Cgroup::enrollment),
            protocol: order.protocol,
            network,
            stdout: their_stdout,
            stderr: their_stderr,
        };
        let Launched {
            pid,
            pidfd,
            control,
        } = match self.spawner.launch(launch).await {
            Ok(launched) => launched,
            Err(error) => {
                if let Some(cgroup) = cgroup {
                    cgroup.remove().await;
                }
                return Err(error);
            }
        };
        let pump = |pipe, stream| {
            let share = Arc::clone(&self.log_share);
            output::pump(pipe, stream, order.output.clone(), share)
        };
        let pumps = vec![
            self.tracker.spawn(pump(stdout, LogStream::Stdout)),
            self.tracker.spawn(pump(stderr, LogStream::Stderr)),
        ];
        let relay = match relay {
            Some(relay) => Some(relay.bind(pidfd.try_clone()?, &self.tracker)),
            None => None,
        };
        let live = Live {
            pidfd: watch(pidfd)?,
            pumps,
            cgroup,
            relay,
            group: is_reduced.then_some(pid),
            scratch: order.scratch,
            memory_bytes_max: order.limits.memory_bytes_max,
        };
        let mut process = SandboxedProcess {
            live: Some(live),
            tracker: self.tracker.clone(),
        };
        let complaint = complaint_of(control).await?;
        if complaint.is_empty() {
            return Ok(process);
        }
        process.wait().await;
        Err(io::Error::other(complaint))
    }
}

impl Sandbox {
    /// The relay of a sandbox that has a network of its own, and the launcher's way to it. What it
    /// takes counts as the sandbox's.
    fn relay_for(
        &self,
        order: &Order<'_>,
        cgroup: Option<&Cgroup>,
    ) -> io::Result<Option<(Relay, OwnedFd)>> {
        let Reach::Relay { host_ports } = &order.plan.reach else {
            return Ok(None);
        };
        let terms = Terms {
            host_ports: host_ports.clone(),
            connections_max: self.limits.network_connections_max,
            connect: self.limits.network_connect,
            datagrams_idle: self.limits.network_datagrams_idle,
        };
        let (relay, network) = Relay::start(&terms, order.host_id)?;
        if let (Some(cgroup), Some(pid)) = (cgroup, relay.pid()) {
            cgroup.add(pid)?;
        }
        Ok(Some((relay, network)))
    }
}

/// What the launcher says went wrong; nothing where the program was executed.
async fn complaint_of(control: std::os::unix::net::UnixStream) -> io::Result<String> {
    control.set_nonblocking(true)?;
    let mut control = tokio::net::UnixStream::from_std(control)?;
    let mut complaint = String::new();
    match control.read_to_string(&mut complaint).await {
        Ok(_) => Ok(complaint),
        // The launcher was killed with its plan unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Ok("the launcher ended before it read its plan".into())
        }
        Err(error) => Err(error),
    }
}

/// A process in a sandbox. Dropping it kills it and everything that it started; a task of the
/// backend then waits until nothing is left.
#[derive(Debug)]
pub(crate) struct SandboxedProcess {
    /// None once nothing is left.
    live: Option<Live>,
    tracker: TaskTracker,
}

#[derive(Debug)]
struct Live {
    pidfd: AsyncFd<OwnedFd>,
    pumps: Vec<JoinHandle<()>>,
    cgroup: Option<Cgroup>,
    /// The way out, where it has a network of its own.
    relay: Option<Bound>,
    /// The process group to end with it, where no pid namespace does that.
    group: Option<Pid>,
    scratch: Option<PathBuf>,
    memory_bytes_max: u64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) is_success: bool,
    pub(crate) text: String,
}

impl SandboxedProcess {
    /// Waits until nothing of the process is left.
    pub(crate) async fn ended(&mut self) -> Exit {
        let Some(live) = &mut self.live else {
            return Exit {
                is_success: false,
                text: "it has ended".into(),
            };
        };
        let exit = live.ended().await;
        self.live = None;
        exit
    }
}

impl Process for SandboxedProcess {
    fn kill(&mut self) {
        if let Some(live) = &self.live {
            live.kill();
        }
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async { self.ended().await.text })
    }
}

impl Drop for SandboxedProcess {
    fn drop(&mut self) {
        let Some(mut live) = self.live.take() else {
            return;
        };
        live.kill();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tracker
                .spawn_on(async move { drop(live.ended().await) }, &runtime);
        }
    }
}

impl Live {
    fn kill(&self) {
        // It fails only where the process has ended already.
        let _ended = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    async fn ended(&mut self) -> Exit {
        let mut exit = self.exited().await;
        self.end_what_is_left();
        self.read_last_output().await;
        if let Some(relay) = self.relay.take()
            && relay.stop().await
            && exit.text == KILLED
        {
            exit.text = "its way to the network ended".into();
        }
        if let Some(cgroup) = &self.cgroup {
            if cgroup.out_of_memory_kills() > 0 {
                let mib = self.memory_bytes_max >> 20;
                exit.text = format!("out of memory, its limit is {mib} MiB");
            }
            cgroup.remove().await;
        }
        if let Some(scratch) = &self.scratch {
            // What can't be removed now is removed at the next start.
            drop(std::fs::remove_dir_all(scratch));
        }
        exit
    }

    /// Ends what left the process's group, which no pid namespace has ended.
    fn end_what_is_left(&self) {
        if let (Some(_), Some(cgroup)) = (self.group, &self.cgroup) {
            cgroup.kill();
        }
    }

    /// What was printed last tells why a process ended.
    async fn read_last_output(&mut self) {
        let end = Instant::now() + LAST_OUTPUT;
        for mut pump in self.pumps.drain(..) {
            if timeout_at(end, &mut pump).await.is_err() {
                pump.abort();
            }
        }
    }

    async fn exited(&self) -> Exit {
        loop {
            let ready = self.pidfd.readable().await;
            if let Some(group) = self.group {
                // Not reaped yet, so the number still is its own. It fails where all are gone.
                let _gone = kill_process_group(group, Signal::KILL);
            }
            let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
            let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            match (status, ready) {
                (Ok(Some(status)), _) => return describe(&status),
                (Ok(None), Ok(mut guard)) => guard.clear_ready(),
                (Err(_), _) | (Ok(None), Err(_)) => {
                    return Exit {
                        is_success: false,
                        text: "it has ended".into(),
                    };
                }
            }
        }
    }
}

fn describe(status: &rustix::process::WaitIdStatus) -> Exit {
    let text = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it has ended".into(),
    };
    Exit {
        is_success: status.exit_status() == Some(0),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, pidfd_open};
    use std::process::Command;

    #[tokio::test]
    async fn the_last_output_is_read_by_a_slow_reader_too() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (told, mut heard) = tokio::sync::oneshot::channel();
        let slow = TaskTracker::new().spawn(async move {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let _heard = told.send("read");
        });
        let mut live = Live {
            pidfd: watch(pidfd_open(pid, PidfdFlags::empty()).unwrap()).unwrap(),
            pumps: vec![slow],
            cgroup: None,
            relay: None,
            group: None,
            scratch: None,
            memory_bytes_max: 0,
        };
        assert!(live.ended().await.is_success);
        let _reaped = child.wait();
        assert_eq!(heard.try_recv(), Ok("read"));
    }
}
