//! What of this host builds a function.

use crate::interpreter::Interpreter;
use crate::node::Node;
use builds::{Npm, Toolchain};
use faas::Runtime;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Where pip is told which index to use.
pub(crate) const PIP_CONFIG: &str = "/etc/pip.conf";

/// The toolchain of a runtime.
pub(crate) fn of<'a>(
    node: &'a Node,
    runtime: Runtime,
    interpreter: &'a Interpreter,
) -> Toolchain<'a> {
    let npm = (runtime == Runtime::Nodejs).then(|| find_npm(interpreter));
    let has_pip = runtime == Runtime::Python3;
    let pip_config = has_pip.then(|| fs::read(PIP_CONFIG).unwrap_or_default());
    Toolchain {
        program: interpreter.executable.clone(),
        version: &interpreter.version,
        npm: npm.flatten().map(|npm| Npm {
            program: interpreter.executable.clone(),
            args: vec![npm.display().to_string()],
            version: version_of(&npm),
        }),
        pip_config: pip_config.unwrap_or_default(),
        pip_fix: "apt install python3-pip",
        envs: &node.build_envs,
        go_shim: node.shims.go_source(),
    }
}

/// The `npm` that came with this `node`, or the one on `PATH` if functions' builds can see it.
fn find_npm(node: &Interpreter) -> Option<PathBuf> {
    let beside = node.executable.parent()?.join("npm");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("npm"));
    let visible = |npm: &PathBuf| {
        npm.starts_with("/usr") || node.prefixes.iter().any(|prefix| npm.starts_with(prefix))
    };
    let found = std::iter::once(beside)
        .chain(on_path)
        .filter_map(|npm| npm.canonicalize().ok());
    found.into_iter().find(visible)
}

/// The version of an npm, which decides how packages are laid out; empty where it does not say.
fn version_of(npm: &Path) -> String {
    let manifest = npm.parent().and_then(Path::parent);
    let manifest = manifest.and_then(|folder| fs::read(folder.join("package.json")).ok());
    let parsed = manifest.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let version = parsed.and_then(|parsed| Some(parsed["version"].as_str()?.to_owned()));
    version.unwrap_or_default()
}
