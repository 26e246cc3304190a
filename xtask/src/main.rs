//! Tasks of this repository: `cargo xtask test`, `check`, `dist`, `fuzz`, `models` and `bench`.
#![expect(
    clippy::print_stdout,
    reason = "a task tells the person at the terminal"
)]

mod arrows;
mod bench;
mod check;
mod circles;
mod command;
mod count;
mod dist;
mod docker;
mod fuzz;
mod instructions;
mod models;
mod modules;
mod test;
mod text_rules;
mod tools;
mod vm;

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test [--long] [FILTER...]   install what the tests need, then run every test
       cargo xtask test --vm                   the checks on an emulated Debian 12, power cuts too
       cargo xtask test --with-vm [FILTER...]  both; without the second where it can't be emulated
       cargo xtask tools                       only install what the tests need
       cargo xtask dist                        the program as one static file, and a Docker image
       cargo xtask dist FOLDER                 what the image holds
       cargo xtask check                       formatting, lints, docs, arrows between crates and modules
       cargo xtask fuzz [TARGET...]            random input, 20,000 runs a target; --runs N for others
       cargo xtask models [--runs N]           what threads share, in the orders that they can come in
       cargo xtask bench [SCENARIO...]         measure, and write docs/performance.md
       cargo xtask bench --compare REV         measure beside another revision
       cargo xtask bench --instructions        count the instructions of a call; --bless keeps them";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test", rest @ ..] => test::Selection::parse(rest).and_then(|wanted| test::run(&wanted)),
        ["tools"] => tools::install().map(|_tools| ()),
        ["check"] => check::run(),
        ["dist"] => dist::run(),
        ["dist", folder] => dist::root_into(Path::new(folder)),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["models", rest @ ..] => models::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            println!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's folder.
fn root() -> Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let parent = manifest.parent();
    Ok(parent.context("xtask lies in the repository")?.to_owned())
}

/// The folder that cargo builds into.
fn target_dir() -> Result<PathBuf> {
    let root = root()?;
    let given = std::env::var_os("CARGO_TARGET_DIR");
    Ok(given.map_or_else(|| root.join("target"), |dir| root.join(dir)))
}
