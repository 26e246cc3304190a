//! How fast and how small tinyFaaS is: load, reference points that run in the same minute, and
//! the targets that the results are held against.
//!
//! A scenario is data (see [`scenario`]); what it brings is a [`row::Row`] of the results.

pub mod load;
pub mod node;
pub mod process;
pub mod reference;
pub mod report;
pub mod row;
pub mod scenario;

use std::path::{Path, PathBuf};

/// The folder of this crate.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
