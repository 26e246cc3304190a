//! What has to be built for a function, read off its manifest.

use crate::interpreter::Interpreter;
use faas::{Package, PrepareError, Runtime};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;

/// A build to make. In `args` and `envs`, `@build` stands for the build folder and `@cache` for
/// what the Go compiler keeps.
pub(crate) struct Recipe {
    /// Tells this result from every other.
    pub(crate) key: String,
    /// What is put into the build folder first: name and contents.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// Whether the code is copied to `code`, where the program then runs.
    pub(crate) copies_code: bool,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) envs: Vec<(&'static str, String)>,
    /// The folder within the build folder that is kept.
    pub(crate) result: &'static str,
    /// Such as `npm could not install the dependencies`.
    pub(crate) complaint: String,
}

/// What has to be installed or compiled for a function; nothing where that costs nothing.
pub(crate) fn of(
    package: &Package,
    interpreter: Option<&Interpreter>,
    go_shim: &str,
) -> Result<Option<Recipe>, PrepareError> {
    let Some(interpreter) = interpreter else {
        return Ok(None);
    };
    match package.spec.runtime {
        Runtime::Nodejs => npm(package, interpreter),
        Runtime::Python3 => Ok(pip(package, interpreter)),
        Runtime::Go => Ok(Some(go(package, interpreter, go_shim))),
        Runtime::Binary | Runtime::Wasm => Ok(None),
    }
}

fn npm(package: &Package, node: &Interpreter) -> Result<Option<Recipe>, PrepareError> {
    let Ok(manifest) = fs::read(package.code.join("package.json")) else {
        return Ok(None);
    };
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).map_err(|error| {
        PrepareError::Code(format!("package.json is not JSON ({error}); mend it"))
    })?;
    let has = |field: &str| {
        parsed[field]
            .as_object()
            .is_some_and(|wanted| !wanted.is_empty())
    };
    let wants = has("dependencies") || has("optionalDependencies");
    if !wants || package.code.join("node_modules").is_dir() {
        return Ok(None);
    }
    let mut files = vec![("package.json", manifest)];
    let lock = ["npm-shrinkwrap.json", "package-lock.json"]
        .into_iter()
        .find_map(|name| Some((name, fs::read(package.code.join(name)).ok()?)));
    let command = if lock.is_some() { "ci" } else { "install" };
    files.extend(lock);
    let npm = find_npm(node).ok_or_else(|| {
        let fix = "install npm (Debian: apt install npm), or put node_modules into the archive";
        PrepareError::Runtime(format!(
            "package.json names dependencies, but npm is not here: {fix}"
        ))
    })?;
    let args = [
        command,
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--loglevel=error",
    ];
    let args = std::iter::once(npm.display().to_string()).chain(args.map(String::from));
    Ok(Some(Recipe {
        key: key(
            &["nodejs", &node.version],
            files.iter().map(|(_, contents)| contents.as_slice()),
        ),
        files,
        copies_code: false,
        program: node.executable.clone(),
        args: args.collect(),
        envs: vec![("npm_config_cache", "@build/.npm".into())],
        result: "node_modules",
        complaint: "npm could not install the dependencies in package.json".into(),
    }))
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

fn pip(package: &Package, python: &Interpreter) -> Option<Recipe> {
    let requirements = fs::read(package.code.join("requirements.txt")).ok()?;
    let text = String::from_utf8_lossy(&requirements);
    let mut wanted = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    let first = wanted.next()?;
    // Lines that name other files make the result depend on the code.
    let names_files = |line: &str| line.starts_with(['-', '.', '/']);
    let depends_on_code = names_files(first) || wanted.any(names_files);
    let code = if depends_on_code {
        package.digest.as_str()
    } else {
        ""
    };
    let args = [
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-warn-script-location",
        "--quiet",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "--target",
        "@build/packages",
        "-r",
        "requirements.txt",
    ];
    Some(Recipe {
        key: key(&["python3", &python.version, code], [requirements.as_slice()]),
        files: Vec::new(),
        copies_code: true,
        program: python.executable.clone(),
        args: args.map(String::from).to_vec(),
        envs: Vec::new(),
        result: "packages",
        complaint: "pip could not install what requirements.txt names (if pip is missing: apt install python3-pip)".into(),
    })
}

fn go(package: &Package, go: &Interpreter, shim: &str) -> Recipe {
    let mut files = vec![("code/tinyfaas_shim.go", shim.as_bytes().to_vec())];
    if !package.code.join("go.mod").exists() {
        files.push(("code/go.mod", b"module fn\n\ngo 1.18\n".to_vec()));
    }
    let args = [
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-o",
        "@build/out/fn",
        ".",
    ];
    Recipe {
        key: key(&["go", &go.version, &package.digest], [shim.as_bytes()]),
        files,
        copies_code: true,
        program: go.executable.clone(),
        args: args.map(String::from).to_vec(),
        envs: vec![
            ("GOCACHE", "@cache".into()),
            ("GOMODCACHE", "@build/mod".into()),
            ("GOPATH", "@build/go".into()),
            ("GOTMPDIR", "@build/tmp".into()),
            ("GOTOOLCHAIN", "local".into()),
            ("CGO_ENABLED", "0".into()),
        ],
        result: "out",
        complaint: "go could not compile the function".into(),
    }
}

fn key<'a>(words: &'a [&'a str], contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in words.iter().map(|word| word.as_bytes()).chain(contents) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let name = words.first().copied().unwrap_or_default();
    let hex: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{name}-{}-{}", std::env::consts::ARCH, &hex[..40])
}
