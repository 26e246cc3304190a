//! CoAP without input and output: RFC 7252, RFC 7959 and the numbers of RFC 7641.
//!
//! [`Server`] and [`Client`] are fed datagrams and the time, and give back datagrams to send,
//! requests to run and the moment at which they want to be woken. They own no socket, no clock
//! and no thread.

mod arena;
pub mod block;
pub mod client;
pub mod code;
mod deduplicator;
pub mod exchange;
pub mod message;
pub mod option;
mod peer;
mod request;
mod transfer;
pub mod transmission;
pub mod uri;

pub use block::Block;
pub use client::{Client, ClientConfig, ClientError, ClientRequest, ClientResponse};
pub use code::Code;
pub use exchange::{Budgets, Config, Request, RequestId, Response, Server};
pub use message::{Encoder, Kind, Message, Options, ParseError, Token};
pub use peer::Peer;
