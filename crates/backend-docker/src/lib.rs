//! Handlers as containers, through the Docker Engine API.
//!
//! Each deployment has a network of its own, without a way out unless the function is allowed it,
//! and each handler is a container on it: read-only, without capabilities, within the function's
//! limits. Code and shim are in volumes, so that no image is built; what has to be installed or
//! compiled is, in a container of the runtime's image, once for each digest.
//! See `docs/guides/docker.md`.

mod backend;
mod build;
mod clean;
mod container;
mod deployment_network;
mod engine;
mod handler;
mod image;
mod leftovers;
mod network;
mod profile;
mod reverse_proxy;
mod shim;
mod site;
mod stock;
mod subnet;
mod volume;
mod watch;

pub use backend::{DockerBackend, Elsewhere, Options};
pub use clean::{Cleaned, clean};
pub use engine::{EngineError, default_socket};
pub use image::Images;
pub use leftovers::Leftovers;
pub use reverse_proxy::{CONTROL_VARIABLE, Plan, Published, ReverseProxy, SECRET_VARIABLE};
pub use shim::shim_main;
pub use site::Site;
