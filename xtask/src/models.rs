//! `cargo xtask models`: the parts that threads share without a lock of their own, in the orders in which
//! their steps can come.

use crate::command::{self, cargo};
use anyhow::{Result, ensure};

/// How many orders of each kind are tried where nothing else is said.
const RUNS: &str = "10000";
/// What is checked so: tests in modules called `models`, compiled with `--cfg shuttle`.
const PACKAGE: &str = "faas";

/// Checks every model.
///
/// # Errors
/// If one can't be built, or an order of steps breaks what it promises.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let runs = match words {
        [] => RUNS,
        ["--runs", runs] => runs,
        other => anyhow::bail!("{} is not known; see cargo xtask help", other.join(" ")),
    };
    ensure!(
        runs.parse::<usize>().is_ok(),
        "--runs wants a number, got {runs}"
    );
    let words = ["test", "--package", PACKAGE, "--lib", "--target-dir"];
    let mut tests = cargo(&crate::root()?, &words);
    tests.arg(crate::target_dir()?.join("models")).arg("models");
    tests
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("MODEL_RUNS", runs);
    command::run(&mut tests)
}
