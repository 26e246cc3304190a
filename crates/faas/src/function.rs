//! What a function is: its name, its runtime and its settings.

use crate::cors::Cors;
use crate::host::HostPattern;
use crate::limits::{FunctionLimits, Limits};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The longest function name in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The route of a function: one or more URI path segments, such as `sieve` or `sieve/primes`.
///
/// Each segment is `[A-Za-z0-9._~-]+` and neither `.` nor `..`; the whole has at most
/// [`NAME_BYTES_MAX`] bytes. It is at the same time the CoAP Uri-Path, the HTTP path and the gRPC
/// `functionIdentifier`. A clone is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName(Arc<str>);

/// Why a string is not a valid function name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a function name is empty; give one or more path segments such as sieve/primes")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a function name has {0} bytes; the most is {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A segment is empty, `.` or `..`.
    #[error("the function name {0:?} has an empty segment, \".\" or \"..\"")]
    BadSegment(String),
    /// A character that a name can't have.
    #[error(
        "the function name {name:?} has the character {character:?}; allowed are A-Z a-z 0-9 . _ ~ - and / between segments"
    )]
    BadCharacter {
        /// The text that was given.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

impl FunctionName {
    /// The name as it is written in a path, without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path segments, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for FunctionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._~-/".contains(c);
        if let Some(character) = text.chars().find(|&c| !allowed(c)) {
            let name = text.to_owned();
            return Err(NameError::BadCharacter { name, character });
        }
        if text.split('/').any(|s| matches!(s, "" | "." | "..")) {
            return Err(NameError::BadSegment(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for FunctionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A language environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// JavaScript on Node.js.
    Nodejs,
    /// Python 3.
    Python3,
    /// Go, compiled at deployment.
    Go,
    /// A program or script `fn.sh`, run for every call.
    Binary,
    /// A WebAssembly module or component `fn.wasm`, or the only `.wasm` file.
    Wasm,
}

/// A runtime's name that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the runtime {0:?} is not known; choose one of nodejs, python3, go, binary, wasm")]
pub struct UnknownRuntime(pub String);

impl Runtime {
    /// Every runtime, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Nodejs,
        Self::Python3,
        Self::Go,
        Self::Binary,
        Self::Wasm,
    ];

    /// The name that the API uses (`env`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nodejs => "nodejs",
            Self::Python3 => "python3",
            Self::Go => "go",
            Self::Binary => "binary",
            Self::Wasm => "wasm",
        }
    }
}

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        let known = Self::ALL.into_iter().find(|r| r.as_str() == text);
        known.ok_or_else(|| UnknownRuntime(text.to_owned()))
    }
}

impl Runtime {
    /// The handlers of a function whose deployer asked for no number. A handler is a process, of
    /// which one serves many calls; for WebAssembly it is an instance, which serves one.
    #[must_use]
    pub fn default_handlers(self, limits: &Limits) -> u16 {
        const INSTANCES_PER_CORE: usize = 8;
        match self {
            Self::Nodejs | Self::Python3 | Self::Go | Self::Binary => 1,
            Self::Wasm => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let instances = u16::try_from(cores * INSTANCES_PER_CORE).unwrap_or(u16::MAX);
                instances.min(limits.handlers_max)
            }
        }
    }

    /// The memory of a handler whose deployer asked for none: `wanted`, and for WebAssembly no
    /// more than comes from the pool.
    #[must_use]
    pub fn default_memory(self, wanted: u64, limits: &Limits) -> u64 {
        match self {
            Self::Nodejs | Self::Python3 | Self::Go | Self::Binary => wanted,
            Self::Wasm => wanted.min(limits.wasm.slot_bytes_max),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the runtime finds the function in its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// By the runtime's own convention: the npm module, `fn.py`, `fn.go`, `fn.sh`, `fn.wasm`.
    Convention,
    /// The original call `POST /`: a file below the code's folder whose module exports
    /// `eventhandler()`; what it returns is the reply. `nodejs` only.
    EventHandler(String),
}

/// What a function reaches of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// Other machines, from a network of its own; of this machine the named ports.
    Own {
        /// TCP and UDP ports of this machine's loopback, at most
        /// [`Limits::host_ports_max`](crate::Limits::host_ports_max).
        host_ports: Vec<u16>,
    },
    /// All that this machine reaches, the machine itself included.
    Host,
}

impl Network {
    /// A network of its own without a port of this machine.
    #[must_use]
    pub fn own() -> Self {
        Self::Own {
            host_ports: Vec::new(),
        }
    }

    /// Whether anything is reached.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self != Self::None
    }

    /// Whether it is the host's.
    #[must_use]
    pub fn is_host(&self) -> bool {
        *self == Self::Host
    }

    /// The ports of this machine that were named.
    #[must_use]
    pub fn host_ports(&self) -> &[u16] {
        match self {
            Self::Own { host_ports } => host_ports,
            Self::None | Self::Host => &[],
        }
    }
}

/// What a user asked for when deploying a function. Code is apart, see
/// [`Package`](crate::package::Package).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSpec {
    /// The route.
    pub name: FunctionName,
    /// The language environment.
    pub runtime: Runtime,
    /// How the function is found in its code.
    pub entry: Entry,
    /// How many handlers serve it ("threads" in the API), 1 to
    /// [`Limits::handlers_max`](crate::Limits::handlers_max).
    pub handlers: u16,
    /// Environment variables that the function sees, in the order given; names are unique.
    pub envs: Vec<(String, String)>,
    /// What the function reaches of the network. Nothing by default.
    pub network: Network,
    /// The hosts that a `wasi:http` component may send requests to. `wasm` only.
    pub allow_hosts: Vec<HostPattern>,
    /// Whether npm packages may run scripts of their own when they are installed, and the function
    /// its own. Not by default. `nodejs` only.
    pub allow_scripts: bool,
    /// Which pages of other sites may call it over HTTP; the node's own setting where it is none.
    pub cors: Option<Cors>,
    /// What one handler may use.
    pub limits: FunctionLimits,
}

/// What the proxy has to know of a function; how it runs does not concern it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTerms {
    /// The function's name.
    pub name: FunctionName,
    /// How long an invocation may take, waiting included.
    pub deadline: Duration,
    /// Invocations that wait for a handler; more are refused.
    pub queue_max: usize,
    /// Pages of other sites that may call it; none where that is the node's to say.
    pub cors: Option<Arc<Cors>>,
}

impl FunctionSpec {
    /// What the proxy has to know of it.
    #[must_use]
    pub fn terms(&self) -> CallTerms {
        CallTerms {
            name: self.name.clone(),
            deadline: self.limits.deadline,
            queue_max: self.limits.queue_max,
            cors: self.cors.clone().map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        let check = |text: &str, ok: bool| {
            assert_eq!(text.parse::<FunctionName>().is_ok(), ok, "{text:?}");
        };
        for good in ["sieve", "sieve/primes", "a", "A.b_c~d-e/0", "...", "a/..b"] {
            check(good, true);
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "ü", "a%2f", "a\0",
        ] {
            check(bad, false);
        }
        check(&"n".repeat(NAME_BYTES_MAX), true);
        check(&"n".repeat(NAME_BYTES_MAX + 1), false);
    }

    #[test]
    fn every_runtime_parses_from_its_own_name() {
        for runtime in Runtime::ALL {
            assert_eq!(runtime.as_str().parse(), Ok(runtime));
        }
        assert!("cobol".parse::<Runtime>().is_err());
    }
}
