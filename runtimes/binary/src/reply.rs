//! What a script printed, as a reply.

use crate::script::Form;
use bytes::Bytes;
use faas::{Headers, Reply};

const TEXT: &[u8] = b"text/plain; charset=utf-8";
const BYTES: &[u8] = b"application/octet-stream";
/// The largest header block.
pub(crate) const HEADERS_BYTES_MAX: usize = 64 << 10;
/// Statuses whose replies have no body.
const WITHOUT_BODY: [u16; 3] = [204, 205, 304];

/// The reply; the error is the function's message.
pub(crate) fn of(form: Form, printed: Vec<u8>) -> Result<Reply, String> {
    match form {
        Form::Body => {
            let field = [(&b"content-type"[..], type_of(&printed))];
            Ok(Reply {
                status: 200,
                headers: Headers::collect(field).expect("a constant field is valid"),
                payload: Bytes::from(printed),
            })
        }
        Form::Cgi => cgi(&Bytes::from(printed)),
    }
}

fn type_of(body: &[u8]) -> &'static [u8] {
    if std::str::from_utf8(body).is_ok() {
        TEXT
    } else {
        BYTES
    }
}

/// A header block, an empty line and a body, as RFC 3875, section 6, has them.
fn cgi(printed: &Bytes) -> Result<Reply, String> {
    let fix = "print fields such as Content-Type: text/plain, then an empty line, then the body";
    let mut fields: Vec<(String, &[u8])> = Vec::new();
    let mut status = None;
    let mut at = 0;
    loop {
        let Some(length) = printed[at..].iter().position(|byte| *byte == b'\n') else {
            return Err(format!(
                "fn.cgi printed no empty line after its header fields: {fix}"
            ));
        };
        let line = &printed[at..at + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += length + 1;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(100)]);
            format!("fn.cgi printed {shown:?} where header fields belong: {fix}")
        })?;
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        let value = line[colon + 1..].trim_ascii();
        if name == "status" {
            status = Some(status_of(value)?);
        } else {
            fields.push((name, value));
        }
    }
    let is_named = |wanted: &str| fields.iter().any(|(name, _)| name == wanted);
    let redirects = is_named("location");
    let status = status.unwrap_or(if redirects { 302 } else { 200 });
    let has_type = is_named("content-type");
    let mut payload = printed.slice(at..);
    if WITHOUT_BODY.contains(&status) {
        payload.clear();
        fields.retain(|(name, _)| name != "content-type");
    } else if !has_type && !payload.is_empty() {
        fields.push(("content-type".to_owned(), type_of(&payload)));
    }
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), *value));
    let headers = Headers::collect(fields)
        .map_err(|error| format!("fn.cgi printed a header field that cannot be sent: {error}"))?;
    if headers.len_bytes() > HEADERS_BYTES_MAX {
        let bytes = headers.len_bytes();
        return Err(format!(
            "fn.cgi may print {HEADERS_BYTES_MAX} bytes of header fields, got {bytes}"
        ));
    }
    Ok(Reply {
        status,
        headers,
        payload,
    })
}

/// Such as `404 Not Found`.
fn status_of(value: &[u8]) -> Result<u16, String> {
    let text = String::from_utf8_lossy(value);
    let code = text.split_ascii_whitespace().next().unwrap_or_default();
    let status = code.parse().ok().filter(|code| (200..=599).contains(code));
    status.ok_or_else(|| {
        format!("fn.cgi printed the status {text:?}: it must be a number between 200 and 599")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(printed: &str) -> (u16, String, String) {
        let reply = of(Form::Cgi, printed.into()).expect(printed);
        let fields = reply.headers.iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
            .collect();
        let payload = String::from_utf8_lossy(&reply.payload).into_owned();
        (reply.status, fields.join(" "), payload)
    }

    #[test]
    fn a_header_block_sets_status_and_fields() {
        for (printed, status, fields, payload) in [
            (
                "\nbody",
                200,
                "content-type=text/plain; charset=utf-8",
                "body",
            ),
            ("Status: 204 No Content\n\nbody", 204, "", ""),
            (
                "Content-Type: text/html\r\n\r\n<p>\n\n",
                200,
                "content-type=text/html",
                "<p>\n\n",
            ),
            (
                "Status: 404 Not Found\nETag: \"a\"\n\n",
                404,
                "etag=\"a\"",
                "",
            ),
            ("Location: /x\n\n", 302, "location=/x", ""),
            (
                "Status: 201\nLocation:/x\nCache-Control: max-age=60\n\n",
                201,
                "location=/x cache-control=max-age=60",
                "",
            ),
        ] {
            let expected = (status, fields.to_owned(), payload.to_owned());
            assert_eq!(read(printed), expected, "{printed:?}");
        }
    }

    #[test]
    fn what_is_no_header_block_is_the_functions_error() {
        for (printed, part) in [
            ("", "no empty line"),
            ("Content-Type: text/html\n<p>", "no empty line"),
            ("hello\n\n", "\"hello\" where header fields belong"),
            ("Status: fine\n\n", "status \"fine\""),
            ("Status: 700\n\n", "status \"700\""),
            ("A b: c\n\n", "cannot be sent"),
            ("A: b\x01\n\n", "cannot be sent"),
        ] {
            let refused = of(Form::Cgi, printed.into()).expect_err(printed);
            assert!(refused.contains(part), "{printed:?}: {refused}");
        }
    }

    #[test]
    fn without_a_block_all_is_the_body() {
        let reply = of(Form::Body, b"Status: 404\n\n".to_vec()).expect("it is");
        assert_eq!(
            (reply.status, &reply.payload[..]),
            (200, &b"Status: 404\n\n"[..])
        );
    }
}
