//! Installs what a function's manifest asks for, or compiles it, in a sandbox of its own that has
//! network; keeps the results.
//!
//! A build is as untrusted as the function. It shares nothing that it can write to with any other
//! build, and what it leaves is looked at by descriptors ([`crate::tree`]) before it is kept.

mod go_library;
mod layout;

use crate::backend::Node;
use crate::cache::{Finished, Kept, Staging};
use crate::interpreter::Interpreter;
use crate::output::Target;
use crate::process::{Order, SandboxedProcess};
use crate::recipe::{self, Means, Place, Recipe};
use crate::tree;
use faas::{LogStream, Package, PrepareError, Runtime};
use handler_protocol::Process;
use layout::Layout;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often the size of what a build writes is looked at.
const SIZE_INTERVAL: Duration = Duration::from_secs(2);
/// How many of a failed build's last lines its deployer sees.
const LAST_LINES: usize = 40;
/// How large a list of installed packages is read.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// What stands in lines in which a package manager speaks of itself: the cause stands before.
const SMALL_TALK: [&str; 7] = [
    "npm notice",
    "A complete log of this run",
    "For a full report see",
    "/npm/_logs/",
    "Note that you can also install from a",
    "This is related to npm not being able to find a file",
    "[notice]",
];

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
    let Some((recipe, means)) = recipe(node, package, interpreter)? else {
        return Ok(None);
    };
    if let Some(built) = find(node, package, &recipe).await? {
        return Ok(Some(built));
    }
    let _turn = turn(node).await?;
    if let Some(built) = find(node, package, &recipe).await? {
        return Ok(Some(built));
    }
    build(node, package, means, recipe).await.map(Some)
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
    let (recipe, means) = recipe(node, package, interpreter).ok().flatten()?;
    let _turn = turn(node).await.ok()?;
    if node.cache.is_proven(&built.key) {
        // Another deployment has built it meanwhile.
        return find(node, package, &recipe).await.ok().flatten();
    }
    tracing::warn!(function = %package.spec.name, "a kept build failed to load and is built again");
    let key = Arc::clone(&built.key);
    drop(built);
    let rebuilt = build(node, package, means, recipe).await;
    // Once is enough: where it fails again, the build was not the cause.
    node.cache.prove(&key);
    rebuilt.ok()
}

/// Notes that a handler has loaded what was built.
pub(crate) fn prove(node: &Node, built: &Built) {
    node.cache.prove(&built.key);
}

/// What whoever deploys the function should know of its build, where it failed to load.
pub(crate) fn with_notes(error: PrepareError, built: &Built) -> PrepareError {
    let notes = &built.kept.notes;
    match error {
        PrepareError::Load { message, output } if !notes.is_empty() => PrepareError::Load {
            message: format!("{message}. {}", notes.join(". ")),
            output,
        },
        error => error,
    }
}

fn recipe<'a>(
    node: &'a Node,
    package: &Package,
    interpreter: Option<&'a Interpreter>,
) -> Result<Option<(Recipe, Means<'a>)>, PrepareError> {
    let Some(interpreter) = interpreter else {
        return Ok(None);
    };
    let means = Means {
        interpreter,
        envs: &node.build_envs,
        go_shim: node.shims.go_source(),
    };
    Ok(recipe::of(package, means)?.map(|recipe| (recipe, means)))
}

async fn turn(node: &Node) -> Result<tokio::sync::SemaphorePermit<'_>, PrepareError> {
    let turn = node.build_turns.acquire().await;
    turn.map_err(|_closed| PrepareError::Host("this node is stopping".into()))
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
    means: Means<'_>,
    mut recipe: Recipe,
) -> Result<Built, PrepareError> {
    make_room(node, package).await?;
    let started = std::time::Instant::now();
    let library = match package.spec.runtime {
        Runtime::Go => go_library::prepare(node, package, means).await,
        Runtime::Nodejs | Runtime::Python3 | Runtime::Binary | Runtime::Wasm => None,
    };
    let layout = Layout::make(node, package, &recipe, library.as_deref())
        .await
        .map_err(|error| host(package, "lay out the build", &error))?;
    run(node, package, means.interpreter, (&recipe, &layout)).await?;
    recipe.notes.extend(unrun_scripts(package, &layout));
    for note in &recipe.notes {
        package
            .log
            .push(&node.next_id("build"), LogStream::Platform, note);
        tracing::warn!(function = %package.spec.name, "{note}");
    }
    let kept = keep(node, layout, &recipe)
        .await
        .map_err(|error| PrepareError::Build {
            message: format!("what the build left can't be used: {error}"),
            output: String::new(),
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
    PrepareError::Host(format!(
        "function \"{}\": the disk of the data directory is nearly full, and a build needs {mib} \
         MiB free; delete functions or other files",
        package.spec.name
    ))
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
    if package.spec.runtime != Runtime::Nodejs || package.spec.allow_scripts {
        return None;
    }
    let list = [c"node_modules", c".package-lock.json"];
    let list = tree::read(&layout.code(), &list, LIST_BYTES_MAX)?;
    let names = recipe::with_scripts(&list);
    let fix = "if the function needs them, deploy it with --allow-scripts";
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("the install scripts of these packages were not run: {names}; {fix}")
    })
}

