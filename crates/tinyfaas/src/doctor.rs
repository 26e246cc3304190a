//! `tinyfaas doctor`: what this machine can run and isolate, with or without a running node.

use crate::cli::Doctor;
use crate::client::{Api, report};
use crate::config::{Config, Flags, Sandbox};
use crate::failure::Failure;
use crate::telemetry::{self, LogFormat};
use crate::{backends, output};
use anyhow::{Context, Result, bail};
use faas::{Backend, BackendReport};
use serde_json::{Value, json};
use std::sync::Arc;

/// Tries the sandbox and the runtimes here, then asks the node, where one runs.
pub(crate) fn run(args: &Doctor) -> Result<()> {
    telemetry::start(LogFormat::Text);
    let variable = |name: &str| std::env::var(name).ok();
    let config = Config::load(&Flags::default(), args.config.as_deref(), &variable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    let here = runtime.block_on(examine(config));
    let node = ask(args)?;
    let is_isolated = here.as_ref().is_ok_and(|report| {
        let isolation = report["isolation"].as_array();
        isolation.is_some_and(|parts| parts.iter().any(|part| part["is_on"] == true))
    });
    if args.node.json {
        let here = here.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        output::line(json!({ "machine": here, "node": node }))?;
    } else {
        show(&here, node.as_ref(), Api::new(&args.node)?.shown())?;
    }
    if !is_isolated {
        bail!("this machine can't run functions as it is set up; see above");
    }
    Ok(())
}

fn show(here: &Result<Value>, node: Option<&Value>, address: &str) -> Result<()> {
    output::line("this machine")?;
    match here {
        Ok(here) => report(here)?,
        Err(error) => output::line(format_args!("  {error:#}"))?,
    }
    match node {
        None => output::line(format_args!(
            "\nno node answers at {address}; start one with: tinyfaas serve"
        )),
        Some(status) => {
            let version = status["version"].as_str().unwrap_or("?");
            output::line(format_args!("\nthe node at {address} (tinyFaaS {version})"))?;
            match here {
                Ok(here) if is_same(here, status) => output::line("  the same as above"),
                Ok(_) | Err(_) => report(status),
            }
        }
    }
}

/// Whether a node finds what was found here.
fn is_same(here: &Value, node: &Value) -> bool {
    ["isolation", "runtimes"]
        .iter()
        .all(|part| here[part] == node[part])
}

/// What the backend finds here. It works in a folder of its own, so that a running node is not
/// disturbed.
async fn examine(mut config: Config) -> Result<Value> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    config.data_dir = folder.path().to_owned();
    let limits = Arc::new(config.limits.clone());
    let reserve = Arc::default();
    let backend = match backends::start(&config, &limits, &reserve).await {
        Err(error) if config.sandbox == Sandbox::Full => {
            config.sandbox = Sandbox::Reduced;
            let reduced = backends::start(&config, &limits, &reserve).await?;
            // Standard output may be for a program.
            tracing::warn!("{error:#}; what follows is with --sandbox reduced");
            reduced
        }
        started => started?,
    };
    backend.start_all().await;
    let report = backend.report().await;
    backend.shutdown().await;
    Ok(shape(&report))
}

fn shape(report: &BackendReport) -> Value {
    let isolation = report
        .isolation
        .iter()
        .map(|part| json!({ "name": part.name, "is_on": part.is_on, "detail": part.detail }));
    let runtimes = report.runtimes.iter().map(|runtime| {
        json!({
            "runtime": runtime.runtime.as_str(),
            "version": runtime.version,
            "detail": runtime.detail,
        })
    });
    json!({
        "backend": report.backend,
        "isolation": isolation.collect::<Vec<_>>(),
        "runtimes": runtimes.collect::<Vec<_>>(),
    })
}

/// The status of the node; none where none answers.
fn ask(args: &Doctor) -> Result<Option<Value>> {
    match Api::new(&args.node)?.json("/v1/status") {
        Ok(status) => Ok(Some(status)),
        Err(error) if matches!(error.downcast_ref(), Some(Failure::Unreachable { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}
