//! Work that others defined: the CPU functions of `FunctionBench` (Kim and Lee, IEEE CLOUD 2019),
//! written anew after their description. Each says how long it took itself; the rest is the
//! platform's.

use super::Setting;
use crate::load::Outcome;
use crate::load::http::OneByOne;
use crate::node::Node;
use crate::row::{Row, Target};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

const FUNCTIONS: [&str; 7] = [
    "float",
    "matmul",
    "linpack",
    "pyaes",
    "chameleon",
    "gzip",
    "json",
];

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let node = Node::start(&setting.tinyfaas)?;
    let mut rows = Vec::new();
    for function in FUNCTIONS {
        let name = format!("functionbench-{function}");
        let flags = ["--var", &format!("WORK={function}")];
        let code = crate::folder().join("functions/functionbench");
        node.deploy(&code, &name, &flags)?;
        let mut http = OneByOne::connect(node.addr("http")?, &name)?;
        let mut rounds = Vec::new();
        let mut own = Outcome::default();
        for _ in 0..setting.rounds {
            let mut added = Outcome::default();
            let begin = Instant::now();
            while begin.elapsed() < setting.time {
                let sent = Instant::now();
                let took: f64 = std::str::from_utf8(http.call(b"")?)?
                    .trim()
                    .parse()
                    .context("the function tells how long it took")?;
                let took = Duration::from_secs_f64(took);
                added.reply(sent.elapsed().saturating_sub(took), true);
                own.reply(took, true);
            }
            added.time = begin.elapsed();
            rounds.push(added.numbers().p50_us);
        }
        let seen = format!("the function itself {:.1} ms", own.numbers().p50_us / 1e3);
        let what = format!("FunctionBench {function}: p50 of what is added to the function's time");
        rows.push(Row::new(&name, &what, "µs", &rounds, Target::None).seen(seen));
    }
    Ok(rows)
}
