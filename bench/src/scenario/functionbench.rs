//! Work that others defined: the CPU functions of `FunctionBench` (Kim and Lee, IEEE CLOUD 2019),
//! written again from their description. Each says how long it took itself; the rest is the
//! platform's.

use super::Setting;
use crate::load::Outcome;
use crate::load::http::OneByOne;
use crate::node::Node;
use crate::row::{Row, Target};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
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
        let seen = format!(
            "the function itself {:.1} ms, in a loop of its own interpreter {:.1} ms",
            own.numbers().p50_us / 1e3,
            alone(&code, function, setting.time)?
        );
        let what = format!("FunctionBench {function}: p50 of what is added to the function's time");
        rows.push(Row::new(&name, &what, "µs", &rounds, Target::None).seen(seen));
    }
    Ok(rows)
}

/// The median of the same function's times, in milliseconds, in an interpreter that does nothing
/// but call it.
fn alone(code: &Path, function: &str, time: Duration) -> Result<f64> {
    let script = "
import statistics, sys, time
sys.path.insert(0, '.')
import fn
times, end = [], time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    begin = time.perf_counter()
    fn.fn(None, {})
    times.append(time.perf_counter() - begin)
print(statistics.median(times) * 1000)
";
    let mut python = Command::new("python3");
    python.args(["-B", "-c", script, &time.as_secs_f64().to_string()]);
    let output = python.current_dir(code).env("WORK", function).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{function} in a loop: {errors}")
    })
}
