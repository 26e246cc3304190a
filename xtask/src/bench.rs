//! `cargo xtask bench`: measures the program, alone or beside another revision.

use crate::command;
use crate::instructions;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A reference point of the Node scenarios.
const EXPRESS: &str = "express@5.1.0";

/// Measures what the words after `bench` ask for.
///
/// # Errors
/// If something can't be installed, built or measured.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    match words {
        ["--instructions"] => return instructions::check(),
        ["--instructions", "--bless"] => return instructions::bless(),
        _ => {}
    }
    tools::install_for_bench()?;
    let express = install_express()?;
    let root = crate::root()?;
    let program = build(&root, "tinyfaas", &crate::target_dir()?, &[])?;
    let bench = build(&root, "bench", &crate::target_dir()?, &[])?;
    let mut run = Command::new(bench);
    match words {
        ["--compare", revision, rest @ ..] => {
            let other = build_revision(&root, revision)?;
            run.arg("compare").arg("--with").arg(other).args(rest);
        }
        rest => {
            run.arg("run").args(rest);
            if rest.is_empty() || rest.contains(&"footprint") {
                run.arg("--without-wasm").arg(build_without_wasm(&root)?);
            }
        }
    }
    run.arg("--tinyfaas").arg(program);
    run.arg("--tools").arg(express);
    command::run(&mut run)
}

fn build(root: &Path, package: &str, target: &Path, flags: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or(OsString::from("cargo")));
    cargo
        .args(["build", "--release", "-p", package])
        .args(flags);
    cargo.arg("--target-dir").arg(target).current_dir(root);
    command::run(&mut cargo)?;
    Ok(target.join("release").join(package))
}

/// Builds another revision in a work tree of its own, kept for the next time.
fn build_revision(root: &Path, revision: &str) -> Result<PathBuf> {
    let mut parse = Command::new("git");
    parse.args(["rev-parse", "--verify", "--quiet"]);
    parse
        .arg(format!("{revision}^{{commit}}"))
        .current_dir(root);
    let Ok(commit) = command::output(&mut parse) else {
        bail!("{revision} is no revision of this repository");
    };
    let commit = commit.trim();
    let folder = crate::target_dir()?.join("compared");
    let tree = folder.join("tree");
    if !tree.exists() {
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--detach", "--force"]);
        add.arg(&tree).arg(commit).current_dir(root);
        command::run(&mut add)?;
    }
    let mut checkout = Command::new("git");
    checkout.args(["checkout", "--quiet", "--detach", commit]);
    command::run(checkout.current_dir(&tree))?;
    build(&tree, "tinyfaas", &folder.join("target"), &[])
}

/// Beside the other, of which it would take the place.
fn build_without_wasm(root: &Path) -> Result<PathBuf> {
    let target = crate::target_dir()?.join("without-wasm");
    let flags = ["--no-default-features", "--features", "docker,grpc"];
    build(root, "tinyfaas", &target, &flags)
}

fn install_express() -> Result<PathBuf> {
    let folder = crate::target_dir()?.join("bench-tools");
    if folder.join("node_modules/express/package.json").exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-save", EXPRESS]);
    npm.current_dir(&folder);
    command::run(&mut npm).context("install Express")?;
    Ok(folder)
}
