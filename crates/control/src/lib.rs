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

/// What `fuzz/` reaches of this crate.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::message::{ToManagement, ToProxy};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    /// Reads a line as either end does. What is read is written as a line that reads the same.
    pub fn read(line: &[u8]) {
        read_as::<ToManagement>(line);
        read_as::<ToProxy>(line);
    }

    fn read_as<T: Serialize + DeserializeOwned>(line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<T>(line) else {
            return;
        };
        let written = serde_json::to_string(&message).expect("a message is JSON");
        let read: T = serde_json::from_str(&written).expect("a message can be read");
        assert_eq!(serde_json::to_string(&read).ok(), Some(written));
    }
}
