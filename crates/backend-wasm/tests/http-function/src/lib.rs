//! Replies as its query asks: `trap`, `large`, `silent`, `fetch=URL`; else with what came.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;

struct Function;

wasip2::http::proxy::export!(Function);

impl Guest for Function {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (_, query) = target.split_once('?').unwrap_or_default();
        let body = match query {
            "trap" => panic!("asked to"),
            "silent" => return,
            "large" => vec![b'x'; 20 << 20],
            _ => match query.strip_prefix("fetch=") {
                Some(url) => fetch(url).unwrap_or_else(|code| format!("{code:?}").into_bytes()),
                None => read(&request),
            },
        };
        let fields = Fields::new();
        for (name, value) in request.headers().entries() {
            if name.starts_with("x-") {
                fields.append(&name, &value).unwrap();
            }
        }
        fields.append("x-target", target.as_bytes()).unwrap();
        let response = OutgoingResponse::new(fields);
        response.set_status_code(201).unwrap();
        let outgoing = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        eprintln!("replying to {target}");
        let stream = outgoing.write().unwrap();
        for chunk in body.chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                return;
            }
        }
        drop(stream);
        let _ = OutgoingBody::finish(outgoing, None);
    }
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let incoming = request.consume().unwrap();
    let stream = incoming.stream().unwrap();
    let mut body = Vec::new();
    while let Ok(chunk) = stream.blocking_read(65536) {
        body.extend(chunk);
    }
    body
}

/// Gets `SCHEME://AUTHORITY/PATH`: the status and the body, or what went wrong.
fn fetch(url: &str) -> Result<Vec<u8>, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap();
    let at = rest.find('/').unwrap_or(rest.len());
    let scheme = match scheme {
        "http" => Scheme::Http,
        _ => Scheme::Https,
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).unwrap();
    request.set_authority(Some(&rest[..at])).unwrap();
    request.set_path_with_query(Some(&rest[at..])).unwrap();
    let reply = outgoing_handler::handle(request, None)?;
    reply.subscribe().block();
    let response = reply.get().unwrap().unwrap()?;
    let mut text = format!("{} ", response.status()).into_bytes();
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    loop {
        match stream.blocking_read(65536) {
            Ok(chunk) => text.extend(chunk),
            Err(StreamError::Closed) => return Ok(text),
            Err(StreamError::LastOperationFailed(error)) => {
                let text = || ErrorCode::InternalError(Some(error.to_debug_string()));
                return Err(http_error_code(&error).unwrap_or_else(text));
            }
        }
    }
}
