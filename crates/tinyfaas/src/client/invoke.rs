//! `tinyfaas invoke`: calls a function over any endpoint.

mod coap;
#[cfg(feature = "grpc")]
mod grpc;
mod http;

use super::api::Api;
use super::url::{Scheme, Target};
use crate::cli::Invoke;
use crate::output;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Read;
use std::time::Duration;

/// What is sent to a function.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) method: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status in the protocol's own words.
    pub(crate) status: String,
    /// Whether it is a success.
    pub(crate) is_success: bool,
    /// Whether the endpoint says that there is no such function.
    pub(crate) is_unknown: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
}

/// Calls a function and prints its reply.
pub(crate) fn invoke(args: &Invoke) -> Result<()> {
    let target = match Target::parse(&args.target)? {
        Some(target) => target,
        None => by_name(&args.target, &Api::new(&args.node)?)?,
    };
    let payload = args.data.as_deref().map(payload).transpose()?;
    let default_method = if payload.is_some() { "POST" } else { "GET" };
    let call = Call {
        target,
        method: args.method.as_deref().unwrap_or(default_method).to_owned(),
        headers: args.header.clone(),
        payload: payload.unwrap_or_default(),
        timeout: Duration::from_millis(args.timeout),
    };
    let answer = match call.target.scheme {
        Scheme::Coap => coap::call(&call)?,
        Scheme::Http | Scheme::Https => http::call(&call)?,
        #[cfg(feature = "grpc")]
        Scheme::Grpc => grpc::call(&call)?,
        #[cfg(not(feature = "grpc"))]
        Scheme::Grpc => bail!("this tinyfaas was built without gRPC; use http or coap"),
    };
    print(args, &answer)
}

fn print(args: &Invoke, answer: &Answer) -> Result<()> {
    if args.node.json {
        let text = String::from_utf8_lossy(&answer.payload);
        let headers: Vec<_> = answer.headers.iter().map(|(n, v)| [n, v]).collect();
        output::line(serde_json::json!({
            "status": answer.status,
            "headers": headers,
            "payload": text,
        }))?;
    } else {
        if args.include {
            output::message(&answer.status);
            for (name, value) in &answer.headers {
                output::message(format_args!("{name}: {value}"));
            }
        }
        if answer.is_success {
            output::bytes(&answer.payload)?;
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
            if is_terminal && answer.payload.last().is_some_and(|&last| last != b'\n') {
                output::line("")?;
            }
        }
    }
    if answer.is_success {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer.payload);
    if answer.is_unknown {
        let message = text.trim().to_owned();
        return Err(crate::failure::Failure::NotFound(message).into());
    }
    if let Some(hint) = super::api::network_hint(&text) {
        bail!("{}: {}; {hint}", answer.status, text.trim());
    }
    bail!("{}: {}", answer.status, text.trim())
}

/// The URL of a function of the node, over HTTP or the first endpoint that is on.
fn by_name(name: &str, api: &Api) -> Result<Target> {
    let status = api.json("/v1/status")?;
    let endpoints = status
        .get("endpoints")
        .context("the node names no endpoints")?;
    let on = ["http", "coap", "grpc"].into_iter().find_map(|scheme| {
        let addr = address_of(endpoints, scheme)?;
        let port = addr.rsplit_once(':')?.1.split('/').next()?.to_owned();
        Some((scheme, port))
    });
    let Some((scheme, port)) = on else {
        bail!("every endpoint of the node is off; start it with one, such as --http 8000");
    };
    let name = name.strip_prefix('/').unwrap_or(name);
    let url = format!("{scheme}://{}:{port}/{name}", api.host());
    Target::parse(&url)?.context("the node's address makes no URL")
}

/// The address of an endpoint, however the list is written: by scheme, or as objects or URLs.
fn address_of(endpoints: &Value, scheme: &str) -> Option<String> {
    if let Some(addr) = endpoints.get(scheme).and_then(Value::as_str) {
        return Some(addr.to_owned());
    }
    endpoints.as_array()?.iter().find_map(|endpoint| {
        if let Some(url) = endpoint.as_str() {
            let rest = url.strip_prefix(scheme)?.strip_prefix("://")?;
            return Some(rest.to_owned());
        }
        let is_it = endpoint.get("scheme")?.as_str()? == scheme;
        let addr = endpoint.get("addr").or(endpoint.get("address"))?.as_str()?;
        is_it.then(|| addr.to_owned())
    })
}

fn payload(data: &str) -> Result<Vec<u8>> {
    if data == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    match data.strip_prefix('@') {
        Some(path) => std::fs::read(path).with_context(|| format!("read the payload {path}")),
        None => Ok(data.as_bytes().to_vec()),
    }
}
