//! `list`, `describe` and `status`: what the node tells, for people.

use super::api::{Api, function_path};
use super::underway;
use crate::cli::{Named, Node};
use crate::output;
use anyhow::Result;
use serde_json::Value;

/// Lists the functions.
pub(crate) fn list(args: &Node) -> Result<()> {
    let answer = Api::new(args)?.json("/v1/functions")?;
    if args.json {
        return output::line(&answer);
    }
    let functions = items(&answer, "functions");
    if functions.is_empty() && underway::all(&answer).next().is_none() {
        return output::line("no functions yet; deploy one with: tinyfaas deploy DIR");
    }
    let row = |function: &Value| {
        let handlers = &function["handlers"];
        vec![
            text(&function["name"]),
            text(&function["runtime"]),
            text(&function["state"]),
            format!("{}/{}", text(&handlers["ready"]), text(&handlers["wanted"])),
            text(&function["invocations"]),
            errors(function).to_string(),
            text(&function["deployed_at"]),
        ]
    };
    let rows: Vec<_> = functions.iter().map(row).collect();
    let heads = [
        "NAME", "RUNTIME", "STATE", "READY", "CALLS", "ERRORS", "DEPLOYED",
    ];
    output::table(&heads, &rows)?;
    show_underway(&answer)
}

/// Shows what the node is making ready.
fn show_underway(answer: &Value) -> Result<()> {
    underway::all(answer)
        .try_for_each(|deployment| output::line(text(&underway::line(deployment).into())))
}

/// Shows everything about a function.
pub(crate) fn describe(args: &Named) -> Result<()> {
    let function = Api::new(&args.node)?.json(&function_path(&args.name))?;
    if args.node.json {
        return output::line(&function);
    }
    let (handlers, limits) = (&function["handlers"], &function["limits"]);
    row("name", &text(&function["name"]))?;
    row("runtime", &text(&function["runtime"]))?;
    row("state", &text(&function["state"]))?;
    if let Some(failure) = function["failure"].as_str() {
        row("failure", failure)?;
    }
    let counts = format!(
        "{} of {} ready, {} restarts, {} calls in flight",
        text(&handlers["ready"]),
        text(&handlers["wanted"]),
        text(&handlers["restarts"]),
        text(&handlers["in_flight"])
    );
    row("handlers", &counts)?;
    let calls = format!(
        "{}; failed: {} by the function, {} by the platform; {} waiting",
        text(&function["invocations"]),
        text(&function["errors"]["function"]),
        text(&function["errors"]["platform"]),
        text(&function["waiting"])
    );
    row("calls", &calls)?;
    row("deployed", &text(&function["deployed_at"]))?;
    if function["deployment"].is_object() {
        let line = underway::line(&function["deployment"]);
        row("next", &text(&line.into()))?;
    }
    row("digest", &text(&function["digest"]))?;
    let size = format!(
        "{} files, {}",
        text(&function["files"]),
        bytes(&function["unpacked_bytes"])
    );
    row("code", &size)?;
    row("variables", &joined(&function["envs"], ", "))?;
    row("network", &network(&function))?;
    if function["allow_scripts"].as_bool() == Some(true) {
        row("scripts", "may run when npm installs")?;
    }
    let hosts = function["allow_hosts"].as_array();
    if let Some(hosts) = hosts.filter(|hosts| !hosts.is_empty()) {
        let hosts: Vec<String> = hosts.iter().map(text).collect();
        row("allow hosts", &hosts.join(", "))?;
    }
    row("web pages", &pages(&function))?;
    let limits = format!(
        "{} memory, {}, {} a call",
        bytes(&limits["memory_bytes"]),
        cores(&limits["cpu_millis"]),
        time(&limits["deadline_ms"])
    );
    row("limits", &limits)?;
    for url in items(&function, "urls") {
        row("call", &text(url))?;
    }
    let mut shown = &Value::Null;
    for handler in items(handlers, "each") {
        show_handler(handler, &mut shown)?;
    }
    Ok(())
}

/// Shows what ails a handler; `shown` is the output of the one before it, which is not repeated.
fn show_handler<'a>(handler: &'a Value, shown: &mut &'a Value) -> Result<()> {
    let Some(reason) = handler["reason"].as_str() else {
        return Ok(());
    };
    let id = text(&handler["id"]);
    output::line(format_args!(
        "\nhandler {id} is {}: {reason}",
        text(&handler["state"])
    ))?;
    let printed = &handler["last_output"];
    if printed == *shown && printed[0].is_string() {
        return output::line("    (it printed the same)");
    }
    *shown = printed;
    for line in items(handler, "last_output") {
        output::line(format_args!("    {}", text(line)))?;
    }
    Ok(())
}

