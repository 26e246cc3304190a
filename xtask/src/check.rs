//! `cargo xtask check`: what can be told of the code without running it.

use crate::command;
use crate::{arrows, circles, text_rules};
use anyhow::{Result, bail};

/// Checks formatting, lints, docs, the arrows between crates and between modules, and the rules on texts.
///
/// # Errors
/// At the first of them that fails, with all that it found.
pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    let cargo = |words: &[&str]| command::cargo(&root, words);
    command::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let metadata = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata = command::output(&mut cargo(&metadata))?;
    told(&arrows::broken(&metadata)?)?;
    told(&circles::broken(&metadata)?)?;
    told(&text_rules::broken(&root)?)?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    command::run(&mut cargo(&clippy))?;
    let doc = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ];
    command::run(cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("checks passed");
    Ok(())
}

fn told(findings: &[String]) -> Result<()> {
    for finding in findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} rules are broken; see above"),
    }
}
