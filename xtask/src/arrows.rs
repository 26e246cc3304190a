//! The arrows between our crates: who may see whom.

use anyhow::{Context, Result};
use serde_json::Value;

/// A crate and those of ours that it may depend on, also for its tests.
const ALLOWED: [(&str, &[&str]); 15] = [
    (
        "bench",
        &[
            "backend-wasm",
            "coap",
            "endpoints",
            "faas",
            "handler-protocol",
            "net",
        ],
    ),
    ("faas", &[]),
    ("auth", &["faas"]),
    ("builds", &["faas"]),
    ("coap", &["net"]),
    ("net", &[]),
    ("handler-protocol", &["auth", "faas", "net"]),
    ("runtime-binary", &["auth", "handler-protocol", "faas"]),
    ("endpoints", &["faas", "coap", "net"]),
    (
        "backend-process",
        &[
            "builds",
            "faas",
            "handler-protocol",
            "net",
            "runtime-binary",
        ],
    ),
    (
        "backend-docker",
        &[
            "auth",
            "builds",
            "faas",
            "handler-protocol",
            "runtime-binary",
        ],
    ),
    ("backend-wasm", &["faas", "net"]),
    ("control", &["auth", "faas", "handler-protocol"]),
    ("management", &["auth", "faas", "net"]),
    (
        "tinyfaas",
        &[
            "auth",
            "backend-docker",
            "backend-process",
            "backend-wasm",
            "coap",
            "control",
            "endpoints",
            "faas",
            "handler-protocol",
            "management",
            "net",
            "runtime-binary",
        ],
    ),
];

/// Crates that stand outside: they drive the program and see none of its crates.
const OUTSIDE: [&str; 2] = ["e2e", "xtask"];

/// The arrows that are not allowed, as texts; `metadata` is what `cargo metadata --no-deps` prints.
///
/// # Errors
/// If the metadata is not understood.
pub(crate) fn broken(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let name = |value: &Value| value["name"].as_str().map(str::to_owned);
    let ours: Vec<String> = packages.iter().filter_map(name).collect();
    let mut findings = Vec::new();
    for package in packages {
        let from = name(package).context("a package without a name")?;
        let Some(allowed) = allowed(&from) else {
            let text = format!("{from}: xtask/src/arrows.rs does not say what it may depend on");
            findings.push(text);
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("dependencies")?;
        for to in dependencies.iter().filter_map(name) {
            if ours.contains(&to) && !allowed.contains(&to.as_str()) {
                findings.push(format!(
                    "{from} may not depend on {to}: see ARCHITECTURE.md"
                ));
            }
        }
    }
    Ok(findings)
}

fn allowed(from: &str) -> Option<&'static [&'static str]> {
    if OUTSIDE.contains(&from) {
        return Some(&[]);
    }
    let entry = ALLOWED.iter().find(|(name, _)| *name == from);
    entry.map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_is_not_allowed_is_found() {
        let metadata = r#"{"packages": [
            {"name": "faas", "dependencies": [{"name": "bytes"}]},
            {"name": "management", "dependencies": [{"name": "faas"}, {"name": "endpoints"}]},
            {"name": "endpoints", "dependencies": []},
            {"name": "stranger", "dependencies": []}
        ]}"#;
        let findings = broken(metadata).unwrap();
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("management may not depend on endpoints"));
        assert!(findings[1].contains("stranger"));
    }
}