/// Shows how a node does.
pub(crate) fn status(args: &Node) -> Result<()> {
    let status = Api::new(args)?.json("/v1/status")?;
    if args.json {
        return output::line(&status);
    }
    row("version", &text(&status["version"]))?;
    row("started", &text(&status["started_at"]))?;
    row("backend", &text(&status["backend"]))?;
    let functions = &status["functions"];
    let counts = format!(
        "{}: {} ready, {} degraded, {} starting, {} failed",
        text(&functions["total"]),
        text(&functions["ready"]),
        text(&functions["degraded"]),
        text(&functions["starting"]),
        text(&functions["failed"])
    );
    row("functions", &counts)?;
    for deployment in underway::all(&status) {
        row("next", &text(&underway::line(deployment).into()))?;
    }
    for endpoint in items(&status, "endpoints") {
        row(&text(&endpoint["scheme"]), &text(&endpoint["addr"]))?;
    }
    report(&status)
}

/// What a backend can do, as the status tells it.
pub(crate) fn report(status: &Value) -> Result<()> {
    let isolation = items(status, "isolation");
    let runtimes = items(status, "runtimes");
    if !isolation.is_empty() {
        output::line("\nisolation")?;
    }
    for part in isolation {
        let mark = if part["is_on"] == true { "on " } else { "OFF" };
        let name = text(&part["name"]);
        output::line(format_args!(
            "  {mark}  {name:<22}{}",
            text(&part["detail"])
        ))?;
    }
    if !runtimes.is_empty() {
        output::line("\nruntimes")?;
    }
    for runtime in runtimes {
        let version = runtime["version"].as_str().unwrap_or("missing");
        let name = text(&runtime["runtime"]);
        let detail = text(&runtime["detail"]);
        output::line(format_args!("  {name:<9}{version:<16} {detail}"))?;
    }
    Ok(())
}

fn row(title: &str, value: &str) -> Result<()> {
    output::line(format_args!("{title:<11}{value}"))
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn joined(list: &Value, separator: &str) -> String {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let texts: Vec<_> = list.iter().map(text).collect();
    if texts.is_empty() {
        return "none".to_owned();
    }
    texts.join(separator)
}

/// What a function reaches of the network.
fn network(function: &Value) -> String {
    let is = |name: &str| function[name].as_bool() == Some(true);
    let ports = joined(&function["host_ports"], ", ");
    match (is("network"), is("host_network")) {
        (_, true) => "the host's".to_owned(),
        (true, false) => format!("other machines; ports of the host: {ports}"),
        (false, false) => "none".to_owned(),
    }
}

/// Which pages of other sites may call it; a node of an older version does not tell.
fn pages(function: &Value) -> String {
    match function["cors"].as_str() {
        Some("default") => "as the node is set".to_owned(),
        Some("none") => "none of other sites".to_owned(),
        Some("function") => "the function answers for itself".to_owned(),
        Some("*") => "any may call".to_owned(),
        Some(_) | None => text(&function["cors"]),
    }
}

fn errors(function: &Value) -> u64 {
    let count = |who: &str| function["errors"][who].as_u64().unwrap_or(0);
    count("function") + count("platform")
}

/// A value as it is shown: texts without quotes, what is missing as a dash. Control characters,
/// which could change what a terminal shows, are escaped.
fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    if text.chars().any(char::is_control) {
        return text.escape_debug().to_string();
    }
    output::for_terminal(&text).into_owned()
}

/// Such as `1 core` or `0.25 cores`.
fn cores(millis: &Value) -> String {
    match millis.as_u64() {
        None => "-".to_owned(),
        Some(1000) => "1 core".to_owned(),
        Some(millis) => {
            let cores = format!("{}.{:03}", millis / 1000, millis % 1000);
            let cores = cores.trim_end_matches('0').trim_end_matches('.');
            format!("{cores} cores")
        }
    }
}

/// Such as `60 s`, `500 ms` or `2 h`.
fn time(ms: &Value) -> String {
    match ms.as_u64() {
        None => "-".to_owned(),
        Some(ms) if ms >= 3_600_000 && ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        Some(ms) if ms >= 120_000 && ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        Some(ms) if ms >= 1000 && ms % 1000 == 0 => format!("{} s", ms / 1000),
        Some(ms) => format!("{ms} ms"),
    }
}

fn bytes(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(bytes) if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
        Some(bytes) if bytes >= 10 << 10 => format!("{} KiB", bytes >> 10),
        Some(bytes) => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_without_what_could_change_the_terminal() {
        assert_eq!(text(&Value::from("a\x1b[2J")), "a\\u{1b}[2J");
        assert_eq!(text(&Value::from("a\nb")), "a\\nb");
        assert_eq!(text(&Value::from("ü")), "ü");
        assert_eq!(text(&Value::Null), "-");
        assert_eq!(bytes(&Value::from(256 << 20)), "256 MiB");
        assert_eq!(bytes(&Value::from(5)), "5 bytes");
        assert_eq!(cores(&Value::from(1000)), "1 core");
        assert_eq!(cores(&Value::from(250)), "0.25 cores");
        assert_eq!(cores(&Value::from(4000)), "4 cores");
        assert_eq!(time(&Value::from(60_000)), "60 s");
        assert_eq!(time(&Value::from(500)), "500 ms");
        assert_eq!(time(&Value::from(300_000)), "5 min");
        assert_eq!(time(&Value::from(7_200_000)), "2 h");
    }
}
