//! `cargo xtask bench` runs this.
#![expect(clippy::print_stdout, reason = "it tells the person at the terminal")]

use anyhow::{Context, Result, ensure};
use bench::row::{Results, Row, Target};
use bench::scenario::{COMPARED, PAIRS, SCENARIOS, Setting, run_alone, run_pair};
use bench::{reference, report};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Measures scenarios, all of them where none is named.
    Run(Run),
    /// Measures two programs beside each other.
    Compare(Compare),
    /// Serves a reference point.
    #[command(hide = true)]
    Reference { name: String },
}

#[derive(Debug, Args)]
struct Common {
    /// Where Express is installed.
    #[arg(long)]
    tools: PathBuf,
    /// Seconds that each load takes.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often both sides have their turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Minutes that the realistic load takes.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// The program under test.
    #[arg(long)]
    tinyfaas: PathBuf,
    /// The same without WebAssembly, of which the size counts.
    #[arg(long)]
    without_wasm: Option<PathBuf>,
    /// The scenarios.
    scenarios: Vec<String>,
}

#[derive(Debug, Args)]
struct Compare {
    #[command(flatten)]
    common: Common,
    /// The program as it is now.
    #[arg(long)]
    tinyfaas: PathBuf,
    /// The program that it is compared with.
    #[arg(long)]
    with: PathBuf,
    /// The scenarios.
    scenarios: Vec<String>,
}

impl Common {
    fn setting(&self, tinyfaas: &Path) -> Result<Setting> {
        Ok(Setting {
            tinyfaas: std::path::absolute(tinyfaas)?,
            tools: std::path::absolute(&self.tools)?,
            time: Duration::from_secs(self.seconds),
            rounds: self.rounds,
            fleet: Duration::from_secs(60 * self.minutes),
            without_wasm: None,
        })
    }
}

fn main() -> Result<()> {
    match Cli::parse().action {
        Action::Run(run) => measure(&run),
        Action::Compare(compare) => beside(&compare),
        Action::Reference { name } => reference::serve(&name),
    }
}

fn measure(run: &Run) -> Result<()> {
    let mut setting = run.common.setting(&run.tinyfaas)?;
    setting.without_wasm.clone_from(&run.without_wasm);
    let is_wanted =
        |name: &str| run.scenarios.is_empty() || run.scenarios.iter().any(|wanted| wanted == name);
    let mut rows = Vec::new();
    for scenario in &SCENARIOS {
        if is_wanted(scenario.name) {
            rows.extend(scenario.run(&setting)?.into_iter().inspect(tell));
        }
    }
    let is_alone = |name: &str| run.scenarios.iter().any(|wanted| wanted == name);
    for pair in PAIRS.iter().filter(|pair| is_alone(pair.name)) {
        let row = run_pair(pair, &setting)?;
        tell(&row);
        rows.push(row);
    }
    ensure!(
        !rows.is_empty(),
        "there are no such scenarios: {:?}",
        run.scenarios
    );
    keep(rows)
}

fn tell(row: &Row) {
    let holds = match row.holds() {
        Some(true) => "holds",
        Some(false) => "MISSED",
        None => "",
    };
    println!(
        "{:28} {:>9.2} {:6} ({:.2} to {:.2})  {holds:6} {:?}  {}",
        row.name, row.value, row.unit, row.low, row.high, row.target, row.seen
    );
}

/// Merges the rows into the kept results and writes the tables and the plot.
fn keep(rows: Vec<Row>) -> Result<()> {
    let folder = bench::folder().join("results");
    let path = folder.join("latest.json");
    let before = std::fs::read_to_string(&path).ok();
    let before: Option<Results> = before.and_then(|text| serde_json::from_str(&text).ok());
    let mut all = before.map(|results| results.rows).unwrap_or_default();
    for row in rows {
        match all.iter_mut().find(|known| known.name == row.name) {
            Some(known) => *known = row,
            None => all.push(row),
        }
    }
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let results = Results {
        machine: machine()?,
        revision: said("git", &["describe", "--always", "--dirty"])?,
        at,
        rows: all,
    };
    std::fs::create_dir_all(&folder)?;
    std::fs::write(&path, serde_json::to_string_pretty(&results)? + "\n")?;
    let docs = bench::folder().join("../docs");
    let page = docs.join("performance.md");
    let text = std::fs::read_to_string(&page).context("docs/performance.md")?;
    std::fs::write(&page, report::insert(&text, &results)?)?;
    std::fs::write(docs.join("performance.svg"), report::plot(&results))?;
    println!("written: {}, {}", path.display(), page.display());
    Ok(())
}

fn machine() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("?");
    let cores = std::thread::available_parallelism()?;
    let kernel = said("uname", &["-r"])?;
    Ok(format!(
        "{cores} cores of {model}, a shared virtual machine, Linux {kernel}"
    ))
}

fn said(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program).args(words).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The one program's over the other's, scenario by scenario, in turns.
fn beside(compare: &Compare) -> Result<()> {
    let mut wanted: Vec<&str> = compare.scenarios.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        wanted.extend(COMPARED);
    }
    for pair in PAIRS.iter().filter(|pair| wanted.contains(&pair.name)) {
        let mut ratios = Vec::new();
        for _ in 0..compare.common.rounds {
            let now = run_alone(pair, &compare.common.setting(&compare.tinyfaas)?)?;
            let before = run_alone(pair, &compare.common.setting(&compare.with)?)?;
            ratios.push(now / before);
        }
        let row = Row::new(pair.name, pair.what, "times", &ratios, Target::None);
        println!(
            "{:24} {:.3} times ({:.3} to {:.3})",
            row.name, row.value, row.low, row.high
        );
    }
    Ok(())
}
