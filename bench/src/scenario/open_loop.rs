//! Latencies at a rate far below what is possible, as a client sees them that does not wait for
//! others: an open loop over each endpoint.

use super::Setting;
use crate::load::coap::{Coap, LOST_AFTER, Pace};
use crate::load::http::Paced;
use crate::load::open::{self, Called};
use crate::load::{Numbers, Outcome, grpc};
use crate::node::Node;
use crate::row::{Row, Target};
use anyhow::{Result, ensure};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Calls in a second.
const RATE: f64 = 2000.0;
const PAYLOAD: &[u8; 64] = &[b'x'; 64];

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let node = Node::start(&setting.tinyfaas)?;
    node.deploy(
        &crate::folder().join("../examples/echo-nodejs"),
        "bench",
        &[],
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut rounds: [Vec<Numbers>; 3] = Default::default();
    let time = setting.time;
    // The first round warms up.
    for round in 0..=setting.rounds {
        let outcomes = [
            runtime.block_on(over_http(node.addr("http")?, time))?,
            over_coap(node.addr("coap")?, time)?,
            runtime.block_on(over_grpc(node.addr("grpc")?, time))?,
        ];
        for (rounds, outcome) in rounds.iter_mut().zip(outcomes) {
            let numbers = outcome.numbers();
            ensure!(numbers.wrong == 0, "{numbers:?}");
            if round > 0 {
                rounds.push(numbers);
            }
        }
    }
    let rows = ["HTTP", "CoAP", "gRPC"].iter().zip(rounds);
    Ok(rows
        .map(|(endpoint, rounds)| row(endpoint, &rounds))
        .collect())
}

fn row(endpoint: &str, rounds: &[Numbers]) -> Row {
    let each = |of: fn(&Numbers) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
    let median = |of: fn(&Numbers) -> f64| Row::new("", "", "", &each(of), Target::None).value;
    let lost: u64 = rounds.iter().map(|numbers| numbers.lost).sum();
    let seen = format!(
        "p99 {:.0} µs, p99.9 {:.0} µs; {lost} lost",
        median(|numbers| numbers.p99_us),
        median(|numbers| numbers.p999_us)
    );
    let name = format!("open-{}", endpoint.to_lowercase());
    let what = format!("{endpoint} → Node echo, {RATE:.0} a second in an open loop: p50");
    let p50 = each(|numbers| numbers.p50_us);
    Row::new(&name, &what, "µs", &p50, Target::None).seen(seen)
}

async fn over_http(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let paced = Arc::new(Paced::new(to));
    let connections = TaskTracker::new();
    open::run(open::evenly(RATE, time), |()| {
        let (paced, connections) = (Arc::clone(&paced), connections.clone());
        async move {
            let payload = Bytes::from_static(PAYLOAD);
            let called = paced.call(&connections, "bench", payload).await;
            Called {
                is_right: called.is_ok_and(|(status, body)| status == 200 && *body == PAYLOAD[..]),
                own: Duration::ZERO,
            }
        }
    })
    .await
}

async fn over_grpc(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let client = grpc::Client::connect(to).await?;
    open::run(open::evenly(RATE, time), |()| {
        let mut client = client.clone();
        async move {
            let payload = String::from_utf8_lossy(PAYLOAD);
            Called {
                is_right: client.call("bench", &payload).await,
                own: Duration::ZERO,
            }
        }
    })
    .await
}

fn over_coap(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let load = Coap {
        to,
        path: "bench".to_owned(),
        payload: PAYLOAD.to_vec(),
        ports: 500,
        pace: Pace::Open(RATE),
        time,
        patience: LOST_AFTER,
    };
    load.run()
}
