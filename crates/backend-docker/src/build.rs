//! What has to be installed or compiled before a function runs: in a container of its runtime's
//! image, into the volume with its code, once for each digest.

use crate::container::{Container, Plan, Target};
use crate::engine::Engine;
use crate::network::Network;
use crate::shim;
use crate::volume::{Entry, Source, Volume};
use faas::{Limits, Package, PrepareError, Runtime};
use std::sync::Arc;

/// The folder in the code's volume that has what was built.
pub(crate) const BUILT: &str = ".tinyfaas";

/// The lines of a failed build that its error shows.
const LAST_LINES: usize = 30;

/// A command and what it wants.
#[derive(Debug)]
pub(crate) struct Recipe {
    command: Vec<String>,
    envs: Vec<String>,
    /// What has to be beside the code first.
    pub(crate) entries: Vec<Entry>,
    /// Such as `npm could not install the dependencies`.
    complaint: &'static str,
}

/// What has to be built for a function; nothing where that costs nothing.
pub(crate) fn recipe(package: &Package) -> Result<Option<Recipe>, PrepareError> {
    match package.spec.runtime {
        Runtime::Nodejs => npm(package),
        Runtime::Python3 => Ok(pip(package)),
        Runtime::Go => Ok(Some(go(package))),
        Runtime::Binary | Runtime::Wasm => Ok(None),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn npm(package: &Package) -> Result<Option<Recipe>, PrepareError> {
    let Ok(manifest) = std::fs::read(package.code.join("package.json")) else {
        return Ok(None);
    };
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).map_err(|error| {
        PrepareError::Code(format!("package.json is not JSON ({error}); mend it"))
    })?;
    let names_some = |field: &str| {
        let wanted = parsed[field].as_object();
        wanted.is_some_and(|wanted| !wanted.is_empty())
    };
    let is_wanted = names_some("dependencies") || names_some("optionalDependencies");
    if !is_wanted || package.code.join("node_modules").is_dir() {
        return Ok(None);
    }
    let locks = ["npm-shrinkwrap.json", "package-lock.json"];
    let is_locked = locks.iter().any(|lock| package.code.join(lock).is_file());
    let mut command = words(&[
        "npm",
        if is_locked { "ci" } else { "install" },
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--loglevel=error",
    ]);
    if !package.spec.allow_scripts {
        command.push("--ignore-scripts".to_owned());
    }
    Ok(Some(Recipe {
        command,
        envs: words(&["npm_config_cache=/tmp/npm"]),
        entries: Vec::new(),
        complaint: "npm could not install the dependencies in package.json",
    }))
}

fn pip(package: &Package) -> Option<Recipe> {
    let requirements = std::fs::read_to_string(package.code.join("requirements.txt")).ok()?;
    let mut lines = requirements.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let mut command = words(&[
        "python3",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-warn-script-location",
        "--quiet",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "-r",
        "requirements.txt",
        "--target",
    ]);
    command.push(format!("/fn/{BUILT}"));
    Some(Recipe {
        command,
        envs: Vec::new(),
        entries: Vec::new(),
        complaint: "pip could not install what requirements.txt names",
    })
}

fn go(package: &Package) -> Recipe {
    let entry = |path: &str, text: &str| Entry {
        path: path.into(),
        mode: 0o444,
        source: Source::Bytes(text.as_bytes().to_vec()),
    };
    let mut entries = vec![entry("tinyfaas_shim.go", shim::GO)];
    if !package.code.join("go.mod").exists() {
        entries.push(entry("go.mod", "module fn\n\ngo 1.18\n"));
    }
    let mut command = words(&[
        "go",
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
    ]);
    command.extend(["-o".to_owned(), format!("/fn/{BUILT}/fn"), ".".to_owned()]);
    Recipe {
        command,
        envs: words(&[
            "GOCACHE=/tmp/cache",
            "GOMODCACHE=/tmp/mod",
            "GOPATH=/tmp/go",
            "GOTMPDIR=/tmp",
            "GOTOOLCHAIN=local",
            "CGO_ENABLED=0",
        ]),
        entries,
        complaint: "go could not compile the function",
    }
}

/// Runs a recipe in the volume with the code.
pub(crate) async fn run(
    engine: &Arc<Engine>,
    limits: &Limits,
    package: &Package,
    (recipe, image, code): (Recipe, &str, &Volume),
) -> Result<(), PrepareError> {
    let id: Arc<str> = engine.id("build").into();
    let mut envs = words(&["HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8"]);
    envs.extend(recipe.envs);
    // It fetches what it installs. On a network of its own it meets no other container: not the
    // management service of the original's command, which is on the engine's default one.
    let network = Network::create(engine, "build", true, None).await?;
    let plan = Plan {
        name: engine.unique(&id),
        image: image.to_owned(),
        command: recipe.command,
        envs,
        mounts: vec![code.mount("/fn", true)],
        network: network.name.clone(),
        user: Some("0:0"),
        is_read_only: true,
        limits: limits.of_build(),
        labels: engine.labels(),
    };
    let target = Target {
        log: Arc::clone(&package.log),
        handler: Arc::clone(&id),
    };
    let mut container = Container::start(engine, plan, target).await?;
    let exit = match tokio::time::timeout(limits.builds.time, container.wait()).await {
        Ok(exit) if exit.is_success => return Ok(()),
        Ok(exit) => exit.text,
        Err(_elapsed) => {
            container.kill();
            container.wait().await;
            format!("it took longer than {} s", limits.builds.time.as_secs())
        }
    };
    let output = package.log.last_text(&id, LAST_LINES);
    let fix = package.build_fix(&output);
    let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
    Err(PrepareError::Build {
        message: format!("{} ({exit}){fix}", recipe.complaint),
        output,
    })
}
