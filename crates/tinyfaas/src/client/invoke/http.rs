//! Calling over HTTP.

use super::{Answer, Call};
use crate::client::localhost;
use crate::failure::Failure;
use anyhow::{Result, anyhow};
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

/// The largest reply that is taken.
const REPLY_BYTES_MAX: u64 = 64 << 20;

pub(super) fn call(call: &Call) -> Result<Answer> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(call.timeout))
        .build();
    let mut request = Request::builder()
        .method(call.method.as_str())
        .uri(&call.target.text);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let has_body = !call.payload.is_empty() || !matches!(&*call.method, "GET" | "HEAD");
    let agent = localhost::agent(config);
    let answer = if has_body {
        agent.run(request.body(&call.payload[..])?)
    } else {
        agent.run(request.body(())?)
    };
    let mut response = answer.map_err(|error| failed(call, error))?;
    let status = response.status();
    let headers = response.headers();
    let is_callers = headers
        .get("x-tinyfaas-error")
        .is_some_and(|fault| fault == "caller");
    let headers = shown(headers);
    let body = response.body_mut().with_config().limit(REPLY_BYTES_MAX);
    Ok(Answer {
        status: format!("HTTP {status}"),
        is_success: status.as_u16() < 400,
        is_unknown: status.as_u16() == 404 && is_callers,
        headers,
        payload: body.read_to_vec()?,
    })
}

fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
        .collect()
}

fn failed(call: &Call, error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            Failure::EndpointUnreachable(call.target.text.clone()).into()
        }
        ureq::Error::Timeout(_) => anyhow!(
            "no reply within {} s; wait longer with --timeout",
            call.timeout.as_secs_f32()
        ),
        other => anyhow!("call {}: {other}", call.target.text),
    }
}
