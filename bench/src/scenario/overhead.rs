//! What the platform adds to one call at a time: over calling the handler's socket directly.

use super::Setting;
use crate::load::Numbers;
use crate::load::coap::{Coap, LOST_AFTER, Pace};
use crate::load::frames::Handler;
use crate::load::http::OneByOne;
use crate::node::Node;
use crate::row::{Row, Target};
use anyhow::Result;
use std::time::Duration;

const PAYLOAD: [u8; 64] = [b'x'; 64];

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (runtime, example, program) in [
        (
            "python",
            "echo-python3",
            &[
                "python3",
                "-B",
                "-S",
                "-X",
                "utf8",
                "runtimes/python3/shim.py",
            ][..],
        ),
        (
            "node",
            "echo-nodejs",
            &["node", "runtimes/nodejs/shim.js"][..],
        ),
    ] {
        rows.extend(of_runtime(setting, runtime, example, program)?);
    }
    Ok(rows)
}

fn of_runtime(
    setting: &Setting,
    runtime: &str,
    example: &str,
    program: &[&str],
) -> Result<Vec<Row>> {
    let root = crate::folder().join("..");
    let code = root.join("examples").join(example).canonicalize()?;
    let shim = root.join(program[program.len() - 1]).display().to_string();
    let mut program = program.to_vec();
    program.pop();
    program.push(&shim);
    let mut handler = Handler::start(&program, &code)?;
    let node = Node::start(&setting.tinyfaas)?;
    node.deploy(&code, "bench", &[])?;
    let mut http = OneByOne::connect(node.addr("http")?, "bench")?;
    let coap = Coap {
        to: node.addr("coap")?,
        path: "bench".to_owned(),
        payload: PAYLOAD.to_vec(),
        ports: 64,
        pace: Pace::Closed(1),
        time: setting.time,
        patience: LOST_AFTER,
    };
    // Interpreters warm up.
    handler.run(&PAYLOAD, Duration::from_millis(500))?;
    http.run(&PAYLOAD, Duration::from_millis(500))?;
    let (mut direct, mut over_http, mut over_coap) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        direct.push(handler.run(&PAYLOAD, setting.time)?.numbers());
        over_http.push(http.run(&PAYLOAD, setting.time)?.numbers());
        over_coap.push(coap.run()?.numbers());
    }
    let mut rows = Vec::new();
    for (endpoint, numbers) in [("HTTP", &over_http), ("CoAP", &over_coap)] {
        for (which, of, at_most) in [
            (
                "p50",
                (|numbers| numbers.p50_us) as fn(&Numbers) -> f64,
                60.0,
            ),
            ("p99", |numbers| numbers.p99_us, 400.0),
        ] {
            let rounds: Vec<f64> = numbers
                .iter()
                .zip(&direct)
                .map(|(ours, direct)| of(ours) - of(direct))
                .collect();
            let name = format!("added-{}-{runtime}-{which}", endpoint.to_lowercase());
            let what = format!("{endpoint} → {runtime} handler, 1 open: added to {which}");
            let median = |each: &[Numbers]| {
                let values: Vec<f64> = each.iter().map(of).collect();
                Row::new("", "", "", &values, Target::None).value
            };
            let seen = format!(
                "{:.0} µs against {:.0} µs",
                median(numbers),
                median(&direct)
            );
            rows.push(Row::new(&name, &what, "µs", &rounds, Target::AtMost(at_most)).seen(seen));
        }
    }
    Ok(rows)
}
