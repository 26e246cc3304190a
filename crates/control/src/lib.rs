//! A management service and a reverse proxy in two processes, and what they say to each other.
//!
//! The management service starts the handlers' instances; the reverse proxy calls them, keeps them
//! alive and says when it wants another. So the proxy dials the management service, shows the
//! secret that it was started with, and tells what it has; from then on both talk in lines of JSON.
//! The table of routes always goes over whole, and so does everything else when either side is
//! back, so that no route is ever stale. While there is no management service the proxy goes on
//! serving what it has. See `docs/decisions/0009-control-channel.md`.

mod admission;
mod instance;
mod line;
mod link;
mod lock;
mod management_end;
mod message;
mod proxy_end;
mod registry;
mod remote_handler;
mod revision;
mod table;

pub use admission::Admission;
pub use management_end::{ManagementEnd, Options};
pub use proxy_end::{Followed, follow};
