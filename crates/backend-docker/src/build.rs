//! Runs what has to be installed or compiled before a function runs: in a container of its runtime's
//! image, in the volume with its code.

use crate::container::{Container, Plan, Target};
use crate::deployment_network::Network;
use crate::engine::Engine;
use crate::image::Image;
use crate::profile;
use crate::shim;
use crate::volume::{Entry, Filling, Source};
use crate::watch::Watch;
use builds::{Npm, Recipe, Toolchain, Why};
use faas::{Limits, LogStream, Package, PrepareError, Runtime};
use std::sync::Arc;

/// The folder in the code's volume that has what was built.
pub(crate) const BUILT: &str = ".tinyfaas";

/// The places that recipes name, as a build's container has them; the longer name first.
const PLACES: [(&str, &str); 4] = [
    ("@code", "/fn"),
    ("@deps", "/fn/.tinyfaas"),
    // It must be there before the build.
    ("@build/tmp", "/tmp"),
    ("@build", "/tmp"),
];

/// How large a list of installed packages is read.
const LIST_BYTES_MAX: usize = 16 << 20;

/// What has to be built for a function; nothing where that costs nothing.
pub(crate) fn recipe(package: &Package, image: &Image) -> Result<Option<Recipe>, PrepareError> {
    let program = match package.spec.runtime {
        Runtime::Nodejs => "node",
        Runtime::Python3 => "python3",
        Runtime::Go => "go",
        Runtime::Binary | Runtime::Wasm => return Ok(None),
    };
    let toolchain = Toolchain {
        program: program.into(),
        // It tells everything that is in the image, whatever its name means by now.
        version: &image.id,
        npm: Some(Npm {
            program: "npm".into(),
            args: Vec::new(),
            version: String::new(),
        }),
        pip_config: Vec::new(),
        pip_fix: "name an image that has it with --image-python3",
        envs: &[],
        go_shim: shim::GO,
    };
    builds::recipe(package, &toolchain)
}

/// Builds in a volume that has the code. Returns what whoever deploys the function should know.
pub(crate) async fn run(
    engine: &Arc<Engine>,
    limits: &Limits,
    (package, image): (&Package, &Image),
    (mut recipe, filling): (Recipe, &Filling),
) -> Result<Vec<String>, PrepareError> {
    let files = std::mem::take(&mut recipe.files).into_iter();
    let entries = files.map(|(path, contents)| Entry {
        path: path.into(),
        mode: 0o444,
        source: Source::Bytes(contents),
    });
    filling.put(entries.collect()).await?;
    let id: Arc<str> = engine.id("build").into();
    // It fetches what it installs. On a network of its own it meets no other container: not the
    // management service of the original's command, which is on the engine's default one.
    let network = Network::create(engine, "build", true, None).await?;
    let plan = Plan {
        name: engine.unique(&id),
        image: image.id.clone(),
        command: command(&recipe),
        envs: envs(&recipe),
        mounts: vec![filling.volume.mount("/fn", true)],
        network: network.name.clone(),
        user: Some("0:0"),
        is_read_only: true,
        reads_all: false,
        file_bytes_max: Some(limits.builds.bytes_max),
        profile: engine.takes_profiles.then(profile::of_builds),
        limits: limits.of_build(),
        labels: engine.labels(),
    };
    let target = Target {
        log: Arc::clone(&package.log),
        handler: Arc::clone(&id),
    };
    let watch = Watch::start(engine, limits, (package.spec.runtime, image), filling);
    let (container, watch) = tokio::join!(Container::start(engine, plan, target), watch);
    let (mut container, mut watch) = (container?, watch?);
    if let Some(why) = failure(limits, (&mut container, &mut watch), &recipe).await {
        let why = match why {
            Why::Failed(why) => why,
            Why::DiskFull => return Err(full(limits, package)),
        };
        let lines = package.log.last_text(&id, 2 * builds::LAST_LINES);
        return Err(builds::failed(package, &why, &lines));
    }
    let mut notes = recipe.notes;
    let list = builds::INSTALLED_LIST.map(|part| part.to_string_lossy());
    let list = filling.read(&list.join("/"), LIST_BYTES_MAX).await?;
    notes.extend(list.and_then(|list| builds::unrun_scripts(package, &list)));
    for note in &notes {
        package.log.push(&id, LogStream::Platform, note);
        tracing::warn!(function = %package.spec.name, "{note}");
    }
    Ok(notes)
}

/// Why a build failed, once nothing of it is left; nothing where it succeeded and left no more than
/// it may.
async fn failure(
    limits: &Limits,
    (container, watch): (&mut Container, &mut Option<Watch>),
    recipe: &Recipe,
) -> Option<Why> {
    let complaint = &recipe.complaint;
    let building = async {
        tokio::select! {
            exit = container.wait() => match exit.is_success {
                true => None,
                false => Some(Why::Failed(format!("{complaint} ({})", exit.text))),
            },
            why = outgrown(watch) => Some(why),
        }
    };
    let why = match tokio::time::timeout(limits.builds.time, building).await {
        Ok(why) => why,
        Err(_elapsed) => {
            let seconds = limits.builds.time.as_secs();
            Some(Why::Failed(format!("{complaint} within {seconds} s")))
        }
    };
    if why.is_some() {
        container.kill();
        container.wait().await;
    }
    let last = match watch {
        Some(watch) => watch.last_look(limits.builds.time).await,
        None => None,
    };
    match (why, last) {
        // A build that found the disk full failed of something else.
        (Some(Why::Failed(_)), Some(Why::DiskFull)) => Some(Why::DiskFull),
        (Some(why), _) => Some(why),
        (None, last) => last,
    }
}

async fn outgrown(watch: &mut Option<Watch>) -> Why {
    match watch {
        Some(watch) => watch.outgrown().await,
        None => std::future::pending().await,
    }
}

fn full(limits: &Limits, package: &Package) -> PrepareError {
    let (name, mib) = (&package.spec.name, limits.builds.free_bytes_min >> 20);
    PrepareError::no_room(
        format!(
            "function \"{name}\": the engine's disk is nearly full, and a build needs {mib} MiB free"
        ),
        "free space on it, such as by docker system prune, then deploy again",
    )
}

fn command(recipe: &Recipe) -> Vec<String> {
    let args = recipe.args.iter().map(|arg| here(arg));
    let program = recipe.program.display().to_string();
    std::iter::once(program).chain(args).collect()
}

fn envs(recipe: &Recipe) -> Vec<String> {
    let usual = ["HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8"].map(str::to_owned);
    let own = recipe.envs.iter();
    let own = own.map(|(name, value)| format!("{name}={}", here(value)));
    usual.into_iter().chain(own).collect()
}

/// A word of a recipe, with the places as the container has them.
fn here(text: &str) -> String {
    let places = PLACES.iter();
    places.fold(text.to_owned(), |text, (name, place)| {
        text.replace(name, place)
    })
}
