//! A handler that wants to live on when tinyFaaS was killed.

use crate::host::Node;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::poll;
use rustix::fs::Timespec;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Tells this program to be a node with the attack, and how long its process is to sleep, which is
/// also how it is found.
const NODE: &str = "ESCAPE_NODE";

/// How long the kernel and the warden may take.
const BOUND: Duration = Duration::from_secs(20);

/// A thread that executes a program becomes the process, and has no signal for the death of its
/// parent. The protocol's socket stays open, so that the handler seems to live.
const ATTACK: &str = r"
import threading, time
os.set_inheritable(3, True)
threading.Thread(target=os.execv, args=('/bin/sleep', ['sleep', '@SECONDS'])).start()
time.sleep(60)
result = 'not executed'";

/// Is the node to be killed, where this process was started as one.
pub(crate) fn node_main() -> Option<Result<()>> {
    let seconds = std::env::var(NODE).ok()?;
    Some(attack(&seconds))
}

fn attack(seconds: &str) -> Result<()> {
    let node = Node::start()?;
    let answer = node.call(&node.aim(ATTACK).replace("@SECONDS", seconds));
    bail!("the handler answered {answer:?}")
}

pub(crate) fn a_handler_ends_with_a_killed_node_whatever_it_executes() -> Result<()> {
    let seconds = format!("{}.25", 100_000 + std::process::id());
    let mut node = Command::new(std::env::current_exe()?)
        .env(NODE, &seconds)
        // Its targets of attacks go with it.
        .process_group(0)
        .spawn()?;
    let outcome = kill_node(&mut node, &seconds);
    let group = i32::try_from(node.id()).ok().and_then(Pid::from_raw);
    kill_process_group(group.context("no id")?, Signal::KILL)?;
    node.wait()?;
    let pid = outcome?;
    let died = until(|| sleeper(&seconds).is_none().then_some(()));
    if died.is_none() {
        kill_process(pid, Signal::KILL)?;
        bail!("the handler outlived its node");
    }
    Ok(())
}

/// The attacker's process, which lived when the node was killed.
fn kill_node(node: &mut Child, seconds: &str) -> Result<Pid> {
    let pid = until(|| sleeper(seconds)).context("the attack did not get as far as its program")?;
    ensure!(node.try_wait()?.is_none(), "the node ended by itself");
    node.kill()?;
    Ok(pid)
}

fn sleeper(seconds: &str) -> Option<Pid> {
    let wanted = format!("sleep\0{seconds}\0");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids = pids.filter(|pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    });
    Pid::from_raw(pids.next()?)
}

fn until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + BOUND;
    while Instant::now() < end {
        if let Some(found) = condition() {
            return Some(found);
        }
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let _passed = poll(&mut [], Some(&pause));
    }
    None
}
