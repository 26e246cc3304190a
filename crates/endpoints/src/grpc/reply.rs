//! From a reply or an error to a response or a status.

use super::fields::is_reserved;
use super::proto::Response;
use crate::http::head::BadHead;
use faas::{Fault, HeaderError, InvokeError, InvokeErrorKind, Reply};
use net::Spent;
use std::time::Duration;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

/// The metadata that says whose fault it is that there is no reply.
const ERROR_KEY: &str = "x-tinyfaas-error";

/// The metadata with the status that the function chose, where it is not 200.
const STATUS_KEY: &str = "x-tinyfaas-status";

/// Bytes of a function's error text that travel in a status: it is a header field, and clients
/// bound those at 8 KiB by default, with what percent-encoding adds.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// The response for a function's reply; its headers become metadata. A status of 400 and more
/// becomes a gRPC status with the payload as its message.
pub(crate) fn encode(reply: Reply) -> Result<tonic::Response<Response>, Status> {
    let metadata = metadata(&reply);
    if reply.status >= 400 {
        let mut status = Status::new(
            code_of(reply.status),
            cut(&String::from_utf8_lossy(&reply.payload)),
        );
        *status.metadata_mut() = metadata;
        return Err(status);
    }
    // Without another reference to the bytes this copies nothing.
    let Ok(text) = String::from_utf8(Vec::from(reply.payload)) else {
        let message = "the reply is not UTF-8 text, which is all that this service can carry; \
                       call the function over HTTP or CoAP";
        return Err(with_fault(Status::internal(message), Fault::Function));
    };
    let mut response = tonic::Response::new(Response { response: text });
    *response.metadata_mut() = metadata;
    Ok(response)
}

fn metadata(reply: &Reply) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in reply.headers.iter() {
        let is_ours = crate::http::is_ours(name);
        if is_ours || is_reserved(name) || crate::http::is_hop_by_hop(name) {
            continue;
        }
        // What metadata can't carry (binary, or `-bin` that isn't base64) is left out.
        let key = AsciiMetadataKey::from_bytes(name.as_bytes());
        let value = AsciiMetadataValue::try_from(value);
        if let (Ok(key), Ok(value)) = (key, value) {
            metadata.append(key, value);
        }
    }
    if reply.status != 200 {
        metadata.insert(STATUS_KEY, AsciiMetadataValue::from(reply.status));
    }
    metadata
}

/// The gRPC code that means the same as an HTTP status.
fn code_of(status: u16) -> Code {
    match status {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        416 => Code::OutOfRange,
        499 => Code::Cancelled,
        400..=499 => Code::InvalidArgument,
        501 | 505 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// The code of an invocation that brought no reply.
fn code(kind: InvokeErrorKind) -> Code {
    match kind {
        InvokeErrorKind::NotFound => Code::NotFound,
        InvokeErrorKind::Failed => Code::Internal,
        InvokeErrorKind::Deadline => Code::DeadlineExceeded,
        // As gRPC itself answers a message over its bound.
        InvokeErrorKind::Overloaded | InvokeErrorKind::TooLarge(_) => Code::ResourceExhausted,
        InvokeErrorKind::Unavailable => Code::Unavailable,
    }
}

/// The status of an invocation that brought no reply.
pub(crate) fn status(error: &InvokeError) -> Status {
    let status = Status::new(code(error.kind()), cut(&error.to_string()));
    let mut status = with_fault(status, error.fault());
    if let Some(seconds) = error.retry_after_seconds() {
        let seconds = AsciiMetadataValue::from(seconds);
        status.metadata_mut().insert("retry-after", seconds);
    }
    status
}

/// The status where there is no memory for the call or its reply.
pub(crate) fn spent(error: Spent) -> Status {
    let status = Status::resource_exhausted(error.to_string());
    let mut status = with_fault(status, Fault::Platform);
    let pause = AsciiMetadataValue::from_static("5");
    status.metadata_mut().insert("retry-after", pause);
    status
}

/// The status where a message comes too slowly.
pub(crate) fn slow(bytes_min: u64) -> Status {
    let message = format!("the message came too slowly; send at least {bytes_min} bytes a second");
    with_fault(Status::deadline_exceeded(message), Fault::Caller)
}

/// Says whose fault it is that no message could be read, and with a code that tells callers not to
/// send it again: the library calls all but one of these faults an internal error.
pub(crate) fn blame_caller<B>(response: &mut http::Response<B>) {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return;
    };
    // What the endpoint itself refused says it already.
    if status.metadata().contains_key(ERROR_KEY) {
        return;
    }
    let found = status.message();
    let status = match status.code() {
        Code::OutOfRange => Status::resource_exhausted(format!(
            "the message is too large ({found}); send less, or call the function over HTTP"
        )),
        Code::Internal => Status::invalid_argument(format!(
            "the message could not be read ({found}); send one message Data of tinyfaas.proto, \
             which reflection describes"
        )),
        code => Status::new(code, found),
    };
    let status = with_fault(status, Fault::Caller);
    // What can't be a field is not told; the code the library chose stays then.
    let _is_told = status.add_header(response.headers_mut()).is_ok();
}

/// The status where metadata can't be passed on.
pub(crate) fn bad_metadata(error: HeaderError) -> Status {
    with_fault(Status::invalid_argument(error.to_string()), Fault::Caller)
}

/// The status where the head of a call is refused.
pub(crate) fn bad_head(error: &BadHead) -> Status {
    let code = match error {
        BadHead::Fields { .. } => Code::ResourceExhausted,
        BadHead::NoHost | BadHead::SeveralHosts | BadHead::Host | BadHead::OtherHost => {
            Code::InvalidArgument
        }
        BadHead::Method { .. } | BadHead::Connect | BadHead::Coding => Code::Unimplemented,
    };
    with_fault(Status::new(code, error.to_string()), Fault::Caller)
}

/// The status where the client's own `grpc-timeout` passed first.
pub(crate) fn impatient(patience: Duration) -> Status {
    let message = format!("no reply within the call's timeout of {patience:.0?}");
    with_fault(Status::deadline_exceeded(message), Fault::Function)
}

fn with_fault(mut status: Status, fault: Fault) -> Status {
    let fault = AsciiMetadataValue::from_static(fault.as_str());
    status.metadata_mut().insert(ERROR_KEY, fault);
    status
}

fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas::RequestPart;

    #[test]
    fn every_kind_of_error_has_its_code() {
        let check = |kind, expected| assert_eq!(code(kind), expected, "{kind:?}");
        check(InvokeErrorKind::NotFound, Code::NotFound);
        check(
            InvokeErrorKind::TooLarge(RequestPart::Body),
            Code::ResourceExhausted,
        );
        check(InvokeErrorKind::Failed, Code::Internal);
        check(InvokeErrorKind::Deadline, Code::DeadlineExceeded);
        check(InvokeErrorKind::Overloaded, Code::ResourceExhausted);
        check(InvokeErrorKind::Unavailable, Code::Unavailable);
    }
}
