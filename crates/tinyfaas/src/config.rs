//! What a node is told: flags, then `TINYFAAS_*` variables, then `tinyfaas.toml`, then defaults.
//!
//! [`Settings`] is the one list: a field there is a flag, a variable, a key of the file and a line of
//! the reference, with its parser, help and default.

mod address;
mod check;
mod layers;
mod token;

pub(crate) use address::{Host, ListenAddr, Place};
pub(crate) use layers::{Flags, InForce, check_variables};
pub(crate) use token::obtain as obtain_token;

use anyhow::Result;
use faas::{Cors, Limits, quantity};
use std::path::{Path, PathBuf};

/// What can be set, each in every layer and under the same name.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Settings {
    /// Where functions, their code and builds are kept; one node at a time [default: as root
    /// `/var/lib/tinyfaas`, else `tinyfaas` in `$XDG_DATA_HOME` or `~/.local/share`]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the folders of the original call `POST /` are; where it does not exist, the built-in
    /// one with sieve-of-erasthostenes serves
    #[arg(long, value_name = "DIR", default_value = "handlers")]
    pub(crate) handlers_dir: PathBuf,
    /// Address of the management service
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true, default_value = MANAGEMENT)]
    pub(crate) management: ListenAddr,
    /// Address of the CoAP endpoint, UDP
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true, default_value = COAP)]
    pub(crate) coap: ListenAddr,
    /// Address of the HTTP endpoint
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true, default_value = HTTP)]
    pub(crate) http: ListenAddr,
    /// Address of the gRPC endpoint
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true, default_value = GRPC)]
    pub(crate) grpc: ListenAddr,
    /// Which calls of the management service need the token over TCP
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) token: TokenFor,
    /// File with the token of the management service; made where it is missing. One that is named
    /// means --token always [default: token in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Lets anyone who reaches the management service deploy and delete
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = switch)]
    pub(crate) insecure_management: bool,
    /// How handlers are isolated
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) sandbox: Sandbox,
    /// With --sandbox reduced, go on where the kernel has no Landlock and nothing keeps functions
    /// from this host's files
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = switch)]
    pub(crate) accept_no_landlock: bool,
    /// What builds reach of the network
    #[arg(long, value_enum, default_value = "own")]
    pub(crate) build_network: BuildNetwork,
    /// Ports of this machine that builds reach, such as a package registry's or a proxy's; commas
    /// between them
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) build_host_ports: Vec<u16>,
    /// What runs handlers
    #[arg(long, value_enum, default_value = "process")]
    pub(crate) backend: BackendName,
    /// The Node.js to run functions with [default: the first in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) nodejs: Option<PathBuf>,
    /// The Python to run functions with, such as a virtual environment's [default: the first in
    /// PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) python3: Option<PathBuf>,
    /// The Go compiler to build functions with [default: the first in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
    /// The image that nodejs functions run in, with Docker [default: node:20-alpine]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image_nodejs: Option<String>,
    /// The image that python3 functions run in, with Docker [default: python:3-alpine]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image_python3: Option<String>,
    /// The image that go functions are built and run in, with Docker [default: golang:alpine]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image_go: Option<String>,
    /// The image that binary functions run in, with Docker [default: alpine:3]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image_binary: Option<String>,
    /// Names of this host under which browsers may call functions over HTTP, separated by commas,
    /// or * for any [default: its local names where HTTP listens on loopback, or cors is none or names
    /// origins, else any]
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    pub(crate) http_hosts: Vec<String>,
    /// Web pages of other sites that may call functions over HTTP and read their replies, where a
    /// function has no setting of its own: origins such as `https://app.example.com` with commas
    /// between, * for any, none, or function where functions answer for themselves [default: none where
    /// HTTP listens on loopback, else function]
    #[arg(long, value_name = "ORIGINS", alias = "http-origins")]
    pub(crate) cors: Option<Cors>,
    /// Sets a bound, such as payload-bytes-max=2MiB; repeat for more, or separate them by commas.
    /// In the file they stand in the section `[limits]`; `tinyfaas config` lists them all
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = limit)]
    pub(crate) limit: Vec<String>,
    /// Deploys the bundled examples
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = switch)]
    pub(crate) examples: bool,
}

/// Defaults of the addresses; what an address leaves out is taken from them.
const MANAGEMENT: &str = "127.0.0.1:8080";
const COAP: &str = "*:5683";
const HTTP: &str = "*:8000";
const GRPC: &str = "*:9000";

fn switch(text: &str) -> Result<bool, &'static str> {
    quantity::switch(text).ok_or("set it to true or false")
}

fn limit(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    let set = Limits::default().set(name.trim(), value.trim());
    set.map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Which calls of the management service need the token over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TokenFor {
    /// Those under /v1; on an address that other machines reach, every call
    Auto,
    /// Every call
    Always,
}

/// How handlers are isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sandbox {
    /// Namespaces, cgroup, seccomp, Landlock
    Full,
    /// seccomp, Landlock and resource limits only, for hosts that forbid user namespaces
    Reduced,
}

impl Sandbox {
    /// The word in the settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reduced => "reduced",
        }
    }
}

/// What builds reach of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BuildNetwork {
    /// Other machines, from a network of their own, and of this machine the ports that are named
    Own,
    /// All that this machine reaches; every call of the management service then needs the token
    Host,
}

