//! npm's packages, as `package.json` and npm's lock files name them.

use super::{Npm, Place, Recipe, Toolchain, file, key, without_mark};
use faas::{Package, PrepareError, Runtime};
use serde_json::Value;
use std::ffi::CStr;
use std::path::Path;

/// The lock files that npm obeys to the letter, the one that wins first.
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];

/// The lock files that npm does not obey.
const FOREIGN_LOCKS: [&str; 5] = [
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
    "deno.lock",
];

/// The lists of packages that npm looks at for an installation.
const LISTS: [&str; 4] = [
    "dependencies",
    "optionalDependencies",
    "peerDependencies",
    "devDependencies",
];

/// Where npm leaves the list of what it installed, below the code.
pub const INSTALLED_LIST: [&CStr; 2] = [c"node_modules", c".package-lock.json"];

/// The scripts that an installation runs.
const SCRIPTS: [&str; 7] = [
    "preinstall",
    "install",
    "postinstall",
    "prepublish",
    "preprepare",
    "prepare",
    "postprepare",
];

/// The settings of an `.npmrc` that name no file.
const PLAIN_SETTINGS: [&str; 22] = [
    "always-auth",
    "audit",
    "engine-strict",
    "fetch-retries",
    "fetch-timeout",
    "force",
    "fund",
    "include",
    "install-strategy",
    "legacy-peer-deps",
    "loglevel",
    "maxsockets",
    "omit",
    "prefer-dedupe",
    "prefer-offline",
    "prefer-online",
    "progress",
    "registry",
    "save-exact",
    "strict-peer-deps",
    "strict-ssl",
    "update-notifier",
];

pub(super) fn recipe(
    package: &Package,
    toolchain: &Toolchain<'_>,
) -> Result<Option<Recipe>, PrepareError> {
    let code = package.code.as_path();
    let Some(manifest) = file(code, "package.json") else {
        return Ok(None);
    };
    let parsed: Value = serde_json::from_slice(without_mark(&manifest)).map_err(|error| {
        PrepareError::code(
            format!("package.json is not valid JSON ({error})"),
            "correct it",
        )
    })?;
    let allows = package.spec.allow_scripts;
    let script = own_script(code, &parsed);
    let is_wanted = names_packages(&parsed) || (allows && script.is_some());
    if !is_wanted || code.join("node_modules").is_dir() {
        return Ok(None);
    }
    let lock = lock(code)?;
    let npm = toolchain.npm.as_ref().ok_or_else(|| {
        let fix = "install npm (Debian: apt install npm), or put node_modules into the archive";
        PrepareError::runtime("package.json names dependencies, but npm is not here", fix)
    })?;
    let settings = file(code, ".npmrc");
    let is_plain = !allows
        && is_plain_manifest(&parsed)
        && lock.as_ref().is_none_or(|(_, lock)| is_plain_lock(lock))
        && settings.as_deref().is_none_or(is_plain_npmrc);
    let command = if lock.is_some() { "ci" } else { "install" };
    let mut files = vec![("package.json".to_owned(), manifest)];
    files.extend(lock.map(|(name, lock)| (name.to_owned(), lock)));
    files.extend(settings.map(|settings| (".npmrc".to_owned(), settings)));
    let (digest, scripts) = match (is_plain, allows) {
        (true, _) => ("", "plain"),
        (false, false) => (package.digest.as_str(), "without scripts"),
        (false, true) => (package.digest.as_str(), "with scripts"),
    };
    let words = ["nodejs", toolchain.version, &npm.version, digest, scripts];
    let contents = files
        .iter()
        .flat_map(|(name, contents)| [name.as_bytes(), contents.as_slice()]);
    let note = script.filter(|_| !allows).map(|script| {
        format!(
            "package.json has the script \"{script}\", which was not run; if the function needs it, \
             deploy it with --allow-scripts"
        )
    });
    Ok(Some(Recipe {
        key: key(&words, toolchain.envs, contents),
        copies_code: !is_plain,
        files: if is_plain { files } else { Vec::new() },
        program: npm.program.clone(),
        args: args(npm, command, allows),
        envs: vec![
            ("npm_config_cache", "@build/npm".into()),
            ("npm_config_update_notifier", "false".into()),
        ],
        result: if is_plain {
            Place::Modules
        } else {
            Place::Code
        },
        complaint: "npm could not install the dependencies in package.json".into(),
        notes: note.into_iter().collect(),
    }))
}

fn args(npm: &Npm, command: &str, allows_scripts: bool) -> Vec<String> {
    let scripts = if allows_scripts {
        "--foreground-scripts"
    } else {
        "--ignore-scripts"
    };
    let args = [
        command,
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--loglevel=error",
        scripts,
    ];
    let before = npm.args.iter().cloned();
    before.chain(args.map(String::from)).collect()
}

