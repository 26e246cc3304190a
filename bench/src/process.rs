//! What processes take: CPU time and memory, as the kernel counts them.

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs;

/// CPU seconds of a process so far, its ended children not counted.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let ticks = rustix::param::clock_ticks_per_second();
    let fields = stat(pid)?;
    let field = |index: usize| {
        fields
            .get(index)
            .map_or(0, |field| field.parse().unwrap_or(0))
    };
    // utime and stime, proc(5); the list begins with the third field.
    let used: u64 = field(11) + field(12);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(used as f64 / ticks as f64)
}

/// CPU seconds of a process and all its children so far.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds_of_tree(pid: u32) -> Result<f64> {
    let mut seconds = cpu_seconds(pid)?;
    for child in descendants(pid)? {
        // It may have ended meanwhile.
        seconds += cpu_seconds(child).unwrap_or_default();
    }
    Ok(seconds)
}

/// Allows this process, and those that it starts, as many open files as the system grants.
///
/// # Errors
/// If it does not.
pub fn raise_open_files() -> Result<()> {
    let mut open_files = getrlimit(Resource::Nofile);
    open_files.current = open_files.maximum;
    Ok(setrlimit(Resource::Nofile, open_files)?)
}

/// Resident memory in kB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kb(pid: u32) -> Result<f64> {
    field_kb(
        &fs::read_to_string(format!("/proc/{pid}/status"))?,
        "VmRSS:",
    )
}

/// Resident memory in kB, pages that are shared counted in parts.
///
/// # Errors
/// If there is no such process.
pub fn proportional_kb(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    field_kb(&text, "Pss:")
}

fn field_kb(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// The children of a process and theirs.
///
/// # Errors
/// If /proc can't be read.
pub fn descendants(pid: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(fields) = stat(child) else { continue };
        if let Some(parent) = fields.get(1).and_then(|field| field.parse().ok()) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let own = children.remove(&pid).unwrap_or_default();
        next.extend(&own);
        found.extend(own);
    }
    Ok(found)
}

/// The fields after the name in parentheses.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("a name in parentheses")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
