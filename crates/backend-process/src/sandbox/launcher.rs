//! The launcher: a fresh process of one thread that turns itself into a sandboxed program.

use super::step::{Failure, Step};
use super::sys::{CONTROL_FD, PROTOCOL_FD, take_inherited, unshare_cgroup};
use super::{Handover, INNER_ID, Program, SandboxMode, confine, network, root, syscalls};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::FdFlags;
use rustix::process::Signal;
use rustix::thread::{Gid, Uid};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs the launcher in this process; returns only if it fails or the binary shim has ended.
pub(crate) fn run() -> ExitCode {
    let mut control = File::from(take_inherited(CONTROL_FD));
    match launch(&mut control) {
        Ok(shim) => {
            // Closing the channel tells the parent that the program has started.
            drop(control);
            run_shim(shim)
        }
        Err(failure) => {
            // Without a reader there is nobody left to tell.
            drop(control.write_all(failure.to_string().as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Confines this process and executes the plan's program; returns only where that is the binary
/// shim.
fn launch(control: &mut File) -> Result<BinaryShim, Failure> {
    rustix::io::fcntl_setfd(&*control, FdFlags::CLOEXEC).step("control channel")?;
    let Handover {
        plan,
        host_user,
        may_lack_landlock,
        tells_walls,
    } = read_handover(control)?;
    confine::prefer_for_out_of_memory();
    match plan.mode {
        SandboxMode::Full => {
            // After the parent has put this process into its cgroup, which then is all it sees.
            unshare_cgroup().step("cgroup namespace")?;
            let trees = root::open(&plan)?;
            network::set_up(&plan.reach)?;
            become_user(&[], INNER_ID)?;
            die_with_parent(control)?;
            root::build(&plan, &trees)?;
        }
        SandboxMode::Reduced => {
            if let Some(user) = host_user {
                become_user(&[user.group], user.id)?;
            }
            die_with_parent(control)?;
        }
    }
    std::env::set_current_dir(&plan.working_dir).step("working folder")?;
    confine::limit_resources(&plan)?;
    rustix::process::setsid().step("session")?;
    confine::drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).step("no new privileges")?;
    let walls = confine::restrict_paths(&plan, may_lack_landlock)?;
    syscalls::restrict(plan.mode, walls, plan.may_reserve)?;
    if tells_walls {
        let told = serde_json::to_vec(&walls).map_err(io::Error::from);
        let told = told.and_then(|text| io::stdout().write_all(&text));
        told.and_then(|()| io::stdout().flush()).step("walls")?;
    }
    match plan.program {
        Program::Execute { path, args } => {
            match execute(&path, &args, plan.envs).step("execute")? {}
        }
        Program::BinaryShim => Ok(BinaryShim { envs: plan.envs }),
    }
}

fn read_handover(control: &mut File) -> Result<Handover, Failure> {
    let mut text = Vec::new();
    control.read_to_end(&mut text).step("plan")?;
    if text.is_empty() {
        // The parent died before it could say what to do.
        std::process::exit(1);
    }
    serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .step("plan")
}

/// Leaves the user that tinyFaaS is. The capabilities in the user namespace stay until they are
/// dropped.
fn become_user(groups: &[u32], id: u32) -> Result<(), Failure> {
    let groups: Vec<_> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
    let left = rustix::thread::set_thread_groups(&groups);
    // Only root may leave its groups; for anyone else setgroups is off, as the kernel demands.
    if !groups.is_empty() {
        left.step("groups")?;
    }
    let gid = Gid::from_raw(id);
    let uid = Uid::from_raw(id);
    rustix::thread::set_keep_capabilities(true).step("keeping capabilities")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("user")
}

/// Comes after the change of user, which clears the signal. A process-id namespace hides the
/// parent's death in between from `getppid`, so the control channel is asked.
fn die_with_parent(control: &File) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("death signal")?;
    let mut fds = [PollFd::new(control, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).step("parent")?;
    if fds[0].revents().contains(PollFlags::HUP) {
        std::process::exit(1);
    }
    Ok(())
}

fn execute(path: &Path, args: &[String], envs: Vec<(String, String)>) -> io::Result<Infallible> {
    Err(Command::new(path).args(args).env_clear().envs(envs).exec())
}

/// What the shim of the binary runtime, which runs in this process, needs.
struct BinaryShim {
    envs: Vec<(String, String)>,
}

fn run_shim(shim: BinaryShim) -> ExitCode {
    match runtime_binary::run(take_inherited(PROTOCOL_FD), shim.envs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_stream_broke) => ExitCode::FAILURE,
    }
}
