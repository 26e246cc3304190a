//! What a node is making ready, told while it is waited for and where a node is looked at.

use super::api::Api;
use crate::cli::Node;
use crate::output;
use serde_json::Value;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the node is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Makes a call that deploys the function, and tells meanwhile what it waits for.
pub(super) fn told<T>(node: &Node, name: &str, call: impl FnOnce() -> T) -> T {
    let (ends, ended) = sync_channel::<()>(1);
    let is_over = Arc::new(Mutex::new(false));
    let (node, name) = (node.clone(), name.trim_start_matches('/').to_owned());
    let over = Arc::clone(&is_over);
    // It is not waited for: it may be asking a node that answers slowly.
    let _watcher = std::thread::spawn(move || watch(&node, &name, &ended, &over));
    let result = call();
    *is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
    drop(ends);
    result
}

fn watch(node: &Node, name: &str, ended: &Receiver<()>, is_over: &Mutex<bool>) {
    let Ok(api) = Api::new(node) else { return };
    let mut shown = String::new();
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        // The call itself tells what is wrong with the node.
        let Ok(answer) = api.json("/v1/deployments") else {
            return;
        };
        let texts = all(&answer).filter(|it| it["name"] == name);
        let Some(text) = texts.filter_map(waiting).last() else {
            continue;
        };
        let is_over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
        if text != shown && !*is_over {
            output::waiting(&text);
            shown = text;
        }
    }
}

/// What is being made ready, in an answer of the node.
pub(super) fn all(answer: &Value) -> impl Iterator<Item = &Value> {
    let deployments = answer["deployments"].as_array();
    deployments.map_or(&[][..], Vec::as_slice).iter()
}

/// What a deployment is waited for; nothing where it takes no long time.
fn waiting(deployment: &Value) -> Option<String> {
    match deployment["stage"].as_str()? {
        "waits-for-build" => Some(format!("waits for a build of {}…", others(deployment))),
        "builds" => Some(format!("builds {}…", quoted(&deployment["name"]))),
        _ => None,
    }
}

/// A line on something that is being made ready.
pub(super) fn line(deployment: &Value) -> String {
    let (name, since) = (quoted(&deployment["name"]), &deployment["since"]);
    let since = since.as_str().unwrap_or("-");
    match deployment["stage"].as_str() {
        Some("waits-for-build") => {
            let others = others(deployment);
            format!("{name} waits for a build of {others} since {since}")
        }
        Some("builds") => format!("{name} is being built since {since}"),
        _ => format!("{name} is being started since {since}"),
    }
}

fn others(deployment: &Value) -> String {
    let names = deployment["waits_for"].as_array();
    let names = names.map_or(&[][..], Vec::as_slice).iter().map(quoted);
    match names.collect::<Vec<_>>().as_slice() {
        [] => "another function".to_owned(),
        names => names.join(" or "),
    }
}

fn quoted(name: &Value) -> String {
    format!("`{}`", name.as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_waits_for_a_build_is_told_whose() {
        let check = |deployment: Value, text: Option<&str>, shown: &str| {
            assert_eq!(waiting(&deployment).as_deref(), text);
            assert_eq!(line(&deployment), shown);
        };
        let since = "2026-01-31T12:00:00.000Z";
        check(
            json!({ "name": "c", "stage": "waits-for-build", "since": since, "waits_for": ["a", "b"] }),
            Some("waits for a build of `a` or `b`…"),
            "`c` waits for a build of `a` or `b` since 2026-01-31T12:00:00.000Z",
        );
        check(
            json!({ "name": "a", "stage": "builds", "since": since }),
            Some("builds `a`…"),
            "`a` is being built since 2026-01-31T12:00:00.000Z",
        );
        check(
            json!({ "name": "d", "stage": "starts", "since": since }),
            None,
            "`d` is being started since 2026-01-31T12:00:00.000Z",
        );
    }
}
