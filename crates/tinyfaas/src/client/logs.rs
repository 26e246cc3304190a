//! `tinyfaas logs`.

use super::api::{Api, encoded, function_path};
use crate::cli::Logs;
use crate::output;
use anyhow::Result;
use std::io::{BufRead, BufReader};
use ureq::SendBody;

/// Prints the log as it comes.
pub(crate) fn logs(args: &Logs) -> Result<()> {
    let api = Api::new(&args.node)?;
    let mut path = match &args.name {
        Some(name) => format!("{}/logs", function_path(name)),
        None => "/v1/logs".to_owned(),
    };
    let mut query = Vec::new();
    if args.follow {
        query.push("follow=true".to_owned());
    }
    if let Some(since) = &args.since {
        query.push(format!("since={}", encoded(since)));
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let accept = if args.node.json {
        "application/x-ndjson"
    } else {
        "text/plain"
    };
    let response = api.open("GET", &path, Some(accept), SendBody::none())?;
    // No bound: a log that is followed goes on for as long as one looks.
    let body = response.into_body().into_with_config().limit(u64::MAX);
    let mut lines = BufReader::new(body.reader());
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        output::log(&line)?;
        line.clear();
    }
    Ok(())
}
