//! The management service: deploys functions and keeps them.
//!
//! A deployment walks one way: api → archive (unpack, validate) → [`faas::Backend::prepare`] →
//! store (durable) → [`faas::Router::publish`] → the replaced handlers finish and stop.
//! Everything that can fail comes before publish. Functions are never invoked here.

mod archive;
mod deployer;

pub use archive::{ArchiveError, SourceFile};
pub use deployer::{
    DeployError, DeployRequest, Deployed, EndpointUrl, Management, OpenError, Options, Source,
};
