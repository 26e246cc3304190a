//! Clients and what they may take of a node: who they are, and budgets of bytes and connections.
//! It sees nothing of ours, so that endpoints and the management service both can.

mod accept;
mod account;
mod budget;
mod clients;
mod peer;

pub use accept::serve;
pub use account::Account;
pub use budget::{Budget, Held, Share, Spent};
pub use clients::{Bounds, Client, Clients, InFlight, Place};
pub use peer::Peer;