/// Whether there is anything to install.
fn names_packages(manifest: &Value) -> bool {
    let has = |field: &str| {
        let list = manifest[field].as_object();
        list.is_some_and(|list| !list.is_empty())
    };
    let is_root = manifest.get("workspaces").is_some();
    is_root || LISTS[..3].iter().any(|list| has(list))
}

/// The first script of the function's own that an installation would run.
fn own_script(code: &Path, manifest: &Value) -> Option<&'static str> {
    let named = SCRIPTS
        .into_iter()
        .find(|script| manifest["scripts"][script].is_string());
    let implied = code.join("binding.gyp").is_file().then_some("install");
    named.or(implied)
}

/// The lock file to obey; fails where only one is there that npm does not obey.
fn lock(code: &Path) -> Result<Option<(&'static str, Vec<u8>)>, PrepareError> {
    let found = LOCKS
        .into_iter()
        .find_map(|name| Some((name, file(code, name)?)));
    let is_there = |name: &&str| code.join(name).is_file();
    match (found, FOREIGN_LOCKS.into_iter().find(is_there)) {
        (None, Some(foreign)) => Err(PrepareError::code(
            format!("tinyFaaS installs packages with npm, which does not obey {foreign}"),
            "put a package-lock.json beside it (npm install --package-lock-only), or put \
             node_modules into the archive",
        )),
        (found, _) => Ok(found),
    }
}

/// Whether what npm installs by this manifest depends on no other file of the code.
fn is_plain_manifest(manifest: &Value) -> bool {
    let is_plain_list = |list: &Value| match list {
        Value::Null => true,
        Value::Object(list) => list
            .values()
            .all(|wanted| wanted.as_str().is_some_and(is_plain_version)),
        _ => false,
    };
    manifest.get("workspaces").is_none()
        && LISTS.iter().all(|list| is_plain_list(&manifest[list]))
        && are_plain_overrides(&manifest["overrides"])
}

fn are_plain_overrides(overrides: &Value) -> bool {
    match overrides {
        Value::Null => true,
        Value::String(wanted) => is_plain_version(wanted.trim_start_matches('$')),
        Value::Object(nested) => nested.values().all(are_plain_overrides),
        _ => false,
    }
}

/// Whether that is a version, a range, a tag or another name for a package of the registry:
/// neither a folder, a file nor an address.
fn is_plain_version(wanted: &str) -> bool {
    let (wanted, more) = match wanted.strip_prefix("npm:") {
        Some(alias) => (alias, "@/"),
        None => (wanted, ""),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " .*^~<>=|+-_".contains(c);
    let is_archive = [".tgz", ".tar.gz", ".tar"]
        .iter()
        .any(|ending| wanted.to_ascii_lowercase().ends_with(ending));
    wanted.chars().all(|c| is_plain(c) || more.contains(c))
        && !wanted.starts_with('.')
        && !is_archive
}

/// Whether a lock file names packages of the registry alone.
fn is_plain_lock(lock: &[u8]) -> bool {
    let text = String::from_utf8_lossy(lock);
    !["file:", "\"link\"", "workspace"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// Whether every setting is known to name no file.
fn is_plain_npmrc(settings: &[u8]) -> bool {
    let text = String::from_utf8_lossy(without_mark(settings)).into_owned();
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| {
        let name = line.split('=').next().unwrap_or_default().trim();
        let is_comment = line.is_empty() || line.starts_with(['#', ';']);
        let is_of_registry = name.starts_with("//") || name.ends_with(":registry");
        let names_file = name.ends_with("file");
        is_comment || PLAIN_SETTINGS.contains(&name) || (is_of_registry && !names_file)
    })
}

/// What whoever deploys the function should know of scripts that packages wanted to run and that
/// were not run, by the list that npm left.
#[must_use]
pub fn unrun_scripts(package: &Package, list: &[u8]) -> Option<String> {
    if package.spec.runtime != Runtime::Nodejs || package.spec.allow_scripts {
        return None;
    }
    let names = with_scripts(list);
    let fix = "if the function needs them, deploy it with --allow-scripts";
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("the install scripts of these packages were not run: {names}; {fix}")
    })
}

/// The packages that wanted to run a script when they were installed, by the list that npm leaves
/// in `node_modules`.
pub(super) fn with_scripts(list: &[u8]) -> Vec<String> {
    let parsed: Value = serde_json::from_slice(list).unwrap_or_default();
    let packages = parsed["packages"].as_object().into_iter().flatten();
    let wanting = packages.filter(|(_, package)| package["hasInstallScript"] == true);
    let mut names: Vec<String> = wanting
        .map(|(path, _)| {
            let name = path.rsplit("node_modules/").next().unwrap_or(path);
            name.to_owned()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
