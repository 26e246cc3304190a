//! Replies with what came: a `wasi:http` 0.2 component, which runs wherever such components do.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Function;

wasip2::http::proxy::export!(Function);

impl Guest for Function {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let received = request.consume().unwrap();
        let source = received.stream().unwrap();
        let response = OutgoingResponse::new(Fields::new());
        let sent = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let sink = sent.write().unwrap();
        while let Ok(chunk) = source.blocking_read(4096) {
            if sink.blocking_write_and_flush(&chunk).is_err() {
                return;
            }
        }
        drop(sink);
        let _ = OutgoingBody::finish(sent, None);
    }
}
