//! What has to be built for a function, read off its manifest.
//!
//! A build sees what its key holds: where the result depends on a manifest alone, the manifest is
//! all that there is in its folder; else it gets a copy of the whole code, and the key holds the
//! code's digest.

mod go;
mod npm;
mod pip;
mod requirements;

pub(crate) use go::{library, library_key, standard_packages};
pub(crate) use npm::with_scripts;
pub(crate) use pip::PIP_CONFIG;

use crate::interpreter::Interpreter;
use faas::{Package, PrepareError, Runtime};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A build to make. In `args` and `envs` stand `@code` for the folder with the code, where the
/// program runs, `@deps` for an empty one, `@build` for one that is thrown away.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Tells this result from every other.
    pub(crate) key: String,
    /// Whether the function's code is copied to `@code`.
    pub(crate) copies_code: bool,
    /// What is put into `@code` then: path and contents.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) envs: Vec<(&'static str, String)>,
    pub(crate) result: Place,
    /// Such as `npm could not install the dependencies`.
    pub(crate) complaint: String,
    /// What whoever deploys the function should know.
    pub(crate) notes: Vec<String>,
}

/// What of a build is kept, and where a handler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The folder `node_modules`, beside the code.
    Modules,
    /// The whole code as the build left it, in the place of the code.
    Code,
    /// What lies in `@deps`.
    Deps,
}

/// What of this host a build's result depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) interpreter: &'a Interpreter,
    /// The variables that were set for builds.
    pub(crate) envs: &'a [(String, String)],
    pub(crate) go_shim: &'a str,
}

/// What has to be installed or compiled for a function; nothing where that costs nothing.
pub(crate) fn of(package: &Package, means: Means<'_>) -> Result<Option<Recipe>, PrepareError> {
    match package.spec.runtime {
        Runtime::Nodejs => npm::recipe(package, means),
        Runtime::Python3 => pip::recipe(package, means),
        Runtime::Go => Ok(Some(go::recipe(package, means))),
        Runtime::Binary | Runtime::Wasm => Ok(None),
    }
}

/// A file of the code; nothing where it is missing, or a link leads to it from outside.
fn file(code: &Path, name: &str) -> Option<Vec<u8>> {
    let root = code.canonicalize().ok()?;
    let path = root.join(name).canonicalize().ok()?;
    let is_inside = path.starts_with(&root) && path.is_file();
    is_inside.then(|| fs::read(path).ok())?
}

/// Without the mark that some editors put at the start of a text.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Puts together what a result depends on. The first word is the runtime.
fn key<'a>(
    words: &[&str],
    envs: &[(String, String)],
    contents: impl IntoIterator<Item = &'a [u8]>,
) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    words.iter().for_each(|word| add(word.as_bytes()));
    // A proxy changes the way, not what arrives.
    let is_proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
    for (name, value) in envs.iter().filter(|(name, _)| !is_proxy(name)) {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    contents.into_iter().for_each(add);
    let name = words.first().copied().unwrap_or_default();
    let hex = hex(&digest.finalize());
    format!("{name}-{}-{}", std::env::consts::ARCH, &hex[..40])
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
