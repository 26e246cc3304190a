//! Plain HTTP, for the management service and for calls where no foreign client is asked for.

use serde_json::Value;
use std::time::Duration;
use ureq::Agent;
use ureq::http;

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A field's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.as_str())
    }

    /// The answer itself, where its status is 2xx.
    ///
    /// # Panics
    /// If it is another.
    #[must_use]
    pub fn expect_success(self) -> Self {
        let text = self.text();
        assert!(
            (200..300).contains(&self.status),
            "answered {}: {text}",
            self.status
        );
        self
    }
}

/// Sends a request and reads the answer, whatever its status.
///
/// # Panics
/// If none comes.
#[must_use]
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let answer = request_with(&agent(), method, url, headers, body);
    answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// A client with connections of its own, which it keeps open.
#[must_use]
pub fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(300)));
    config.build().into()
}

/// Sends a request over the agent's connections.
///
/// # Errors
/// If no answer comes.
pub fn request_with(
    agent: &Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = if matches!(method, "GET" | "HEAD" | "DELETE") && body.is_empty() {
        agent.run(request.body(())?)?
    } else {
        agent.run(request.body(body)?)?
    };
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = response.headers().iter();
    let headers = fields.map(|(name, value)| (name.to_string(), text(value)));
    let headers = headers.collect();
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(64 << 20);
    let body = body.read_to_vec()?;
    Ok(Answer {
        status,
        headers,
        body,
    })
}
