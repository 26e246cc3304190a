//! The commands that talk to a node.

mod api;
mod backup;
mod deploy;
mod invoke;
mod localhost;
mod logs;
mod pack;
mod show;
mod socket;
mod underway;
mod url;

pub(crate) use api::Api;
pub(crate) use backup::{backup, restore};
pub(crate) use deploy::{deploy, set};
pub(crate) use invoke::invoke;
pub(crate) use logs::logs;
pub(crate) use show::{describe, list, report, status};

use crate::cli::{Delete, Wipe};
use crate::output;
use anyhow::{Result, bail};
use std::io::{BufRead, IsTerminal, Write};

/// Deletes functions, all that can be, and fails with the first that could not.
pub(crate) fn delete(args: &Delete) -> Result<()> {
    let api = Api::new(&args.node)?;
    let mut failure = None;
    for name in &args.names {
        match api.send("DELETE", &api::function_path(name), None) {
            Ok(_) if args.node.json => output::line(serde_json::json!({ "deleted": name }))?,
            Ok(_) => output::line(format_args!("{name} is deleted"))?,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Deletes every function, once it was confirmed.
pub(crate) fn wipe(args: &Wipe) -> Result<()> {
    let api = Api::new(&args.node)?;
    if !args.yes {
        confirm(api.shown())?;
    }
    api.send("DELETE", "/v1/functions", None)?;
    if args.node.json {
        return output::line(serde_json::json!({ "wiped": true }));
    }
    output::line("every function is deleted")
}

fn confirm(node: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("this deletes every function of {node}; say so with --yes");
    }
    let mut err = std::io::stderr().lock();
    write!(err, "Delete every function of {node}? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    bail!("nothing was deleted");
}
