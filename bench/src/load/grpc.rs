//! gRPC calls: so many at once over a few connections, each task the next when one is answered.

use super::Outcome;
use anyhow::{Context, Result};
use endpoints::grpc::proto::Data;
use endpoints::grpc::proto::tiny_faa_s_client::TinyFaaSClient;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Connections that the calls share.
const CONNECTIONS: usize = 4;

/// Calls a function.
///
/// # Errors
/// If nobody listens.
pub async fn run(
    to: SocketAddr,
    function: &str,
    payload: &str,
    open: usize,
    time: Duration,
) -> Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS.min(open) {
        clients.push(Client::connect(to).await?);
    }
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..open {
        let mut client = clients[number % clients.len()].clone();
        let (function, payload) = (function.to_owned(), payload.to_owned());
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            while begin.elapsed() < time {
                let sent = Instant::now();
                let is_right = client.call(&function, &payload).await;
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

/// Calls one after the other, or, cloned, many at once over one connection.
#[derive(Debug, Clone)]
pub struct Client(TinyFaaSClient<Channel>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(to: SocketAddr) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{to}"))?;
        let channel = endpoint.connect().await.context("connect")?;
        Ok(Self(TinyFaaSClient::new(channel)))
    }

    /// Calls; whether what was sent came back.
    pub async fn call(&mut self, function: &str, payload: &str) -> bool {
        let asked = self.ask(function, payload).await;
        asked.is_ok_and(|response| response == payload)
    }

    /// Calls, for the response.
    ///
    /// # Errors
    /// What the server said instead, or what broke.
    pub async fn ask(&mut self, function: &str, payload: &str) -> Result<String, Status> {
        let data = Data {
            function_identifier: function.to_owned(),
            data: payload.to_owned(),
        };
        let replied = self.0.request(data).await?;
        Ok(replied.into_inner().response)
    }
}
