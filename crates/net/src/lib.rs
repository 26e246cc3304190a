//! Clients and what they may take of a node: who they are, and budgets of bytes and connections.
//! Addresses that functions never reach. It sees nothing of ours, so that endpoints, backends and the
//! management service all can.

mod accept;
mod account;
mod budget;
mod clients;
mod pace;
mod paced;
mod peer;
mod reach;
mod recent;
mod socket;
mod upload;

pub use accept::serve;
pub use account::Account;
pub use budget::{Budget, Held, Share, Spent};
pub use clients::{Bounds, Client, Clients, Fills, InFlight, Place, Replies};
pub use pace::Pace;
pub use paced::Paced;
pub use peer::Peer;
pub use reach::{is_never_reached, is_own, reached};
pub use recent::Slow;
pub use socket::Socket;
pub use upload::Upload;
