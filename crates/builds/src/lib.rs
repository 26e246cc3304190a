//! What has to be built for a function, read off its manifest; what the result depends on; and what
//! is said about a build that failed; which builds have their turn; and which system calls untrusted
//! code may make. How a build is run and kept is its backend's.
//!
//! A build sees what its key holds: where the result depends on a manifest alone, the manifest is
//! all that there is in its folder; else it gets a copy of the whole code, and the key holds the
//! code's digest.

pub mod calls;
mod go;
mod npm;
mod outcome;
mod pip;
mod requirements;
mod turns;

pub use go::{library, library_key, standard_packages};
pub use npm::{INSTALLED_LIST, unrun_scripts};
pub use outcome::{LAST_LINES, Why, failed, with_notes};
pub use turns::{Turn, Turns};

use faas::{Package, PrepareError, Runtime};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A build to make. In `args` and `envs` stand `@code` for the folder with the code, where the
/// program runs, `@deps` for an empty one, `@build` for one that is thrown away.
#[derive(Debug)]
pub struct Recipe {
    /// Tells this result from every other.
    pub key: String,
    /// Whether the function's code is copied to `@code`.
    pub copies_code: bool,
    /// What is put into `@code` then: path and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What is executed.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables, beside the usual ones.
    pub envs: Vec<(&'static str, String)>,
    /// What is kept.
    pub result: Place,
    /// Such as `npm could not install the dependencies`.
    pub complaint: String,
    /// What whoever deploys the function should know.
    pub notes: Vec<String>,
}

/// What of a build is kept, and where a handler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The folder `node_modules`, beside the code.
    Modules,
    /// The whole code as the build left it, in the place of the code.
    Code,
    /// What lies in `@deps`.
    Deps,
}

/// What builds a function, and what of it the result depends on. Paths are as the build sees them.
#[derive(Debug)]
pub struct Toolchain<'a> {
    /// The interpreter or compiler.
    pub program: PathBuf,
    /// Tells it from every other: its version, or the image that it is in.
    pub version: &'a str,
    /// Nothing where it is missing, or another runtime is meant.
    pub npm: Option<Npm>,
    /// What pip is configured with, where the version does not tell.
    pub pip_config: Vec<u8>,
    /// What to do where pip is missing.
    pub pip_fix: &'static str,
    /// The variables that were set for builds.
    pub envs: &'a [(String, String)],
    /// The source that is compiled together with a Go function.
    pub go_shim: &'a str,
}

/// How npm is called.
#[derive(Debug)]
pub struct Npm {
    /// What is executed.
    pub program: PathBuf,
    /// Arguments that come before npm's own.
    pub args: Vec<String>,
    /// Decides how packages are laid out; empty where the version of the toolchain tells.
    pub version: String,
}

/// What has to be installed or compiled for a function; nothing where that costs nothing.
///
/// # Errors
/// With what to do, where a manifest is not valid, a lock file is not obeyed, or npm is missing.
pub fn recipe(
    package: &Package,
    toolchain: &Toolchain<'_>,
) -> Result<Option<Recipe>, PrepareError> {
    match package.spec.runtime {
        Runtime::Nodejs => npm::recipe(package, toolchain),
        Runtime::Python3 => pip::recipe(package, toolchain),
        Runtime::Go => Ok(Some(go::recipe(package, toolchain))),
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
    let hex = faas::hex(&digest.finalize());
    format!("{name}-{}-{}", std::env::consts::ARCH, &hex[..40])
}

#[cfg(test)]
mod tests;
