//! Installs what a function's manifest asks for, or compiles it, in a sandbox of its own that has
//! network; keeps the results.
//!
//! A build is as untrusted as the function. It shares nothing that it can write to with any other
//! build, and what it leaves is looked at by descriptors ([`crate::tree`]) before it is kept.

mod go_library;
mod layout;
mod looks;

use crate::cache::{Finished, Kept, Staging};
use crate::interpreter::Interpreter;
use crate::node::Node;
use crate::output::Target;
use crate::process::{Order, SandboxedProcess};
use crate::toolchain;
use crate::tree;
use builds::{Place, Recipe, Toolchain, Turn, Why};
use faas::{LogStream, Package, PrepareError, Runtime};
use handler_protocol::Process;
use layout::Layout;
use looks::Looks;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// How large a list of installed packages is read.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// What was built for a function.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) kept: Arc<Kept>,
    key: Arc<str>,
    place: Place,
}

impl Built {
    /// Whether the result is the whole code.
    pub(crate) fn is_code(&self) -> bool {
        self.place == Place::Code
    }
}

/// Makes what the function needs beside its code; nothing where it needs nothing.
pub(crate) async fn install(
    node: &Arc<Node>,
    package: &Package,
    interpreter: Option<&Interpreter>,
) -> Result<Option<Built>, PrepareError> {
    let Some(interpreter) = interpreter else {
        return Ok(None);
    };
    let Some(recipe) = recipe(node, package, interpreter)? else {
        return Ok(None);
    };
    if let Some(built) = find(node, package, &recipe).await? {
        return Ok(Some(built));
    }
    let turn = node.build_turns.take(package).await?;
    if let Some(built) = find(node, package, &recipe).await? {
        return Ok(Some(built));
    }
    build_apart(node, package, interpreter, (recipe, turn))
        .await
        .map(Some)
}

/// Builds again what no handler has loaded since the start and what now failed to load; nothing
/// where the result is known to be good, or can't be built now.
pub(crate) async fn rebuild(
    node: &Arc<Node>,
    package: &Package,
    interpreter: Option<&Interpreter>,
    built: Built,
) -> Option<Built> {
    if node.cache.is_proven(&built.key) {
        return None;
    }
    let interpreter = interpreter?;
    let recipe = recipe(node, package, interpreter).ok().flatten()?;
    let turn = node.build_turns.take(package).await.ok()?;
    if node.cache.is_proven(&built.key) {
        // Another deployment has built it meanwhile.
        return find(node, package, &recipe).await.ok().flatten();
    }
    tracing::warn!(function = %package.spec.name, "a kept build failed to load and is built again");
    let key = Arc::clone(&built.key);
    drop(built);
    let rebuilt = build_apart(node, package, interpreter, (recipe, turn)).await;
    // Once is enough: where it fails again, the build was not the cause.
    node.cache.prove(&key);
    rebuilt.ok()
}

/// Notes that a handler has loaded what was built.
pub(crate) fn prove(node: &Node, built: &Built) {
    node.cache.prove(&built.key);
}

fn recipe(
    node: &Node,
    package: &Package,
    interpreter: &Interpreter,
) -> Result<Option<Recipe>, PrepareError> {
    let toolchain = toolchain::of(node, package.spec.runtime, interpreter);
    builds::recipe(package, &toolchain)
}

/// Builds in a task of its own, which keeps the turn until nothing of the build is left. Dropping
/// the future cuts it: what runs is killed, then its folders are removed.
async fn build_apart(
    node: &Arc<Node>,
    package: &Package,
    interpreter: &Interpreter,
    (recipe, turn): (Recipe, Turn),
) -> Result<Built, PrepareError> {
    let cut = CancellationToken::new();
    let _cuts = cut.clone().drop_guard();
    let (here, package, interpreter) = (Arc::clone(node), package.clone(), interpreter.clone());
    let building = node.sandbox.tracker.spawn(async move {
        let toolchain = toolchain::of(&here, package.spec.runtime, &interpreter);
        let built = build(&here, &package, (&interpreter, &toolchain, &cut), recipe).await;
        drop(turn);
        built
    });
    let broken = |_panicked| {
        Err(PrepareError::host(
            "the build broke off",
            "see the log of tinyfaas",
        ))
    };
    building.await.unwrap_or_else(broken)
}