/// What runs handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendName {
    /// Sandboxed processes of this host
    Process,
    /// Containers of the Docker engine on this host; `DOCKER_HOST` names its socket
    Docker,
}

/// The images that were named; the others are the backend's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageNames {
    pub(crate) nodejs: Option<String>,
    pub(crate) python3: Option<String>,
    pub(crate) go: Option<String>,
    pub(crate) binary: Option<String>,
}

/// What a node is told, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) handlers_dir: PathBuf,
    /// Whether it was named: the default may be missing.
    pub(crate) is_handlers_dir_named: bool,
    pub(crate) management: Place,
    pub(crate) coap: Place,
    pub(crate) http: Place,
    pub(crate) grpc: Place,
    pub(crate) token_file: PathBuf,
    /// Whether every call needs the token on every address: by the setting, where the token file
    /// was named, and where builds or functions share the host's network.
    pub(crate) is_token_wanted: bool,
    pub(crate) is_management_insecure: bool,
    /// Whether the original's calls need no token on any address, as in its container.
    pub(crate) is_original_open: bool,
    pub(crate) sandbox: Sandbox,
    pub(crate) may_lack_landlock: bool,
    pub(crate) build_network: BuildNetwork,
    pub(crate) build_host_ports: Vec<u16>,
    pub(crate) backend: BackendName,
    pub(crate) nodejs: Option<PathBuf>,
    pub(crate) python3: Option<PathBuf>,
    pub(crate) go: Option<PathBuf>,
    pub(crate) images: ImageNames,
    pub(crate) docker_host: Option<String>,
    pub(crate) http_hosts: Vec<String>,
    /// None where it is what suits the address.
    pub(crate) cors: Option<Cors>,
    pub(crate) has_examples: bool,
    pub(crate) limits: Limits,
    /// Every setting as text, and where it is from.
    pub(crate) in_force: Vec<InForce>,
}

impl Config {
    /// Puts the layers together: `flags`, the environment as `variable` tells it, the file.
    ///
    /// # Errors
    /// If a flag, a variable or the file can't be understood.
    pub(crate) fn load(
        flags: &Flags,
        file: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let layers = layers::read(flags, file, variable)?;
        let settings = layers.settings()?;
        let mut config = settings.complete(variable)?;
        config.in_force = layers.in_force(&config);
        let named = |setting: &InForce| {
            setting.name == "handlers-dir" && setting.source != layers::Source::Default
        };
        config.is_handlers_dir_named = config.in_force.iter().any(named);
        Ok(config)
    }

    /// The bounds that are not the defaults, as `--limit` takes them.
    pub(crate) fn limits_that_are_set(&self) -> Option<String> {
        let defaults = Limits::default().list();
        let changed = self.limits.list().into_iter().zip(defaults);
        let changed = changed.filter(|(bound, default)| bound != default);
        let texts = changed.map(|(bound, _)| format!("{}={}", bound.name, bound.value));
        let texts: Vec<String> = texts.collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }
}

impl Settings {
    fn complete(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        // Sandboxes are given paths, which must not depend on a working directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let data_dir = self.data_dir.map(absolute);
        let data_dir = data_dir.unwrap_or_else(|| default_data_dir(variable));
        let mut limits = Limits::default();
        for (name, value) in self.limit.iter().filter_map(|limit| limit.split_once('=')) {
            limits.set(name.trim(), value.trim())?;
        }
        limits.check()?;
        Ok(Config {
            is_handlers_dir_named: false,
            handlers_dir: absolute(self.handlers_dir),
            management: self.management.or_default(Place::default_of(MANAGEMENT)?),
            coap: self.coap.or_default(Place::default_of(COAP)?),
            http: self.http.or_default(Place::default_of(HTTP)?),
            grpc: self.grpc.or_default(Place::default_of(GRPC)?),
            is_token_wanted: self.token_file.is_some()
                || self.token == TokenFor::Always
                || self.build_network == BuildNetwork::Host
                || self.sandbox == Sandbox::Reduced,
            token_file: self.token_file.unwrap_or_else(|| data_dir.join("token")),
            is_management_insecure: self.insecure_management,
            is_original_open: false,
            sandbox: self.sandbox,
            may_lack_landlock: self.accept_no_landlock,
            build_network: self.build_network,
            build_host_ports: self.build_host_ports,
            backend: self.backend,
            nodejs: self.nodejs,
            python3: self.python3,
            go: self.go,
            images: ImageNames {
                nodejs: self.image_nodejs,
                python3: self.image_python3,
                go: self.image_go,
                binary: self.image_binary,
            },
            docker_host: variable("DOCKER_HOST"),
            http_hosts: listed(&self.http_hosts),
            cors: self.cors,
            has_examples: self.examples,
            limits,
            in_force: Vec::new(),
            data_dir,
        })
    }
}

/// The parts of a setting that were separated by commas.
fn listed(parts: &[String]) -> Vec<String> {
    let parts = parts.iter().map(|part| part.trim());
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// `/var/lib/tinyfaas` for root, the user's own data folder else.
pub(crate) fn default_data_dir(variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/tinyfaas".into();
    }
    let set = |name: &str| variable(name).filter(|text| !text.is_empty());
    let data = set("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")));
    data.unwrap_or_else(|| ".".into()).join("tinyfaas")
}

#[cfg(test)]
mod tests;
