//! `cargo xtask dist`: the program as one static file, and an image of it without an engine.

use crate::command;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The certificates that the program trusts, on Debian and what comes from it.
const CA_ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// What the image is called.
const IMAGE: &str = "tinyfaas-mgmt:latest";

/// Builds the static program, and brings what the image holds into `folder`.
///
/// # Errors
/// If it can't be built.
pub(crate) fn root_into(folder: &Path) -> Result<()> {
    let root = crate::root()?;
    let program = build(&root)?;
    if folder.exists() {
        // What an earlier build left there would be in the image.
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    fs::copy(program, folder.join("tinyfaas"))?;
    let mut copy = Command::new("cp");
    let handlers = root.join("handlers");
    command::output(copy.arg("--recursive").arg(handlers).arg(folder))?;
    let roots = Path::new("/").join(CA_ROOTS);
    if !roots.is_file() {
        println!("this machine has no /{CA_ROOTS}: functions can't be deployed from https URLs");
        return Ok(());
    }
    let target = folder.join(CA_ROOTS);
    fs::create_dir_all(target.parent().context("it is in a folder")?)?;
    fs::copy(roots, target)?;
    Ok(())
}

/// Builds everything: the program, the image's root and the image.
///
/// # Errors
/// If something can't be built or written.
pub(crate) fn run() -> Result<()> {
    let dist = crate::target_dir()?.join("dist");
    let root = dist.join("root");
    root_into(&root)?;
    let image = pack(&root, &dist)?;
    println!("program  {}", root.join("tinyfaas").display());
    println!("image    {} (docker load -i FILE)", image.display());
    Ok(())
}

/// The last stage of the Dockerfile, which only copies.
///
/// # Errors
/// If there is none.
pub(crate) fn last_stage() -> Result<String> {
    let dockerfile = fs::read_to_string(crate::root()?.join("Dockerfile"))?;
    let at = dockerfile.rfind("FROM ");
    let stage = &dockerfile[at.context("the Dockerfile has no stage")?..];
    Ok(stage.to_owned())
}

/// musl where this machine has it, else the C library of this machine, linked in.
fn build(root: &Path) -> Result<PathBuf> {
    let verbose = command::output(Command::new("rustc").arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let musl = host.replace("-gnu", "-musl");
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let installed = Path::new(sysroot.trim()).join("lib/rustlib").join(&musl);
    let has_musl = installed.join("lib").is_dir() && command::is_there("musl-gcc");
    let target = if has_musl { &musl } else { host };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--release",
        "--package",
        "tinyfaas",
        "--target",
        target,
    ]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(cargo.current_dir(root))?;
    Ok(crate::target_dir()?.join(target).join("release/tinyfaas"))
}

/// Writes an image as `docker load` takes it: one layer, which is the root.
fn pack(root: &Path, dist: &Path) -> Result<PathBuf> {
    let parts = dist.join("image");
    fs::create_dir_all(&parts)?;
    let mut layer = Command::new("tar");
    layer.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    layer
        .arg("--mtime=@0")
        .arg("--file")
        .arg(parts.join("layer.tar"));
    layer.arg("--directory").arg(root).arg(".");
    command::output(&mut layer)?;
    let digest = command::output(Command::new("sha256sum").arg(parts.join("layer.tar")))?;
    let digest = digest
        .split(' ')
        .next()
        .context("sha256sum names a digest")?;
    let config = json!({
        "architecture": architecture()?,
        "os": "linux",
        "config": { "Entrypoint": entry_point()? },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [IMAGE],
        "Layers": ["layer.tar"],
    }]);
    fs::write(parts.join("config.json"), config.to_string())?;
    fs::write(parts.join("manifest.json"), manifest.to_string())?;
    let image = dist.join("tinyfaas-mgmt.tar");
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .arg("--file")
        .arg(&image)
        .arg("--directory")
        .arg(&parts);
    command::output(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
    fs::remove_dir_all(parts)?;
    Ok(image)
}

/// What Docker calls this machine's architecture.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "arm" => Ok("arm"),
        other => bail!("Docker has no name for {other} here; add it to xtask/src/dist.rs"),
    }
}

/// As the Dockerfile has it.
fn entry_point() -> Result<serde_json::Value> {
    let stage = last_stage()?;
    let line = stage
        .lines()
        .find_map(|line| line.strip_prefix("ENTRYPOINT "));
    Ok(serde_json::from_str(
        line.context("the Dockerfile has no ENTRYPOINT")?,
    )?)
}
