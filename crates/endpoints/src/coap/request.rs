//! From a request to an invocation.

use super::format;
use bytes::Bytes;
use coap::Request;
use faas::{HeaderError, Headers, Invocation, InvocationId};
use std::fmt::Write;

/// The invocation that a request asks for.
///
/// # Errors
/// If an option can't be passed on as a header field.
pub(super) fn invocation<P>(request: Request<P>) -> Result<Invocation, HeaderError> {
    let headers = headers(&request)?;
    Ok(Invocation {
        id: InvocationId::next(),
        method: Bytes::from_static(request.method.as_bytes()),
        path: request.path.into(),
        query: request.query.into(),
        headers,
        payload: request.payload,
    })
}

fn headers<P>(request: &Request<P>) -> Result<Headers, HeaderError> {
    let media_type = |option: Option<u16>| option.and_then(format::media_type);
    let if_match = request.if_match.iter().map(|tag| entity_tag(tag));
    let if_match: Vec<_> = if_match.collect();
    let fields = [
        ("content-type", media_type(request.content_format)),
        ("accept", media_type(request.accept)),
        ("host", request.host.as_deref()),
        ("if-none-match", request.if_none_match.then_some("*")),
    ];
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let tags = if_match.iter().map(|tag| ("if-match", tag.as_str()));
    let fields = fields.chain(tags);
    Headers::collect(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// An entity tag as HTTP writes one: its bytes in hexadecimal, or `*` for the empty one, which
/// stands for any (RFC 7252, section 5.10.8.1).
fn entity_tag(tag: &[u8]) -> String {
    if tag.is_empty() {
        return "*".to_owned();
    }
    let mut text = String::with_capacity(2 * tag.len() + 2);
    text.push('"');
    for byte in tag {
        write!(text, "{byte:02x}").expect("writing to a string can't fail");
    }
    text.push('"');
    text
}
