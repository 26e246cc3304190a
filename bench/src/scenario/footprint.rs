//! What it takes: memory, disk, and the time from a deployment to ready.

use super::Setting;
use crate::node::Node;
use crate::process::{proportional_kb, resident_kb};
use crate::row::{Row, Target};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const MB: f64 = 1e6;
/// Handlers that share what they can, as those of a node do.
const HANDLERS: usize = 4;
/// Functions that are known at a start.
const KNOWN: usize = 100;

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let all = "the program, stripped, all features";
    let mut rows = vec![size("size", all, &setting.tinyfaas, 25.0)?];
    if let Some(program) = &setting.without_wasm {
        let what = "the program, stripped, without WebAssembly";
        rows.push(size("size-without-wasm", what, program, 9.0)?);
    }
    rows.push(idle(setting)?);
    for (runtime, example, at_most) in [
        ("Python", "echo-python3", 7.0),
        ("Node", "echo-nodejs", 16.0),
    ] {
        rows.push(handler(setting, runtime, example, at_most)?);
    }
    for (runtime, example, at_most) in [
        ("Python", "echo-python3", 60.0),
        ("Node", "echo-nodejs", 120.0),
        ("binary", "echo-binary", 30.0),
        ("wasm", "sieve-wasm", 20.0),
    ] {
        rows.push(deployment(setting, runtime, example, at_most)?);
    }
    rows.push(start(setting)?);
    Ok(rows)
}

fn example(name: &str) -> PathBuf {
    crate::folder().join("../examples").join(name)
}

fn size(name: &str, what: &str, program: &Path, at_most: f64) -> Result<Row> {
    let bytes = std::fs::metadata(program)?.len();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let megabytes = bytes as f64 / MB;
    let target = Target::AtMost(at_most);
    Ok(Row::new(name, what, "MB", &[megabytes], target))
}

fn idle(setting: &Setting) -> Result<Row> {
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        let node = Node::start(&setting.tinyfaas)?;
        rounds.push(resident_kb(node.pid())? * 1024.0 / MB);
    }
    let what = "`serve`, every endpoint on, nothing deployed: resident";
    Ok(Row::new("idle", what, "MB", &rounds, Target::AtMost(14.0)))
}

fn handler(setting: &Setting, runtime: &str, name: &str, at_most: f64) -> Result<Row> {
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        let node = Node::start(&setting.tinyfaas)?;
        let threads = HANDLERS.to_string();
        node.deploy(&example(name), "bench", &["--threads", &threads])?;
        let mut http = crate::load::http::OneByOne::connect(node.addr("http")?, "bench")?;
        for _ in 0..100 {
            http.call(b"warm")?;
        }
        let mut kilobytes = 0.0;
        for pid in node.handlers()? {
            // One that installs or looks for something may have ended meanwhile.
            kilobytes += proportional_kb(pid).unwrap_or_default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        rounds.push(kilobytes * 1024.0 / MB / HANDLERS as f64);
    }
    let what = format!("each of {HANDLERS} {runtime} handlers: proportional set size");
    let name = format!("handler-{}", runtime.to_lowercase());
    Ok(Row::new(
        &name,
        &what,
        "MB",
        &rounds,
        Target::AtMost(at_most),
    ))
}

fn deployment(setting: &Setting, runtime: &str, name: &str, at_most: f64) -> Result<Row> {
    let node = Node::start(&setting.tinyfaas)?;
    let mut rounds = Vec::new();
    // The first of all finds out what interpreter there is.
    node.deploy(&example(name), "warm", &[])?;
    for round in 0..setting.rounds.max(5) {
        let time = node.deploy(&example(name), &format!("bench{round}"), &[])?;
        rounds.push(time.as_secs_f64() * 1e3);
    }
    let what = format!("deployment to ready, {runtime}, the command line's start included");
    let name = format!("deploy-{}", runtime.to_lowercase());
    Ok(Row::new(
        &name,
        &what,
        "ms",
        &rounds,
        Target::AtMost(at_most),
    ))
}

fn start(setting: &Setting) -> Result<Row> {
    let node = Node::start(&setting.tinyfaas)?;
    for number in 0..KNOWN {
        node.deploy(&example("echo-wasm"), &format!("known{number}"), &[])?;
    }
    let mut folder = node.stop()?;
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds.max(5) {
        let node = Node::start_in(&setting.tinyfaas, folder)?;
        let mut http = crate::load::http::OneByOne::connect(node.addr("http")?, "known99")?;
        http.call(b"ready")
            .context("a function is back after a restart")?;
        rounds.push(node.start.as_secs_f64() * 1e3);
        folder = node.stop()?;
    }
    let what = "start of `serve` to ready, 100 functions known (wasm: no handlers)";
    Ok(Row::new(
        "start",
        what,
        "ms",
        &rounds,
        Target::AtMost(150.0),
    ))
}