/// Runs a recipe in its folders and waits until nothing of it is left.
async fn run(
    node: &Arc<Node>,
    package: &Package,
    interpreter: &Interpreter,
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
    let Some(message) = failure(node, &mut process, recipe, layout).await else {
        return Ok(());
    };
    // A build that was cut off must not write any more when its folders are removed.
    process.kill();
    process.wait().await;
    if !node.cache.has_room().unwrap_or(true) {
        return Err(full(node, package));
    }
    let lines = package.log.last_text(&id, 2 * LAST_LINES);
    let fix = package.build_fix(&lines);
    let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
    Err(PrepareError::Build {
        message: format!("{message}{fix}"),
        output: cause(&lines),
    })
}

/// Why a build failed; nothing where it succeeded.
async fn failure(
    node: &Node,
    process: &mut SandboxedProcess,
    recipe: &Recipe,
    layout: &Layout,
) -> Option<String> {
    tokio::select! {
        exit = process.ended() => {
            (!exit.is_success).then(|| format!("{} ({})", recipe.complaint, exit.text))
        }
        () = tokio::time::sleep(node.limits.builds.time) => {
            let seconds = node.limits.builds.time.as_secs();
            Some(format!("{} within {seconds} s", recipe.complaint))
        }
        reason = outgrown(node, &layout.staging) => Some(reason),
    }
}

/// Returns when the folder holds more than it may, or the disk is nearly full.
async fn outgrown(node: &Node, staging: &Staging) -> String {
    let bytes_max = node.limits.builds.bytes_max;
    loop {
        tokio::time::sleep(SIZE_INTERVAL).await;
        let folder = staging.path().to_owned();
        let looked = blocking(move || Ok((tree::size_of(&folder), tree::free_bytes(&folder)?)));
        let Ok((size, free)) = looked.await else {
            continue;
        };
        if size > bytes_max {
            return format!("the build wrote more than {} MiB", bytes_max >> 20);
        }
        if free < node.limits.builds.free_bytes_min / 2 {
            return "the disk is nearly full".to_owned();
        }
    }
}

/// The last lines of a failed build, without those in which a package manager speaks of itself.
fn cause(lines: &str) -> String {
    // Such as `npm error 404`, with nothing behind it.
    let is_bare = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(
            words[..],
            [] | ["npm", "error" | "ERR!"] | ["npm", "error" | "ERR!", _]
        )
    };
    let is_said =
        |line: &&str| !is_bare(line) && !SMALL_TALK.iter().any(|talk| line.contains(talk));
    let lines: Vec<&str> = lines.lines().filter(is_said).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Does disk work beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn host(package: &Package, what: &str, error: &io::Error) -> PrepareError {
    PrepareError::Host(format!(
        "function \"{}\": could not {what} ({error})",
        package.spec.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_stands_last() {
        let check = |said: &str, expected: &str| assert_eq!(cause(said), expected);
        check(
            "npm error code E404\nnpm error 404 'nope' is not in this registry.\nnpm error 404\n\
             npm error 404 Note that you can also install from a\n\
             npm notice New major version of npm available!\nnpm notice\n\
             npm error A complete log of this run can be found in: /build/npm/_logs/x.log\n",
            "npm error code E404\nnpm error 404 'nope' is not in this registry.",
        );
        check(
            "npm ERR! code 1\nnpm ERR! it broke\n\nnpm ERR! A complete log of this run can be found in:\n\
             npm ERR!     /build/npm/_logs/x.log",
            "npm ERR! code 1\nnpm ERR! it broke",
        );
        check(
            "ERROR: No matching distribution found for nope\n\n[notice] A new release of pip is available",
            "ERROR: No matching distribution found for nope",
        );
        let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let last = cause(&many.join("\n"));
        assert!(last.starts_with("60\n") && last.ends_with("\n99"), "{last}");
    }
}
