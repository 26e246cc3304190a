//! `cargo xtask fuzz`: what reads bytes of others, fed with random ones.
//!
//! libFuzzer, with the coverage of the compiler that is there: no other toolchain is needed, and
//! cargo-fuzz can run the same targets. What ends a run is written into `target/fuzz/found`.

use crate::command;
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs of each target where nothing else is said.
const RUNS: &str = "20000";
/// How long one input may take, in seconds, and what all may hold, in MiB.
const TIME_MAX: &str = "10";
const MEMORY_MAX: &str = "1024";
/// The longest input.
const BYTES_MAX: &str = "4096";

/// What makes the compiler count which branches an input takes.
const COVERAGE: &str = "--cfg fuzzing -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares";

/// Builds the targets and runs those that are named, or all.
///
/// # Errors
/// If one can't be built, or an input breaks a promise.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (runs, named) = match words {
        ["--runs", runs, named @ ..] => (*runs, named),
        named => (RUNS, named),
    };
    ensure!(
        runs.parse::<u64>().is_ok(),
        "--runs wants a number, got {runs}"
    );
    let fuzz = crate::root()?.join("fuzz");
    let all = targets(&fuzz)?;
    for name in named {
        let known = all.iter().any(|target| target == name);
        ensure!(known, "{name} is no target; there are {}", all.join(", "));
    }
    tools::install_for_fuzz()?;
    let verbose = command::output(Command::new("rustc").arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let target_dir = crate::target_dir()?.join("fuzz");
    let mut build = command::cargo(&fuzz, &["build", "--release", "--bins", "--locked"]);
    build
        .args(["--target", host, "--target-dir"])
        .arg(&target_dir);
    // The flags then reach no build script.
    build.env("RUSTFLAGS", COVERAGE);
    command::run(&mut build)?;
    let programs = target_dir.join(host).join("release");
    let chosen = all
        .iter()
        .filter(|target| named.is_empty() || named.contains(&target.as_str()));
    let mut broken = Vec::new();
    for target in chosen {
        if let Err(error) = run_one(&programs.join(target), target, runs, &fuzz, &target_dir) {
            println!("{error:#}");
            broken.push(target.as_str());
        }
    }
    if !broken.is_empty() {
        bail!(
            "{} broke; what did it is in target/fuzz/found",
            broken.join(", ")
        );
    }
    Ok(())
}

fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fuzz.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn run_one(program: &Path, target: &str, runs: &str, fuzz: &Path, kept: &Path) -> Result<()> {
    // What it finds new is kept for the next run, beside what is in the repository.
    let corpus = kept.join("corpus").join(target);
    let found = kept.join("found");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let mut fuzzer = Command::new(program);
    // What it writes is looked at and thrown away.
    fuzzer.env("TMPDIR", "/dev/shm");
    fuzzer.arg(&corpus);
    let seeds = fuzz.join("seeds").join(target);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    fuzzer.args([
        &format!("-runs={runs}"),
        &format!("-timeout={TIME_MAX}"),
        &format!("-rss_limit_mb={MEMORY_MAX}"),
        &format!("-max_len={BYTES_MAX}"),
        &format!("-artifact_prefix={}/{target}-", found.display()),
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    command::run(&mut fuzzer)
}
