//! Installs what a function's manifest asks for, or compiles it, in a sandbox of its own that has
//! network; keeps the results.

use crate::backend::Node;
use crate::cache::Kept;
use crate::interpreter::Interpreter;
use crate::output::Target;
use crate::process::Order;
use crate::recipe::{self, Recipe};
use crate::sandbox::{Bind, Plan, Program, SandboxMode};
use faas::{Package, PrepareError};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often the size of what a build writes is looked at.
const SIZE_INTERVAL: Duration = Duration::from_secs(2);
/// How many of a failed build's last lines its deployer sees.
const LAST_LINES: usize = 40;

/// Where pip is told which index to use.
const PIP_CONFIG: &str = "/etc/pip.conf";

/// Variables of tinyFaaS's own environment that builds see: where packages come from and whom to
/// trust. Those that end in `_` are beginnings.
const PASSED_ON: [&str; 16] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "GOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
    "GOFLAGS",
    "PIP_",
    "NPM_CONFIG_",
];

/// Makes what the function needs beside its code; nothing where it needs nothing.
pub(crate) async fn install(
    node: &Node,
    package: &Package,
    interpreter: Option<&Interpreter>,
) -> Result<Option<Arc<Kept>>, PrepareError> {
    let (Some(recipe), Some(interpreter)) = (
        recipe::of(package, interpreter, node.shims.go_source())?,
        interpreter,
    ) else {
        return Ok(None);
    };
    if let Some(kept) = node.cache.get(&recipe.key) {
        return Ok(Some(kept));
    }
    let _turn = node
        .build_turns
        .acquire()
        .await
        .map_err(|_closed| stopping())?;
    if let Some(kept) = node.cache.get(&recipe.key) {
        return Ok(Some(kept));
    }
    let started = std::time::Instant::now();
    let staging = run(node, package, interpreter, &recipe).await?;
    let kept = node.cache.keep(&recipe.key, staging, recipe.result);
    let kept = kept.map_err(|error| host(package, "keep what was built", &error))?;
    let seconds = started.elapsed().as_secs_f32();
    tracing::info!(function = %package.spec.name, seconds, "built");
    Ok(Some(kept))
}

/// Runs the recipe in a folder of its own, which is returned; dropping that removes it.
async fn run(
    node: &Node,
    package: &Package,
    interpreter: &Interpreter,
    recipe: &Recipe,
) -> Result<tempfile::TempDir, PrepareError> {
    let (staging, go_cache) = (node.cache.staging(), node.cache.go_build());
    let staging = staging.map_err(|error| host(package, "make a folder for the build", &error))?;
    let folder = staging.path().to_owned();
    lay_out(&folder, package, recipe, node.build_id())
        .map_err(|error| host(package, "lay out the build", &error))?;
    let order = Order {
        plan: plan(node, &folder, &go_cache, interpreter, recipe),
        limits: &node.limits.of_build(),
        host_id: node.build_id(),
        scratch: None,
        protocol: File::open("/dev/null")
            .map_err(|e| host(package, "open /dev/null", &e))?
            .into(),
        output: Target {
            log: Arc::clone(&package.log),
            handler: node.next_id("build"),
        },
    };
    let id = Arc::clone(&order.output.handler);
    let started = node.sandbox.start(order).await;
    let mut process = started.map_err(|error| node.explain(package, &error))?;
    let failed = |message: String| PrepareError::Build {
        message,
        output: package.log.last_text(&id, LAST_LINES),
    };
    let bytes_max = node.limits.build_bytes_max;
    tokio::select! {
        exit = process.ended() => {
            if !exit.is_success {
                let fix = package.build_fix(&package.log.last_text(&id, LAST_LINES));
                let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
                return Err(failed(format!("{} ({}){fix}", recipe.complaint, exit.text)));
            }
        }
        () = tokio::time::sleep(node.limits.build) => {
            let seconds = node.limits.build.as_secs();
            return Err(failed(format!("{} within {seconds} s", recipe.complaint)));
        }
        () = outgrown(&folder, bytes_max) => {
            return Err(failed(format!("the build wrote more than {} MiB", bytes_max >> 20)));
        }
    }
    if !folder.join(recipe.result).exists() {
        fs::create_dir(folder.join(recipe.result))
            .map_err(|error| host(package, "lay out the build", &error))?;
    }
    Ok(staging)
}

