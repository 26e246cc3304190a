//! What a call costs as work grows: more functions, more connections, larger payloads.

use super::Setting;
use crate::load::http::OneByOne;
use crate::node::Node;
use crate::process::{raise_open_files, resident_kb};
use crate::row::{Row, Target};
use anyhow::{Context, Result, ensure};

const FUNCTIONS: usize = 10_000;
/// One endpoint takes 10,000 connections.
const CONNECTIONS: usize = 9_900;
const SMALL: usize = 1;
const MIDDLE: usize = 64 << 10;
const LARGE: usize = 1 << 20;

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    Ok(vec![
        functions(setting)?,
        connections(setting)?,
        payload(setting)?,
    ])
}

/// Calls one function with one deployed, on one node, and with 10,000, on another.
fn functions(setting: &Setting) -> Result<Row> {
    let module = crate::folder().join("../examples/echo-wasm/fn.wasm");
    let module = std::fs::read(module)?;
    let (few, many) = (
        Node::start(&setting.tinyfaas)?,
        Node::start(&setting.tinyfaas)?,
    );
    for (node, count) in [(&few, 1), (&many, FUNCTIONS)] {
        let mut management = OneByOne::connect(node.addr("management")?, "")?;
        for number in 0..count {
            let path = format!("v1/functions/bench{number}?runtime=wasm");
            let (status, body) = management.request("PUT", &path, &module)?;
            ensure!(
                (200..300).contains(&status),
                "{status} {}",
                String::from_utf8_lossy(body)
            );
        }
    }
    let mut to_few = OneByOne::connect(few.addr("http")?, "bench0")?;
    let mut to_many = OneByOne::connect(many.addr("http")?, "bench0")?;
    let (mut ratios, mut seen) = (Vec::new(), String::new());
    for _ in 0..setting.rounds.max(5) {
        let few = to_few.run(b"x", setting.time)?.numbers();
        let many = to_many.run(b"x", setting.time)?.numbers();
        ratios.push(many.p50_us / few.p50_us);
        seen = format!("{:.0} µs against {:.0} µs", many.p50_us, few.p50_us);
    }
    let what = "10,000 functions deployed instead of 1: a call";
    let row = Row::new(
        "growth-functions",
        what,
        "times",
        &ratios,
        Target::AtMost(1.05),
    );
    Ok(row.seen(seen))
}

fn connections(setting: &Setting) -> Result<Row> {
    raise_open_files()?;
    let node = Node::start(&setting.tinyfaas)?;
    let example = crate::folder().join("../examples/echo-python3");
    node.deploy(&example, "bench", &[])?;
    let to = node.addr("http")?;
    let mut kept = OneByOne::connect(to, "bench")?;
    kept.call(b"x")?;
    let before = resident_kb(node.pid())?;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = OneByOne::connect(to, "bench").context("ulimit -n is too low")?;
        connection.call(b"x")?;
        open.push(connection);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = (resident_kb(node.pid())? - before) / CONNECTIONS as f64;
    let what = "memory of each of 9,900 open HTTP connections that made a call";
    Ok(Row::new(
        "growth-connections",
        what,
        "kB",
        &[each],
        Target::AtMost(20.0),
    ))
}

fn payload(setting: &Setting) -> Result<Row> {
    let node = Node::start(&setting.tinyfaas)?;
    let example = crate::folder().join("../examples/echo-python3");
    node.deploy(&example, "bench", &[])?;
    let mut http = OneByOne::connect(node.addr("http")?, "bench")?;
    let mut ratios = Vec::new();
    let mut seen = String::new();
    for _ in 0..setting.rounds {
        let mut p50 = |bytes: usize| -> Result<f64> {
            Ok(http.run(&vec![b'x'; bytes], setting.time)?.numbers().p50_us)
        };
        let (small, middle, large) = (p50(SMALL)?, p50(MIDDLE)?, p50(LARGE)?);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each_byte = |time: f64, bytes: usize| (time - small) / bytes as f64;
        ratios.push(each_byte(large, LARGE) / each_byte(middle, MIDDLE));
        seen = format!("1 B {small:.0} µs, 64 KiB {middle:.0} µs, 1 MiB {large:.0} µs");
    }
    let what = "Python echo over HTTP: what a byte of 1 MiB costs over one of 64 KiB";
    let row = Row::new(
        "growth-payload",
        what,
        "times",
        &ratios,
        Target::AtMost(1.5),
    );
    Ok(row.seen(seen))
}
