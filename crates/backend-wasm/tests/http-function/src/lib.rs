//! Replies as its query asks: `trap`, `fetch`, `large`, `silent`; else with what came.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};

struct Function;

wasip2::http::proxy::export!(Function);

impl Guest for Function {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (_, query) = target.split_once('?').unwrap_or_default();
        let body = match query {
            "trap" => panic!("asked to"),
            "silent" => return,
            "fetch" => fetch().into_bytes(),
            "large" => vec![b'x'; 20 << 20],
            _ => read(&request),
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

fn fetch() -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_path_with_query(Some("/")).unwrap();
    request.set_authority(Some("127.0.0.1:9")).unwrap();
    match outgoing_handler::handle(request, None) {
        Err(code) => format!("{code:?}"),
        Ok(reply) => {
            reply.subscribe().block();
            match reply.get() {
                Some(Ok(Ok(_))) => "it was sent".to_owned(),
                other => format!("{other:?}"),
            }
        }
    }
}