fn lay_out(
    folder: &Path,
    package: &Package,
    recipe: &Recipe,
    owner: Option<u32>,
) -> io::Result<()> {
    for name in ["tmp", "home", "code"] {
        fs::create_dir(folder.join(name))?;
    }
    if recipe.copies_code {
        copy_tree(&package.code, &folder.join("code"))?;
    }
    for (name, contents) in &recipe.files {
        fs::write(folder.join(name), contents)?;
    }
    match owner {
        Some(owner) => crate::cache::give_to(folder, owner),
        None => Ok(()),
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).map_err(io::Error::other)?);
        if entry.file_type().is_dir() {
            fs::create_dir(target)?;
        } else if entry.file_type().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn plan(
    node: &Node,
    folder: &Path,
    go_cache: &Path,
    interpreter: &Interpreter,
    recipe: &Recipe,
) -> Plan {
    let is_reduced = node.mode == SandboxMode::Reduced;
    let target = |seen: &str, source: &Path| {
        if is_reduced {
            source.to_owned()
        } else {
            PathBuf::from(seen)
        }
    };
    let (build, cache) = (target("/build", folder), target("/cache", go_cache));
    let mut binds = vec![
        Bind {
            source: folder.to_owned(),
            target: build.clone(),
            is_writable: true,
        },
        Bind {
            source: go_cache.to_owned(),
            target: cache.clone(),
            is_writable: true,
        },
    ];
    binds.extend(interpreter.prefixes.iter().map(|prefix| Bind {
        source: prefix.clone(),
        target: prefix.clone(),
        is_writable: false,
    }));
    // It may hold a password of a package index, so only builds see it.
    let pip = PathBuf::from(PIP_CONFIG);
    if pip.exists() {
        binds.push(Bind {
            source: pip.clone(),
            target: pip,
            is_writable: false,
        });
    }
    let places = [
        ("@build", build.display().to_string()),
        ("@cache", cache.display().to_string()),
    ];
    let here = |text: &str| {
        places.iter().fold(text.to_owned(), |text, (name, place)| {
            text.replace(name, place)
        })
    };
    let working_dir = if recipe.copies_code {
        build.join("code")
    } else {
        build
    };
    Plan {
        mode: node.mode,
        binds,
        reach: node.build_reach(),
        tmp_bytes_max: node.limits.build_tmp_bytes_max,
        tmp_files_max: node.limits.build_files_max,
        open_files_max: node.limits.build_files_max,
        data_bytes_max: None,
        processes_max: None,
        envs: envs(interpreter, recipe, here),
        working_dir,
        program: Program::Execute {
            path: recipe.program.clone(),
            args: recipe.args.iter().map(|arg| here(arg)).collect(),
        },
    }
}

fn envs(
    interpreter: &Interpreter,
    recipe: &Recipe,
    here: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let folder = interpreter
        .executable
        .parent()
        .unwrap_or(Path::new("/usr/bin"));
    let mut envs = vec![
        (
            "PATH".into(),
            format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()),
        ),
        ("HOME".into(), here("@build/home")),
        ("TMPDIR".into(), here("@build/tmp")),
        ("LANG".into(), "C.UTF-8".into()),
    ];
    envs.extend(
        recipe
            .envs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), here(value))),
    );
    envs.extend(std::env::vars().filter(|(name, _)| is_passed_on(name)));
    envs
}

fn is_passed_on(name: &str) -> bool {
    let matches = |listed: &&str| match listed.strip_suffix('_') {
        Some(_) => name.to_ascii_uppercase().starts_with(*listed),
        None => name == *listed,
    };
    PASSED_ON.iter().any(matches)
}

/// Returns when the folder holds more than it may.
async fn outgrown(folder: &Path, bytes_max: u64) {
    loop {
        tokio::time::sleep(SIZE_INTERVAL).await;
        let folder = folder.to_owned();
        let size = tokio::task::spawn_blocking(move || crate::cache::size_of(&folder)).await;
        if size.is_ok_and(|size| size > bytes_max) {
            return;
        }
    }
}

fn host(package: &Package, what: &str, error: &io::Error) -> PrepareError {
    PrepareError::Host(format!(
        "function \"{}\": could not {what} ({error})",
        package.spec.name
    ))
}

fn stopping() -> PrepareError {
    PrepareError::Host("this node is stopping".into())
}
