//! Which settings a function of a runtime has: one that would do nothing is refused, not taken.
//!
//! The table of `docs/reference/api.md` says the same for people.

use crate::bad_field::BadField;
use crate::named::Named;
use faas::{FunctionSpec, Runtime};

/// A limit that a WebAssembly function does not have, by its name in the API, and why.
const NOT_OF_WASM: [(&str, &str); 4] = [
    ("pids", "it starts no processes"),
    ("tmp", "it has no files"),
    ("tmp_files", "it has no files"),
    ("open_files", "it has no files"),
];

/// Refuses what was named and does nothing for the function, whose runtime is known now.
pub(crate) fn check(spec: &FunctionSpec, named: &Named, backend: &str) -> Result<(), BadField> {
    let runtime = spec.runtime;
    if spec.allow_scripts && named.has(&["allow_scripts"]) && runtime != Runtime::Nodejs {
        let reason = format!("the runtime {runtime} has no install scripts: it is for nodejs");
        return Err(BadField::new("allow_scripts", reason, "leave it out"));
    }
    if !spec.allow_hosts.is_empty() && runtime != Runtime::Wasm {
        let reason = format!("the runtime {runtime} can't be bound to hosts");
        let fix = "leave it out; network=true allows every host";
        return Err(BadField::new("allow_hosts", reason, fix));
    }
    match runtime {
        Runtime::Wasm => check_wasm(spec, named),
        Runtime::Nodejs | Runtime::Python3 | Runtime::Go | Runtime::Binary => {
            check_containers(spec, backend)
        }
    }
}

fn check_wasm(spec: &FunctionSpec, named: &Named) -> Result<(), BadField> {
    if spec.network.is_host() || !spec.network.host_ports().is_empty() {
        let reason = "a WebAssembly function has no network of the host";
        let fix = "name what it may send requests to with allow_hosts";
        return Err(BadField::new("network", reason, fix));
    }
    if spec.network.is_on() && named.has(&["network"]) {
        let reason = "a WebAssembly function opens no connections of its own";
        let fix = "name what it may send requests to with allow_hosts";
        return Err(BadField::new("network", reason, fix));
    }
    let found = NOT_OF_WASM.iter().find(|(name, _)| named.has(&[name]));
    match found {
        None => Ok(()),
        Some((name, why)) => {
            let reason = format!("a WebAssembly function has no such limit: {why}");
            Err(BadField::new(*name, reason, "leave it out"))
        }
    }
}

fn check_containers(spec: &FunctionSpec, backend: &str) -> Result<(), BadField> {
    let is_on_host = spec.network.is_host() || !spec.network.host_ports().is_empty();
    if backend != "docker" || !is_on_host {
        return Ok(());
    }
    let field = if spec.network.is_host() {
        "host_network"
    } else {
        "host_ports"
    };
    let reason = "containers have neither the host's network nor ports of its loopback";
    let fix = "leave it out, or run tinyFaaS with --backend process";
    Err(BadField::new(field, reason, fix))
}
