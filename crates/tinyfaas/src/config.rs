//! What a node is told: flags, then `TINYFAAS_*` variables, then `tinyfaas.toml`, then defaults.

mod address;
mod token;

pub(crate) use address::{Host, ListenAddr, Place};
pub(crate) use token::{obtain as obtain_token, random as random_secret};

use anyhow::{Context, Result, bail};
use clap::Args as _;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file that is read from the working directory where none is named.
const FILE: &str = "tinyfaas.toml";

/// What can be set, each in every layer and under the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// Where functions and their code are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the folders of the original call `POST /` are [default: handlers]
    #[arg(long, value_name = "DIR")]
    pub(crate) handlers_dir: Option<PathBuf>,
    /// Address of the management service [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true)]
    pub(crate) management: Option<ListenAddr>,
    /// Address of the CoAP endpoint [default: UDP port 5683 on every address]
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true)]
    pub(crate) coap: Option<ListenAddr>,
    /// Address of the HTTP endpoint [default: port 8000 on every address]
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true)]
    pub(crate) http: Option<ListenAddr>,
    /// Address of the gRPC endpoint [default: port 9000 on every address]
    #[arg(long, value_name = "ADDR|off", allow_negative_numbers = true)]
    pub(crate) grpc: Option<ListenAddr>,
    /// Which calls of the management service need the token over TCP [default: auto]
    #[arg(long, value_enum)]
    pub(crate) token: Option<TokenFor>,
    /// File with the token of the management service; made where it is missing [default: token in
    /// the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Lets anyone who reaches the management service deploy and delete
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) insecure_management: Option<bool>,
    /// How handlers are isolated [default: full]
    #[arg(long, value_enum)]
    pub(crate) sandbox: Option<Sandbox>,
    /// With --sandbox reduced, go on where the kernel has no Landlock and nothing keeps functions
    /// from this host's files
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) accept_no_landlock: Option<bool>,
    /// What builds reach of the network [default: own]
    #[arg(long, value_enum)]
    pub(crate) build_network: Option<BuildNetwork>,
    /// Ports of this machine that builds reach, such as a package registry's; commas between
    /// them
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) build_host_ports: Option<Vec<u16>>,
    /// What runs handlers [default: process]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<BackendName>,
    /// The Node.js to run functions with [default: the first in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) nodejs: Option<PathBuf>,
    /// The Python to run functions with [default: the first in PATH]
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
    /// Names of this host under which browsers may call functions over HTTP, separated by commas;
    /// * is any [default: its local names where HTTP listens on loopback, else any]
    #[arg(long, value_name = "HOSTS")]
    pub(crate) http_hosts: Option<String>,
    /// Origins whose pages may call functions over HTTP, scheme and host, separated by
    /// commas; * is any [default: none where HTTP listens on loopback, else any]
    #[arg(long, value_name = "ORIGINS")]
    pub(crate) http_origins: Option<String>,
    /// Deploys the bundled examples
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) examples: Option<bool>,
}

/// Which calls of the management service need the token over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TokenFor {
    /// Those under /v1; on an address that other machines reach, every call
    Auto,
    /// Every call
    Always,
}

/// How handlers are isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BuildNetwork {
    /// Other machines, from a network of their own, and of this machine the ports that are named
    Own,
    /// All that this machine reaches; every call of the management service then needs the token
    Host,
}

/// What runs handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    pub(crate) management: Place,
    pub(crate) coap: Place,
    pub(crate) http: Place,
    pub(crate) grpc: Place,
    pub(crate) token_file: PathBuf,
    /// Whether every call needs the token on every address: by the setting, where the token file
    /// was named, and where builds or functions share the host's network.
    pub(crate) is_token_wanted: bool,
    pub(crate) is_management_insecure: bool,
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
    pub(crate) http_origins: Vec<String>,
    pub(crate) has_examples: bool,
}

impl Config {
    /// Puts the layers together: `flags`, the environment as `variable` tells it, the file.
    ///
    /// # Errors
    /// If a variable or the file can't be understood.
    pub(crate) fn load(
        flags: Settings,
        file: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let named = variable("TINYFAAS_CONFIG").map(PathBuf::from);
        let from_file = Settings::from_file(file.or(named.as_deref()))?;
        let settings = flags
            .or(Settings::from_environment(variable)?)
            .or(Settings::from_old_environment(variable)?)
            .or(from_file);
        Ok(settings.complete(variable))
    }
}

