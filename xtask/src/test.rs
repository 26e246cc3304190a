//! `cargo xtask test`: every test, with what it needs.

use crate::command::{self, Ended, cargo};
use crate::count::{self, Count};
use crate::tools::{self, Tools};
use crate::{dist, docker, fuzz, models, vm};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Orders of each model that are tried where there is time.
const LONG_ORDERS: &str = "100000";
/// Inputs of each target of `fuzz/`, likewise.
const LONG_RUNS: &str = "1000000";

/// Which tests to run.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Those that take minutes too.
    has_long: bool,
    /// Where they run.
    machines: Machines,
    /// Only tests whose name has one of these; every test where there are none.
    filters: Vec<String>,
}

/// The machines that tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machines {
    This,
    Emulated,
    /// The emulated one only where it can be made.
    Both,
}

impl Selection {
    /// Reads the words after `test`.
    ///
    /// # Errors
    /// If a flag is not known.
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut selection = Self {
            has_long: false,
            machines: Machines::This,
            filters: Vec::new(),
        };
        for word in words {
            match *word {
                "--long" => selection.has_long = true,
                "--vm" => selection.machines = Machines::Emulated,
                "--with-vm" => selection.machines = Machines::Both,
                flag if flag.starts_with('-') => bail!("{flag} is not known; see cargo xtask help"),
                filter => selection.filters.push(filter.to_owned()),
            }
        }
        Ok(selection)
    }
}

/// Installs what is missing, builds, runs, and ends with a line of counts.
///
/// # Errors
/// If something can't be installed or built, a test fails, or none ran.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let total = match selection.machines {
        Machines::This => on_this_machine(selection)?,
        Machines::Emulated => {
            vm::get_ready()?;
            vm::test()?
        }
        Machines::Both => on_both_machines(selection)?,
    };
    println!("tests: {} passed, {} failed", total.passed, total.failed);
    match (total.passed, total.failed) {
        (0, 0) => bail!("no test ran; check the filter"),
        (_, 0) => Ok(()),
        (_, failed) => bail!("{failed} tests failed"),
    }
}

fn on_both_machines(selection: &Selection) -> Result<Count> {
    let mut total = on_this_machine(selection)?;
    match vm::get_ready() {
        Ok(()) => total += vm::test()?,
        Err(reason) => println!("the checks on an emulated machine do not run here: {reason:#}"),
    }
    Ok(total)
}

fn on_this_machine(selection: &Selection) -> Result<Count> {
    let tools = tools::install()?;
    let root = crate::root()?;
    // Stopped when the tests are over.
    let docker = docker::Engine::start()?;
    // Programs and tests in one build: features of dependencies are the same for both.
    let mut build = cargo(&root, &["build", "--workspace", "--bins", "--tests"]);
    command::run(&mut build)?;
    let image = product_image(&docker, selection)?;
    let mut total = rust_tests(&root, &tools, (&docker, &image), selection)?;
    if selection.filters.is_empty() {
        total += doc_tests(&root)?;
        total += shim_tests(&root)?;
        if selection.has_long {
            models::run(&["--runs", LONG_ORDERS])?;
            fuzz::run(&["--runs", LONG_RUNS])?;
        }
    }
    Ok(total)
}

/// The folder that `docker build -t tinyfaas-mgmt .` builds the product's image from: the last stage
/// of the Dockerfile, around a static program. Other tests than those of the image can be picked
/// without building that.
fn product_image(docker: &docker::Engine, selection: &Selection) -> Result<PathBuf> {
    let dist = crate::target_dir()?.join("dist");
    let context = dist.join("context");
    let filters = &selection.filters;
    if filters.is_empty() || filters.iter().any(|filter| filter.contains("image")) {
        let root = dist.join("root");
        dist::root_into(&root)?;
        docker.make_build_stage(&root)?;
        fs::create_dir_all(&context)?;
        fs::write(context.join("Dockerfile"), dist::last_stage()?)?;
    }
    if selection.has_long {
        docker.make_rust_image()?;
    }
    Ok(context)
}

fn rust_tests(
    root: &Path,
    tools: &Tools,
    (docker, image): (&docker::Engine, &Path),
    selection: &Selection,
) -> Result<Count> {
    let has_nextest = command::output(&mut cargo(root, &["nextest", "--version"])).is_ok();
    let mut tests = if has_nextest {
        nextest(root, selection)
    } else {
        println!("cargo-nextest is not installed; cargo test takes longer");
        cargo_test(root, selection)
    };
    tests
        .env("TINYFAAS_BIN", crate::target_dir()?.join("debug/tinyfaas"))
        .env("PATH", command::path())
        .env("DOCKER_HOST", &docker.host)
        .env("E2E_IMAGE", image)
        .env("E2E_REPOSITORY", root)
        .env("E2E_PYTHON", &tools.python)
        .env("E2E_COAP_CLI", &tools.coap_cli);
    let ended = command::watch(&mut tests)?;
    let count = if has_nextest {
        count::nextest(&ended.text)
    } else {
        count::cargo_test(&ended.text)
    };
    agreed(&ended, count)
}

fn nextest(root: &Path, selection: &Selection) -> Command {
    let words = ["nextest", "run", "--workspace", "--no-fail-fast"];
    let mut command = cargo(root, &words);
    // A filter that meets nothing is told by the count.
    command.arg("--no-tests=pass");
    if selection.has_long {
        command.args(["--run-ignored", "all"]);
    }
    command.args(&selection.filters);
    command
}

fn cargo_test(root: &Path, selection: &Selection) -> Command {
    let words = [
        "test",
        "--workspace",
        "--no-fail-fast",
        "--lib",
        "--bins",
        "--tests",
    ];
    let mut command = cargo(root, &words);
    command.arg("--");
    if selection.has_long {
        command.arg("--include-ignored");
    }
    command.args(&selection.filters);
    command
}

fn doc_tests(root: &Path) -> Result<Count> {
    let ended = command::watch(&mut cargo(root, &["test", "--workspace", "--doc"]))?;
    let count = count::cargo_test(&ended.text);
    agreed(&ended, count)
}

/// The conformance tests of the shims in `runtimes/`.
fn shim_tests(root: &Path) -> Result<Count> {
    let folder = root.join("runtimes/tests");
    if !folder.is_dir() {
        println!("runtimes/tests is missing");
        return Ok(Count {
            passed: 0,
            failed: 1,
        });
    }
    let mut tests = Command::new("python3");
    let words = ["-m", "unittest", "discover", "-s", "runtimes/tests"];
    tests.args(words).current_dir(root);
    // Bytecode would lie in the work tree.
    tests.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = command::watch(&mut tests)?;
    let count = count::unittest(&ended.text);
    agreed(&ended, count)
}

/// The count, once it fits how the runner ended: one that failed otherwise is a failure too.
fn agreed(ended: &Ended, count: Option<Count>) -> Result<Count> {
    let mut count = count.context("the tests did not run to their end; see above")?;
    if !ended.is_success && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}
