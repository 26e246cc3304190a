//! HTTP calls by `wrk`, which many know: so many connections, each with one call at a time.

use super::Numbers;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// Calls a URL with POST and a payload over `open` connections from one thread.
///
/// # Errors
/// If `wrk` is not there or can't be understood.
pub fn run(url: &str, payload: usize, open: usize, time: Duration) -> Result<Numbers> {
    let mut script = tempfile::NamedTempFile::new()?;
    write!(
        script,
        "wrk.method = 'POST'\nwrk.body = string.rep('x', {payload})\n\
         function done(summary, latency, requests)\n\
           io.write(string.format('@%d %d %f %f %f %d %d\\n', summary.requests, \
             summary.duration, latency:percentile(50), latency:percentile(99), \
             latency:percentile(99.9), summary.errors.status, \
             summary.errors.connect + summary.errors.read + summary.errors.write \
               + summary.errors.timeout))\n\
         end\n"
    )?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{open}")])
        .arg(format!("-d{}s", time.as_secs().max(1)))
        .arg("-s")
        .arg(script.path())
        .arg(url)
        .output()
        .context("wrk could not be run; install it with: cargo xtask tools")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(line) = text.lines().find_map(|line| line.strip_prefix('@')) else {
        bail!(
            "wrk said: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let numbers: Vec<f64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [requests, time_us, p50_us, p99_us, p999_us, wrong, lost] = numbers[..] else {
        bail!("wrk said: {line}");
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "wrk prints whole numbers"
    )]
    Ok(Numbers {
        rate: (requests - wrong) / (time_us / 1e6),
        replies: (requests - wrong) as u64,
        p50_us,
        p99_us,
        p999_us,
        wrong: wrong as u64,
        lost: lost as u64,
        ..Numbers::default()
    })
}
