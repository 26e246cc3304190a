//! A handler that wants to live on when tinyFaaS was killed.

use crate::host::Node;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::poll;
use rustix::fs::Timespec;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
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
    let sleeper = outlived(|_node| Ok(()))?;
    ensure!(
        until(|| sleeper.found().is_none().then_some(())).is_some(),
        "the handler outlived its node"
    );
    Ok(())
}

pub(crate) fn what_a_killed_node_and_its_warden_left_is_ended_by_the_next_start() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        // Without cgroups of its own nothing tells what was left.
        return Ok(());
    }
    let sleeper = outlived(kill_warden)?;
    ensure!(
        sleeper.found().is_some(),
        "something ended the handler before the next start, which then shows nothing"
    );
    let next = Node::start()?;
    ensure!(sleeper.found().is_none(), "the next start left it");
    ensure!(
        next.call("result = 'serves'")? == "serves",
        "the next node does not serve"
    );
    Ok(())
}

/// Starts a node whose handler executes a sleeper, and kills the node, after `also`.
fn outlived(also: impl FnOnce(Pid) -> Result<()>) -> Result<Sleeper> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let sleeper = Sleeper(format!("{}.{number}25", 100_000 + std::process::id()));
    let mut node = Command::new(std::env::current_exe()?)
        .env(NODE, &sleeper.0)
        // Its targets of attacks go with it.
        .process_group(0)
        .spawn()?;
    let id = i32::try_from(node.id()).ok().and_then(Pid::from_raw);
    let id = id.context("the node has no id")?;
    let is_there = until(|| sleeper.found());
    let died_early = node.try_wait()?;
    let also = also(id);
    kill_process_group(id, Signal::KILL)?;
    node.wait()?;
    also?;
    is_there.context("the attack did not get as far as its program")?;
    ensure!(died_early.is_none(), "the node ended by itself");
    Ok(sleeper)
}

fn kill_warden(node: Pid) -> Result<()> {
    let is_its_warden = |pid: Pid| {
        let proc = format!("/proc/{}", pid.as_raw_pid());
        let line = fs::read_to_string(format!("{proc}/cmdline")).unwrap_or_default();
        let status = fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
        let parent = format!("PPid:\t{}", node.as_raw_pid());
        line.starts_with("tinyfaas-warden") && status.lines().any(|line| line == parent)
    };
    let warden = pids().find(|&pid| is_its_warden(pid));
    Ok(kill_process(
        warden.context("the node has no warden")?,
        Signal::KILL,
    )?)
}

/// The attacker's process, known by how long it sleeps. Dropping this ends it.
struct Sleeper(String);

impl Sleeper {
    fn found(&self) -> Option<Pid> {
        let wanted = format!("sleep\0{}\0", self.0);
        pids().find(|pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
            line.is_ok_and(|line| line == wanted.as_bytes())
        })
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Some(pid) = self.found() {
            let _ended = kill_process(pid, Signal::KILL);
        }
    }
}

fn pids() -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// What the condition finds, within [`BOUND`].
pub(crate) fn until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
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
