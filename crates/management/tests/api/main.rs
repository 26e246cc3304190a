//! The management service from outside: a real server, a real disk, and a backend whose handlers
//! live in this process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on fails"
)]

mod archives;
mod backend;
mod browsers;
mod builds;
mod deployments;
mod durability;
mod node;
mod pack;
mod redeployments;
mod replies;
mod requests;
mod storage;
mod uploads;
