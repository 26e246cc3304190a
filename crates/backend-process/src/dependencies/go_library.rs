//! What the Go compiler made of its own standard library, kept for every function.
//!
//! Compiling the packages that a function imports takes ten times as long as the function itself.
//! They are compiled in a build that sees no code of any function, and later builds read them by
//! links in a cache of their own.

use super::layout::{GO_CACHE, Layout};
use super::{blocking, run};
use crate::interpreter::Interpreter;
use crate::node::Node;
use crate::tree;
use builds::Toolchain;
use faas::Package;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The list of the packages that are kept.
const LIST: &str = "packages.json";

/// Compiles what the function needs of the standard library and is not kept yet; returns the
/// folder of all that is kept. Where it fails, the function is built without.
pub(super) async fn prepare(
    node: &Arc<Node>,
    package: &Package,
    (interpreter, toolchain, cut): (&Interpreter, &Toolchain<'_>, &CancellationToken),
) -> Option<PathBuf> {
    let folder = node.cache.go(&builds::library_key(toolchain));
    let root = toolchain.program.parent()?.parent()?.to_owned();
    let (code, shim) = (package.code.clone(), toolchain.go_shim.to_owned());
    let here = folder.clone();
    let looked = blocking(move || {
        let wanted = builds::standard_packages(&code, &shim, &root);
        Ok((wanted, kept(&here)))
    });
    let (wanted, kept) = looked.await.ok()?;
    if wanted.is_subset(&kept) {
        return Some(folder);
    }
    let wanted = &wanted | &kept;
    let tools = (interpreter, toolchain, cut);
    match compile(node, package, tools, (&folder, wanted)).await {
        Ok(()) => Some(folder),
        Err(error) => {
            tracing::warn!(%error, "the Go standard library could not be compiled ahead");
            folder.is_dir().then_some(folder)
        }
    }
}

fn kept(folder: &Path) -> BTreeSet<String> {
    let list = fs::read(folder.join(LIST)).ok();
    list.and_then(|list| serde_json::from_slice(&list).ok())
        .unwrap_or_default()
}

async fn compile(
    node: &Arc<Node>,
    package: &Package,
    (interpreter, toolchain, cut): (&Interpreter, &Toolchain<'_>, &CancellationToken),
    (folder, packages): (&Path, BTreeSet<String>),
) -> Result<(), String> {
    let recipe = builds::library(&packages, toolchain);
    let kept = folder.is_dir().then_some(folder);
    let layout = Layout::make(node, package, &recipe, kept)
        .await
        .map_err(|error| error.to_string())?;
    run(node, package, (interpreter, cut), (&recipe, &layout))
        .await
        .map_err(|error| error.to_string())?;
    let (folder, bytes_max) = (folder.to_owned(), node.limits.builds.go_cache_bytes_max);
    let added = blocking(move || {
        let made = layout.staging.path().join(GO_CACHE);
        tree::take_over(&made, bytes_max)?;
        add(&made, &folder, &packages)
    });
    added.await.map_err(|error| error.to_string())
}

/// Moves what was compiled beside what is kept. Data go before the entries that name them, and the
/// list of packages goes last, all of it synced: an entry without its data would be believed.
fn add(made: &Path, folder: &Path, packages: &BTreeSet<String>) -> io::Result<()> {
    tree::make_folder(folder)?;
    tree::sync(made)?;
    for is_entry in [false, true] {
        for from in fs::read_dir(made)? {
            let from = from?;
            if from.file_type()?.is_dir() {
                add_folder(&from.path(), &folder.join(from.file_name()), is_entry)?;
            }
        }
    }
    tree::sync(folder)?;
    let text = serde_json::to_vec(packages).map_err(io::Error::from)?;
    let list = made.join(LIST);
    fs::write(&list, text)?;
    fs::File::open(&list)?.sync_all()?;
    fs::rename(list, folder.join(LIST))?;
    tree::sync_names(folder)
}

/// Moves the new objects of one folder: entries, or the data that they name.
fn add_folder(from: &Path, to: &Path, is_entry: bool) -> io::Result<()> {
    tree::make_folder(to)?;
    for object in fs::read_dir(from)? {
        let object = object?;
        let name = object.file_name();
        let is_meant = name.to_string_lossy().ends_with("-a") == is_entry;
        // What is a link is kept already.
        if is_meant && object.file_type()?.is_file() {
            fs::rename(object.path(), to.join(name))?;
        }
    }
    Ok(())
}
