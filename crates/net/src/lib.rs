//! Clients and what they may take of a node: who they are, and budgets of bytes and connections.
//! Addresses that functions never reach. It sees nothing of ours, so that endpoints, backends and the
//! management service all can.

mod accept;
mod account;
mod budget;
mod clients;
mod pace;
mod peer;
mod reach;
mod recent;
mod upload;

pub use accept::serve;
pub use account::Account;
pub use budget::{Budget, Held, Share, Spent};
pub use clients::{Bounds, Client, Clients, InFlight, Place};
pub use pace::Pace;
pub use peer::Peer;
pub use reach::{is_never_reached, is_own, reached};
pub use upload::Upload;