async fn find(
    node: &Arc<Node>,
    package: &Package,
    recipe: &Recipe,
) -> Result<Option<Built>, PrepareError> {
    let (here, key) = (Arc::clone(node), recipe.key.clone());
    let kept = blocking(move || Ok(here.cache.get(&key))).await;
    let kept = kept.map_err(|error| host(package, "look for what was built", &error))?;
    Ok(kept.map(|kept| built(recipe, kept)))
}

fn built(recipe: &Recipe, kept: Arc<Kept>) -> Built {
    Built {
        kept,
        key: recipe.key.as_str().into(),
        place: recipe.result,
    }
}

/// Runs the recipe and keeps its result.
async fn build(
    node: &Arc<Node>,
    package: &Package,
    (interpreter, toolchain, cut): (&Interpreter, &Toolchain<'_>, &CancellationToken),
    mut recipe: Recipe,
) -> Result<Built, PrepareError> {
    make_room(node, package).await?;
    let started = std::time::Instant::now();
    let library = match package.spec.runtime {
        Runtime::Go => go_library::prepare(node, package, (interpreter, toolchain, cut)).await,
        Runtime::Nodejs | Runtime::Python3 | Runtime::Binary | Runtime::Wasm => None,
    };
    let layout = Layout::make(node, package, &recipe, library.as_deref())
        .await
        .map_err(|error| host(package, "lay out the build", &error))?;
    if let Err(error) = run(node, package, (interpreter, cut), (&recipe, &layout)).await {
        // It may be hundreds of thousands of files.
        let removed = blocking(move || {
            drop(layout);
            Ok(())
        });
        // Why it failed is what counts.
        let _removed = removed.await.is_ok();
        return Err(error);
    }
    recipe.notes.extend(unrun_scripts(package, &layout));
    for note in &recipe.notes {
        package
            .log
            .push(&node.next_id("build"), LogStream::Platform, note);
        tracing::warn!(function = %package.spec.name, "{note}");
    }
    let kept = keep(node, layout, &recipe).await.map_err(|error| {
        let detail = format!("what the build left can't be used: {error}");
        PrepareError::build(detail, "let the build leave files, folders and links only")
    })?;
    let seconds = started.elapsed().as_secs_f32();
    tracing::info!(function = %package.spec.name, seconds, "built");
    Ok(built(&recipe, kept))
}

/// Makes room on the disk, and fails where there is too little.
async fn make_room(node: &Arc<Node>, package: &Package) -> Result<(), PrepareError> {
    let here = Arc::clone(node);
    let has_room = blocking(move || here.cache.make_room()).await;
    match has_room {
        Ok(true) => Ok(()),
        Ok(false) => Err(full(node, package)),
        Err(error) => Err(host(package, "make room for the build", &error)),
    }
}

/// Lets go of what can be built again where the disk is nearly full.
pub(crate) async fn free_disk(node: &Arc<Node>) {
    let here = Arc::clone(node);
    let freed = blocking(move || {
        if here.cache.has_room()? {
            return Ok(());
        }
        tracing::warn!("the disk is nearly full: builds that nothing uses are removed");
        here.cache.make_room().map(drop)
    });
    if let Err(error) = freed.await {
        tracing::warn!(%error, "could not look at the disk of the data directory");
    }
}

fn full(node: &Node, package: &Package) -> PrepareError {
    let mib = node.limits.builds.free_bytes_min >> 20;
    PrepareError::no_room(
        format!(
            "function \"{}\": the disk of the data directory is nearly full, and a build needs \
             {mib} MiB free",
            package.spec.name
        ),
        "delete functions that are not needed, or free space on it",
    )
}

async fn keep(node: &Arc<Node>, layout: Layout, recipe: &Recipe) -> io::Result<Arc<Kept>> {
    let (node, key) = (Arc::clone(node), recipe.key.clone());
    let (place, notes) = (recipe.result, recipe.notes.clone());
    blocking(move || {
        let folder = layout.result(place)?;
        let finished = Finished {
            key: &key,
            folder: &folder,
            notes,
        };
        let kept = node.cache.keep(&layout.staging, finished)?;
        drop(layout);
        node.cache.make_room()?;
        Ok(kept)
    })
    .await
}

/// What packages wanted to run and was not run.
fn unrun_scripts(package: &Package, layout: &Layout) -> Option<String> {
    let list = tree::read(&layout.code(), &builds::INSTALLED_LIST, LIST_BYTES_MAX)?;
    builds::unrun_scripts(package, &list)
}

/// Runs a recipe in its folders and waits until nothing of it is left.
async fn run(
    node: &Arc<Node>,
    package: &Package,
    (interpreter, cut): (&Interpreter, &CancellationToken),
    (recipe, layout): (&Recipe, &Layout),
) -> Result<(), PrepareError> {
    let order = Order {
        plan: layout.plan(node, interpreter, recipe),
        limits: &node.limits.of_build(),
        host_id: node.build_id(),
        scratch: None,
        protocol: File::open("/dev/null")
            .map_err(|error| host(package, "open /dev/null", &error))?
            .into(),
        output: Target {
            log: Arc::clone(&package.log),
            handler: node.next_id("build"),
        },
    };
    let id = Arc::clone(&order.output.handler);
    let started = node.sandbox.start(order).await;
    let mut process = started.map_err(|error| node.explain(package, &error))?;
    let failed = tokio::select! {
        failed = failure(node, &mut process, recipe, layout) => failed,
        () = cut.cancelled() => {
            Some(Why::Failed(format!("{}: the build was cancelled", recipe.complaint)))
        }
    };
    let Some(why) = failed else {
        return Ok(());
    };
    // A build that was cut off must not write any more when its folders are removed.
    process.kill();
    process.wait().await;
    match why {
        // A build that found the disk full failed of something else.
        Why::Failed(message) if node.cache.has_room().unwrap_or(true) => {
            let lines = package.log.last_text(&id, 2 * builds::LAST_LINES);
            Err(builds::failed(package, &message, &lines))
        }
        Why::Failed(_) | Why::DiskFull => Err(full(node, package)),
    }
}

/// Why a build failed; nothing where it succeeded.
async fn failure(
    node: &Node,
    process: &mut SandboxedProcess,
    recipe: &Recipe,
    layout: &Layout,
) -> Option<Why> {
    tokio::select! {
        exit = process.ended() => {
            let message = || format!("{} ({})", recipe.complaint, exit.text);
            (!exit.is_success).then(|| Why::Failed(message()))
        }
        () = tokio::time::sleep(node.limits.builds.time) => {
            let seconds = node.limits.builds.time.as_secs();
            Some(Why::Failed(format!("{} within {seconds} s", recipe.complaint)))
        }
        reason = outgrown(node, &layout.staging) => Some(reason),
    }
}

/// Returns when the folder holds more than it may, or the disk is nearly full.
async fn outgrown(node: &Node, staging: &Staging) -> Why {
    let limits = &node.limits.builds;
    let mut looks = Looks::new(limits);
    loop {
        tokio::time::sleep(looks::FREE_INTERVAL).await;
        let folder = staging.path().to_owned();
        let Ok(free) = blocking(move || tree::free_bytes(&folder)).await else {
            continue;
        };
        if free < limits.free_bytes_min / 2 {
            return Why::DiskFull;
        }
        let begun = Instant::now();
        if !looks.is_due(begun, free) {
            continue;
        }
        let folder = staging.path().to_owned();
        let Ok(size) = blocking(move || Ok(tree::size_of(&folder))).await else {
            continue;
        };
        if size > limits.bytes_max {
            let mib = limits.bytes_max >> 20;
            return Why::Failed(format!("the build wrote more than {mib} MiB"));
        }
        looks.looked(begun, Instant::now(), free);
    }
}

/// Does disk work beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn host(package: &Package, what: &str, error: &io::Error) -> PrepareError {
    PrepareError::host(
        format!(
            "function \"{}\": could not {what} ({error})",
            package.spec.name
        ),
        "look at the disk of the data directory, then deploy again",
    )
}
