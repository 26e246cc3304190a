//! gRPC calls: so many at once over a few connections, each task the next when one is answered.

use super::Outcome;
use anyhow::{Context, Result, ensure};
use endpoints::grpc::proto::Data;
use endpoints::grpc::proto::tiny_faa_s_client::TinyFaaSClient;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

/// Connections that the calls share.
const CONNECTIONS: usize = 4;

/// Calls a function.
///
/// # Errors
/// Where nobody listens.
pub async fn run(
    to: SocketAddr,
    function: &str,
    payload: &str,
    open: usize,
    time: Duration,
) -> Result<Outcome> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS.min(open) {
        let endpoint = Endpoint::from_shared(format!("http://{to}"))?;
        channels.push(endpoint.connect().await.context("connect")?);
    }
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..open {
        let mut client = TinyFaaSClient::new(channels[number % channels.len()].clone());
        let data = Data {
            function_identifier: function.to_owned(),
            data: payload.to_owned(),
        };
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            while begin.elapsed() < time {
                let sent = Instant::now();
                let replied = client.request(data.clone()).await;
                let is_right = replied.is_ok_and(|reply| reply.get_ref().response == data.data);
                outcome.reply(sent.elapsed(), is_right);
            }
            outcome
        });
    }
    let mut all = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        all.add(&outcome?);
    }
    all.time = begin.elapsed();
    Ok(all)
}

/// So many calls, one after the other.
///
/// # Errors
/// Where nobody listens, or a call is answered wrongly.
pub async fn one_by_one(to: SocketAddr, function: &str, payload: &str, count: usize) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{to}"))?;
    let mut client = TinyFaaSClient::new(endpoint.connect().await.context("connect")?);
    for _ in 0..count {
        let data = Data {
            function_identifier: function.to_owned(),
            data: payload.to_owned(),
        };
        let reply = client.request(data).await?;
        ensure!(reply.get_ref().response == payload, "a wrong reply");
    }
    Ok(())
}
