//! The launcher: a fresh process of one thread that turns itself into a sandboxed program.

use super::sys::{CONTROL_FD, LAUNCHER_ARG0, PROTOCOL_FD, take_inherited};
use super::{INNER_ID, Plan, Program, SandboxMode, confine, root, syscalls};
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

/// Runs the launcher where this process was started as one, and does not return then unless it
/// fails or the binary shim has ended.
///
/// It must be called first thing in `main`: the process may have only one thread.
#[must_use]
pub fn launcher_main() -> Option<ExitCode> {
    let arg0 = std::env::args_os().next()?;
    if arg0.as_encoded_bytes() != LAUNCHER_ARG0.to_bytes() {
        return None;
    }
    let mut control = File::from(take_inherited(CONTROL_FD));
    match launch(&mut control) {
        Ok(shim) => {
            // Closing the channel tells the parent that the program has started.
            drop(control);
            Some(run_shim(shim))
        }
        Err(failure) => {
            // Without a reader there is nobody left to tell.
            drop(control.write_all(failure.to_string().as_bytes()));
            Some(ExitCode::FAILURE)
        }
    }
}

/// The step that failed, for the parent, which knows what to advise.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Failure {
    step: &'static str,
    source: io::Error,
}

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            step,
            source: source.into(),
        })
    }
}

/// Confines this process and executes the plan's program; returns only where that is the binary
/// shim.
fn launch(control: &mut File) -> Result<BinaryShim, Failure> {
    rustix::io::fcntl_setfd(&*control, FdFlags::CLOEXEC).step("control channel")?;
    let plan = read_plan(control)?;
    confine::prefer_for_out_of_memory();
    match plan.mode {
        SandboxMode::Full => {
            let trees = root::open(&plan)?;
            become_inner_user()?;
            die_with_parent(control)?;
            root::build(&plan, &trees)?;
        }
        SandboxMode::Reduced => die_with_parent(control)?,
    }
    std::env::set_current_dir(&plan.working_dir).step("working folder")?;
    confine::limit_resources(&plan)?;
    rustix::process::setsid().step("session")?;
    confine::drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).step("no new privileges")?;
    confine::restrict_paths(&plan)?;
    syscalls::restrict()?;
    match plan.program {
        Program::Execute { path, args } => {
            match execute(&path, &args, plan.envs).step("execute")? {}
        }
        Program::BinaryShim => Ok(BinaryShim { envs: plan.envs }),
    }
}

fn read_plan(control: &mut File) -> Result<Plan, Failure> {
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
fn become_inner_user() -> Result<(), Failure> {
    // Only root may leave its groups; for anyone else setgroups is off, as the kernel demands.
    let _may_be_off = rustix::thread::set_thread_groups(&[]);
    let gid = Gid::from_raw(INNER_ID);
    let uid = Uid::from_raw(INNER_ID);
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