/// Variables that are no settings of a node: those of other commands, and of what tinyFaaS starts.
const OTHER_VARIABLES: [&str; 9] = [
    "CONFIG",
    "LOG",
    "LOG_FORMAT",
    "NODE",
    "TOKEN",
    "CONTROL",
    "CONTROL_SECRET",
    "SITE",
    "BIN",
];

/// Refuses variables whose names begin as ours do and mean nothing, as an unknown key in the file is
/// refused.
///
/// # Errors
/// With the name and the one that is most likely meant.
pub(crate) fn check_variables(names: impl Iterator<Item = String>) -> Result<()> {
    let command = Settings::augment_args(clap::Command::new("settings"));
    let known = |name: &str| {
        let flag = name.to_lowercase().replace('_', "-");
        command
            .get_arguments()
            .any(|argument| argument.get_long() == Some(&flag))
            || OTHER_VARIABLES.contains(&name)
            || name.starts_with("BUILD_")
    };
    let unknown = names.filter_map(|name| Some(name.strip_prefix("TINYFAAS_")?.to_owned()));
    let unknown: Vec<String> = unknown.filter(|name| !known(name)).collect();
    if let Some(name) = unknown.first() {
        bail!(
            "the variable TINYFAAS_{name} means nothing; unset it, or correct its name: tinyfaas \
             serve --help lists the flags, and each is a variable, such as TINYFAAS_DATA_DIR for \
             --data-dir"
        );
    }
    Ok(())
}

