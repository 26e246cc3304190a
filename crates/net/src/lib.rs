//! Clients and what they may take of a node: who they are, and budgets of bytes and connections.
//! It sees nothing of ours, so that endpoints and the management service both can.

mod budget;
mod peer;

pub use budget::{Budget, Held, Share, Spent};
pub use peer::Peer;
