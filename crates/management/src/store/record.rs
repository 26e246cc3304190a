//! What is stored of a function, in shapes of its own: the vocabulary may change, these stay.

use faas::{Entry, FunctionLimits, FunctionName, FunctionSpec, Network, Runtime};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What is kept of a function.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// What the user asked for.
    pub(crate) spec: Arc<FunctionSpec>,
    /// The digest of the code, which is also the name of its folder.
    pub(crate) digest: String,
    /// Files and links of the code.
    pub(crate) files: u64,
    /// What the code took as it was sent; the same as unpacked where it was no archive.
    pub(crate) packed_bytes: u64,
    /// What the code's files take.
    pub(crate) unpacked_bytes: u64,
    /// When it was deployed, in milliseconds since 1970.
    pub(crate) deployed_at_ms: i64,
    /// Why what is stored can't be read. What was asked for is a placeholder then, and what is
    /// stored stays as it is until the function is deployed again or deleted.
    pub(crate) fault: Option<Fault>,
}

/// Why what is stored of a function can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A newer tinyFaaS wrote it.
    #[error("a newer tinyfaas stored it; use that one, or deploy the function again")]
    Newer,
    /// It makes no sense.
    #[error("what is stored of it can't be read ({0}); deploy it again")]
    Unreadable(String),
}

/// The version of the shape below. It grows when an older tinyFaaS would run a function wrongly.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
struct Versioned {
    #[serde(default)]
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    /// Stores of version 0.1.0 have none.
    #[serde(default)]
    version: u32,
    runtime: String,
    event_handler: Option<String>,
    handlers: u16,
    envs: Vec<(String, String)>,
    network: bool,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    host_ports: Vec<u16>,
    /// Stores of version 0.1.0 have none.
    #[serde(default)]
    allow_hosts: Vec<String>,
    /// Stores of version 0.1.0 have none.
    #[serde(default)]
    allow_scripts: bool,
    /// Stores of version 0.1.0 have none.
    #[serde(default)]
    cors: Option<String>,
    memory_bytes_max: u64,
    pids_max: u32,
    cpu_millis_max: u32,
    tmp_bytes_max: u64,
    tmp_files_max: u64,
    open_files_max: u64,
    deadline_ms: u64,
    queue_max: usize,
}

/// The stored form of what the user asked for.
pub(super) fn settings(spec: &FunctionSpec) -> String {
    let limits = &spec.limits;
    let settings = Settings {
        version: VERSION,
        runtime: spec.runtime.as_str().to_owned(),
        event_handler: match &spec.entry {
            Entry::Convention => None,
            Entry::EventHandler(file) => Some(file.clone()),
        },
        handlers: spec.handlers,
        envs: spec.envs.clone(),
        network: spec.network.is_on(),
        host_network: spec.network.is_host(),
        host_ports: spec.network.host_ports().to_vec(),
        allow_hosts: spec.allow_hosts.iter().map(ToString::to_string).collect(),
        allow_scripts: spec.allow_scripts,
        cors: spec.cors.as_ref().map(ToString::to_string),
        memory_bytes_max: limits.memory_bytes_max,
        pids_max: limits.pids_max,
        cpu_millis_max: limits.cpu_millis_max,
        tmp_bytes_max: limits.tmp_bytes_max,
        tmp_files_max: limits.tmp_files_max,
        open_files_max: limits.open_files_max,
        deadline_ms: u64::try_from(limits.deadline.as_millis()).unwrap_or(u64::MAX),
        queue_max: limits.queue_max,
    };
    serde_json::to_string(&settings).expect("the shape has only texts, numbers and lists")
}

/// What the user asked for, from its stored form.
pub(super) fn spec(name: &FunctionName, settings: &str) -> Result<FunctionSpec, Fault> {
    let unreadable = |error: serde_json::Error| Fault::Unreadable(error.to_string());
    // First of all: the rest may have another shape.
    let versioned: Versioned = serde_json::from_str(settings).map_err(unreadable)?;
    if versioned.version > VERSION {
        return Err(Fault::Newer);
    }
    let stored: Settings = serde_json::from_str(settings).map_err(unreadable)?;
    parse(name, stored).map_err(Fault::Unreadable)
}

/// What stands for a function whose settings can't be read.
pub(super) fn placeholder(name: &FunctionName) -> FunctionSpec {
    FunctionSpec {
        name: name.clone(),
        runtime: Runtime::Binary,
        entry: Entry::Convention,
        handlers: 1,
        envs: Vec::new(),
        network: Network::None,
        allow_hosts: Vec::new(),
        allow_scripts: false,
        cors: None,
        limits: FunctionLimits::default(),
    }
}

/// The digest; an invalid one becomes what names no folder: a folder by that name may be removed.
pub(super) fn checked_digest(digest: String) -> String {
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        digest
    } else {
        "unknown".to_owned()
    }
}

fn parse(name: &FunctionName, stored: Settings) -> Result<FunctionSpec, String> {
    Ok(FunctionSpec {
        name: name.clone(),
        runtime: stored
            .runtime
            .parse()
            .map_err(|error: faas::UnknownRuntime| error.to_string())?,
        entry: stored
            .event_handler
            .map_or(Entry::Convention, Entry::EventHandler),
        handlers: stored.handlers,
        envs: stored.envs,
        network: match (stored.network, stored.host_network) {
            (false, _) => Network::None,
            (true, true) => Network::Host,
            (true, false) => Network::Own {
                host_ports: stored.host_ports,
            },
        },
        allow_hosts: stored
            .allow_hosts
            .iter()
            .map(|host| host.parse())
            .collect::<Result<_, faas::BadHost>>()
            .map_err(|error| error.to_string())?,
        allow_scripts: stored.allow_scripts,
        cors: stored
            .cors
            .map(|cors| cors.parse())
            .transpose()
            .map_err(|error: faas::BadCors| error.to_string())?,
        limits: FunctionLimits {
            memory_bytes_max: stored.memory_bytes_max,
            pids_max: stored.pids_max,
            cpu_millis_max: stored.cpu_millis_max,
            tmp_bytes_max: stored.tmp_bytes_max,
            tmp_files_max: stored.tmp_files_max,
            open_files_max: stored.open_files_max,
            deadline: Duration::from_millis(stored.deadline_ms),
            queue_max: stored.queue_max,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_that_may_call_are_stored_and_older_records_name_none() {
        let name: FunctionName = "f".parse().unwrap();
        let mut known = placeholder(&name);
        for cors in [
            None,
            Some("none"),
            Some("*"),
            Some("https://a.example,http://b"),
        ] {
            known.cors = cors.and_then(|text| text.parse().ok());
            assert_eq!(spec(&name, &settings(&known)), Ok(known.clone()));
        }
        known.cors = None;
        let mut older: serde_json::Value = serde_json::from_str(&settings(&known)).unwrap();
        older.as_object_mut().unwrap().remove("cors");
        assert_eq!(spec(&name, &older.to_string()), Ok(known));
        older["cors"] = "nonsense".into();
        let unreadable = spec(&name, &older.to_string());
        assert!(
            matches!(unreadable, Err(Fault::Unreadable(_))),
            "{unreadable:?}"
        );
    }
}
