//! Counts the instructions of a call on the hot path, and holds them against those that are kept.

use crate::command;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The parts of the hot path, as `hot-path` knows them.
const DRIVERS: [&str; 6] = ["proxy", "frames", "wasm", "coap", "http", "grpc"];
/// Calls of the shorter and of the longer run.
const CALLS: (u64, u64) = (1000, 3000);
/// How many hundredths more than is kept make the check fail.
const MORE_MAX: f64 = 5.0;

/// Instructions of one call, by the part.
type Counts = BTreeMap<String, u64>;

/// Counts and compares.
///
/// # Errors
/// If a call takes more than [`MORE_MAX`] hundredths more than is kept.
pub(crate) fn check() -> Result<()> {
    let text = fs::read_to_string(kept_path()?).context("bench/instructions.json")?;
    let kept: Counts = serde_json::from_str(&text)?;
    let mut slower = Vec::new();
    for (driver, count) in count_all()? {
        let before = *kept.get(&driver).with_context(|| {
            format!("nothing is kept of {driver}; run: cargo xtask bench --instructions --bless")
        })?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let change = (count as f64 / before as f64 - 1.0) * 100.0;
        println!("{driver:8} {count:>8} instructions a call, {change:+.1} % of the {before} kept");
        if change > MORE_MAX {
            slower.push(driver);
        }
    }
    if !slower.is_empty() {
        let slower = slower.join(", ");
        bail!(
            "{slower}: a call takes over {MORE_MAX} % more instructions; make it cheaper, or say \
             why in the commit that keeps the new counts (cargo xtask bench --instructions --bless)"
        );
    }
    Ok(())
}

/// Counts and keeps.
///
/// # Errors
/// If counting fails.
pub(crate) fn bless() -> Result<()> {
    let counts = count_all()?;
    fs::write(kept_path()?, serde_json::to_string_pretty(&counts)? + "\n")?;
    println!("kept: {counts:?}");
    Ok(())
}

fn kept_path() -> Result<PathBuf> {
    Ok(crate::root()?.join("bench/instructions.json"))
}

fn count_all() -> Result<Counts> {
    tools::install_for_counting()?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args([
        "build",
        "--profile",
        "counted",
        "-p",
        "bench",
        "--bin",
        "hot-path",
    ]);
    command::run(build.current_dir(crate::root()?))?;
    let program = crate::target_dir()?.join("counted/hot-path");
    let count = |driver: &&str| Ok(((*driver).to_owned(), count_one(&program, driver)?));
    DRIVERS.iter().map(count).collect()
}

/// The difference of a longer and a shorter run: what starting and ending take is in both.
fn count_one(program: &Path, driver: &str) -> Result<u64> {
    let shorter = instructions(program, driver, CALLS.0)?;
    let longer = instructions(program, driver, CALLS.1)?;
    Ok(longer.saturating_sub(shorter) / (CALLS.1 - CALLS.0))
}

fn instructions(program: &Path, driver: &str, calls: u64) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet"])
        // The compiler of WebAssembly must see the processor that runs what it compiled. It writes
        // to the same file, and before this program does.
        .arg("--trace-children=yes")
        .arg(format!("--callgrind-out-file={}", file.path().display()))
        .arg(program)
        .args([driver, &calls.to_string()]);
    command::output(&mut valgrind)?;
    let text = fs::read_to_string(file.path())?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.or_else(|| text.lines().find_map(|line| line.strip_prefix("totals: ")));
    let total = total.context("callgrind wrote no total")?;
    Ok(total.trim().parse()?)
}