impl Settings {
    /// These settings, and where one is missing the other's.
    fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            handlers_dir: self.handlers_dir.or(other.handlers_dir),
            management: self.management.or(other.management),
            coap: self.coap.or(other.coap),
            http: self.http.or(other.http),
            grpc: self.grpc.or(other.grpc),
            token: self.token.or(other.token),
            token_file: self.token_file.or(other.token_file),
            insecure_management: self.insecure_management.or(other.insecure_management),
            sandbox: self.sandbox.or(other.sandbox),
            accept_no_landlock: self.accept_no_landlock.or(other.accept_no_landlock),
            build_network: self.build_network.or(other.build_network),
            build_host_ports: self.build_host_ports.or(other.build_host_ports),
            backend: self.backend.or(other.backend),
            nodejs: self.nodejs.or(other.nodejs),
            python3: self.python3.or(other.python3),
            go: self.go.or(other.go),
            image_nodejs: self.image_nodejs.or(other.image_nodejs),
            image_python3: self.image_python3.or(other.image_python3),
            image_go: self.image_go.or(other.image_go),
            image_binary: self.image_binary.or(other.image_binary),
            http_hosts: self.http_hosts.or(other.http_hosts),
            http_origins: self.http_origins.or(other.http_origins),
            examples: self.examples.or(other.examples),
        }
    }

    /// Each setting from its variable: `TINYFAAS_` and the flag's name in capitals.
    fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = |flag: &str| {
            let name = format!("TINYFAAS_{}", flag.to_uppercase().replace('-', "_"));
            let text = variable(&name).filter(|text| !text.is_empty());
            (name, text)
        };
        let path = |flag: &str| text(flag).1.map(PathBuf::from);
        let address = |flag: &str| match text(flag) {
            (name, Some(text)) => text.parse().map(Some).with_context(|| name),
            (_, None) => anyhow::Ok(None),
        };
        let boolean = |flag: &str| match text(flag) {
            (_, None) => Ok(None),
            (_, Some(text)) if matches!(text.as_str(), "1" | "true" | "yes") => Ok(Some(true)),
            (_, Some(text)) if matches!(text.as_str(), "0" | "false" | "no") => Ok(Some(false)),
            (name, Some(text)) => bail!("{name} is {text:?}; set it to true or false"),
        };
        Ok(Self {
            data_dir: path("data-dir"),
            handlers_dir: path("handlers-dir"),
            management: address("management")?,
            coap: address("coap")?,
            http: address("http")?,
            grpc: address("grpc")?,
            // The variable of that name is the token itself, for the other commands.
            token: None,
            token_file: path("token-file"),
            insecure_management: boolean("insecure-management")?,
            sandbox: choice(text("sandbox"))?,
            accept_no_landlock: boolean("accept-no-landlock")?,
            build_network: choice(text("build-network"))?,
            build_host_ports: ports(text("build-host-ports"))?,
            backend: choice(text("backend"))?,
            nodejs: path("nodejs"),
            python3: path("python3"),
            go: path("go"),
            image_nodejs: text("image-nodejs").1,
            image_python3: text("image-python3").1,
            image_go: text("image-go").1,
            image_binary: text("image-binary").1,
            http_hosts: text("http-hosts").1,
            http_origins: text("http-origins").1,
            examples: boolean("examples")?,
        })
    }

    /// What the variables of the original say: ports, where -1 turns an endpoint off, and the
    /// backend.
    fn from_old_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let port = |name: &str| {
            let text = variable(name).filter(|text| !text.is_empty());
            let Some(text) = text else {
                return anyhow::Ok(None);
            };
            let is_number = text.parse::<i32>().is_ok();
            if !is_number {
                bail!("{name} is {text:?}; set it to a port, or to -1 to turn the endpoint off");
            }
            text.parse().map(Some).with_context(|| name.to_owned())
        };
        let backend = variable("TF_BACKEND").filter(|text| !text.is_empty());
        Ok(Self {
            coap: port("COAP_PORT")?,
            http: port("HTTP_PORT")?,
            grpc: port("GRPC_PORT")?,
            backend: choice(("TF_BACKEND".to_owned(), backend))?,
            ..Self::default()
        })
    }

    /// The settings in a file; none where no file is named and there is none in the working
    /// directory.
    fn from_file(named: Option<&Path>) -> Result<Self> {
        let path = named.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read the settings {}", path.display()));
            }
        };
        toml::from_str(&text).with_context(|| format!("the settings in {}", path.display()))
    }

    fn complete(self, variable: &dyn Fn(&str) -> Option<String>) -> Config {
        // Sandboxes are given paths, which must not depend on a working directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let data_dir = self.data_dir.map(absolute);
        let data_dir = data_dir.unwrap_or_else(|| default_data_dir(variable));
        let place = |address: Option<ListenAddr>, default| match address {
            Some(address) => address.or_default(default),
            None => default,
        };
        Config {
            handlers_dir: absolute(self.handlers_dir.unwrap_or_else(|| "handlers".into())),
            management: place(self.management, Place::loopback(8080)),
            coap: place(self.coap, Place::everywhere(5683)),
            http: place(self.http, Place::everywhere(8000)),
            grpc: place(self.grpc, Place::everywhere(9000)),
            is_token_wanted: self.token_file.is_some()
                || self.token == Some(TokenFor::Always)
                || self.build_network == Some(BuildNetwork::Host)
                || self.sandbox == Some(Sandbox::Reduced),
            token_file: self.token_file.unwrap_or_else(|| data_dir.join("token")),
            is_management_insecure: self.insecure_management.unwrap_or(false),
            sandbox: self.sandbox.unwrap_or(Sandbox::Full),
            may_lack_landlock: self.accept_no_landlock.unwrap_or(false),
            build_network: self.build_network.unwrap_or(BuildNetwork::Own),
            build_host_ports: self.build_host_ports.unwrap_or_default(),
            backend: self.backend.unwrap_or(BackendName::Process),
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
            http_hosts: listed(self.http_hosts),
            http_origins: listed(self.http_origins),
            has_examples: self.examples.unwrap_or(false),
            data_dir,
        }
    }
}

/// The value of a setting that is a list of ports.
fn ports((name, text): (String, Option<String>)) -> Result<Option<Vec<u16>>> {
    let Some(text) = text else { return Ok(None) };
    let ports: Result<_, _> = text.split(',').map(|port| port.trim().parse()).collect();
    ports.map(Some).with_context(|| {
        format!("{name} is {text:?}; set it to ports with commas between, such as 4873,3141")
    })
}

/// The parts of a setting that are separated by commas.
fn listed(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    let parts = text.split(',').map(str::trim);
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// The value of a setting that is one of a few words.
fn choice<T: clap::ValueEnum>((name, text): (String, Option<String>)) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    let found = T::from_str(&text, false).ok();
    if found.is_none() {
        let words = T::value_variants().iter().filter_map(T::to_possible_value);
        let words: Vec<_> = words.map(|word| word.get_name().to_owned()).collect();
        bail!("{name} is {text:?}; set it to one of {}", words.join(", "));
    }
    Ok(found)
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
