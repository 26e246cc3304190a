//! The frames of the handler protocol, version 1: encoding and decoding without input or output.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use faas::{Headers, Invocation};
use std::time::Duration;

/// The version in `HELLO`.
pub const VERSION: u16 = 1;
/// The largest frame, its length field included.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The largest header block.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;
/// The longest text of `FAILED` and of a failed `REPLY`.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The longest body of `PING` and `PONG`.
pub const PING_BYTES_MAX: usize = 64;

/// `u32 len, u32 id, u8 kind, u8 flags, u16 word, u32 headers_len`.
const HEADER_BYTES: usize = 16;
const LEN_BYTES: usize = 4;
/// `u64 invocation, u32 deadline_ms, u16 path_len, u16 query_len`.
const REQUEST_FIXED_BYTES: usize = 16;
const FLAG_FAILED: u8 = 1;
const FLAG_NOT_BEGUN: u8 = 2;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const REPLY: u8 = 3;
    pub(super) const CANCEL: u8 = 4;
    pub(super) const PING: u8 = 5;
    pub(super) const PONG: u8 = 6;
    pub(super) const FAILED: u8 = 7;
    pub(super) const LEAVING: u8 = 8;
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is below the header's size or over the bound.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// The kind is not known or not one that this side may send.
    #[error("a frame of kind {0}, which it may not send")]
    Kind(u8),
    /// A part is longer than the frame or over its bound.
    #[error("a frame whose {0} is longer than allowed")]
    Part(&'static str),
    /// A part holds what it may not.
    #[error("a frame whose {0} is malformed")]
    Malformed(&'static str),
    /// The version in `HELLO` is not [`VERSION`].
    #[error("handler protocol version {0}; this tinyFaaS speaks {VERSION}")]
    Version(u16),
}

/// What a handler sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHandler {
    /// The function is loaded.
    Hello {
        /// How many invocations the handler wants at once, at least one.
        at_once: u16,
    },
    /// The outcome of a request.
    Reply {
        /// The request's id.
        id: u32,
        /// What the function answered, or its message where it failed.
        outcome: Outcome,
    },
    /// The answer to a ping.
    Pong,
    /// The function could not be loaded, for this reason.
    Failed(String),
    /// The handler wants no more requests, finishes those that it has, and is to be replaced.
    Leaving,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function's reply.
    Reply(faas::Reply),
    /// The function threw or exited with an error; the text is its own.
    Failed(String),
    /// The handler gives the request back: the function has seen nothing of it.
    NotBegun,
}

/// What the proxy sends.
#[derive(Debug, Clone)]
pub enum FromProxy {
    /// An invocation to run.
    Request {
        /// The id that the reply must have.
        id: u32,
        /// The number of the invocation in this tinyFaaS.
        invocation: u64,
        /// What the function has left.
        time_left: Duration,
        /// Such as `POST`.
        method: Bytes,
        /// With its leading slash.
        path: Bytes,
        /// Undecoded, without `?`.
        query: Bytes,
        /// The header fields.
        headers: Headers,
        /// The body.
        payload: Bytes,
    },
    /// The reply to this request has no taker any more.
    Cancel {
        /// The request's id.
        id: u32,
    },
    /// Asks for a `PONG` with the same bytes.
    Ping(Bytes),
}

/// Appends a `REQUEST`.
///
/// # Errors
/// If a part is longer than its length field or the frame over its bound; nothing is appended.
pub fn encode_request(
    out: &mut BytesMut,
    id: u32,
    invocation: &Invocation,
    time_left: Duration,
) -> Result<(), FrameError> {
    let part = |what, len: usize| u16::try_from(len).map_err(|_too_long| FrameError::Part(what));
    let method_len = part("method", invocation.method.len())?;
    let path_len = part("path", invocation.path.len())?;
    let query_len = part("query", invocation.query.len())?;
    let headers = invocation.headers.as_block();
    let body_len = REQUEST_FIXED_BYTES
        + invocation.method.len()
        + invocation.path.len()
        + invocation.query.len()
        + headers.len()
        + invocation.payload.len();
    put_header(
        out,
        Header {
            id,
            kind: kind::REQUEST,
            flags: 0,
            word: method_len,
        },
        headers.len(),
        body_len,
    )?;
    out.put_u64(invocation.id.get());
    out.put_u32(u32::try_from(time_left.as_millis()).unwrap_or(u32::MAX));
    out.put_u16(path_len);
    out.put_u16(query_len);
    for piece in [
        &invocation.method,
        &invocation.path,
        &invocation.query,
        headers,
        &invocation.payload,
    ] {
        out.put_slice(piece);
    }
    Ok(())
}

/// Appends a `CANCEL`.
pub fn encode_cancel(out: &mut BytesMut, id: u32) {
    put_small(
        out,
        Header {
            id,
            kind: kind::CANCEL,
            flags: 0,
            word: 0,
        },
        0,
        &[],
    );
}

/// Appends a `PING`; the bytes are cut at [`PING_BYTES_MAX`].
pub fn encode_ping(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(PING_BYTES_MAX)];
    put_small(
        out,
        Header {
            id: 0,
            kind: kind::PING,
            flags: 0,
            word: 0,
        },
        0,
        bytes,
    );
}

/// Appends a `PONG`; the bytes are cut at [`PING_BYTES_MAX`].
pub fn encode_pong(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(PING_BYTES_MAX)];
    put_small(
        out,
        Header {
            id: 0,
            kind: kind::PONG,
            flags: 0,
            word: 0,
        },
        0,
        bytes,
    );
}

/// Appends a `HELLO` of a handler that wants `at_once` invocations at once.
pub fn encode_hello(out: &mut BytesMut, at_once: u16) {
    let header = Header {
        id: 0,
        kind: kind::HELLO,
        flags: 0,
        word: VERSION,
    };
    put_small(out, header, u32::from(at_once), &[]);
}

/// Appends a `REPLY`.
///
/// # Errors
/// If the reply is larger than a frame may be; nothing is appended.
pub fn encode_reply(out: &mut BytesMut, id: u32, reply: &faas::Reply) -> Result<(), FrameError> {
    let headers = reply.headers.as_block();
    let header = Header {
        id,
        kind: kind::REPLY,
        flags: 0,
        word: reply.status,
    };
    put_header(
        out,
        header,
        headers.len(),
        headers.len() + reply.payload.len(),
    )?;
    out.put_slice(headers);
    out.put_slice(&reply.payload);
    Ok(())
}

/// Appends the `REPLY` of a function that failed; the message is cut at [`MESSAGE_BYTES_MAX`].
pub fn encode_failure(out: &mut BytesMut, id: u32, message: &str) {
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let header = Header {
        id,
        kind: kind::REPLY,
        flags: FLAG_FAILED,
        word: 500,
    };
    put_small(out, header, 0, message.as_bytes());
}

/// Appends the `REPLY` that gives a request back.
pub fn encode_not_begun(out: &mut BytesMut, id: u32) {
    let header = Header {
        id,
        kind: kind::REPLY,
        flags: FLAG_NOT_BEGUN,
        word: 503,
    };
    put_small(out, header, 0, &[]);
}

/// Appends a `LEAVING`.
pub fn encode_leaving(out: &mut BytesMut) {
    let header = Header {
        id: 0,
        kind: kind::LEAVING,
        flags: 0,
        word: 0,
    };
    put_small(out, header, 0, &[]);
}

/// Appends a `FAILED`; the reason is cut at [`MESSAGE_BYTES_MAX`].
pub fn encode_failed(out: &mut BytesMut, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(MESSAGE_BYTES_MAX)];
    put_small(
        out,
        Header {
            id: 0,
            kind: kind::FAILED,
            flags: 0,
            word: 0,
        },
        0,
        reason.as_bytes(),
    );
}

/// Takes the next whole frame of a handler off the front of `buffer`; none where more bytes are
/// needed, for which room is made.
///
/// # Errors
/// If the handler broke the protocol; the stream is of no use then.
pub fn decode_from_handler(buffer: &mut BytesMut) -> Result<Option<FromHandler>, FrameError> {
    let Some(frame) = take_frame(buffer)? else {
        return Ok(None);
    };
    let Frame {
        header,
        headers_len,
        mut body,
    } = frame;
    let decoded = match header.kind {
        kind::HELLO => {
            if header.word != VERSION {
                return Err(FrameError::Version(header.word));
            }
            let at_once = u16::try_from(headers_len).ok().filter(|&n| n > 0);
            FromHandler::Hello {
                at_once: at_once.ok_or(FrameError::Malformed("at once"))?,
            }
        }
        kind::REPLY if header.flags & FLAG_FAILED != 0 => {
            let outcome = Outcome::Failed(message(&body)?);
            FromHandler::Reply {
                id: header.id,
                outcome,
            }
        }
        kind::REPLY if header.flags & FLAG_NOT_BEGUN != 0 => FromHandler::Reply {
            id: header.id,
            outcome: Outcome::NotBegun,
        },
        kind::REPLY => {
            let headers = take_headers(&mut body, headers_len)?;
            if !(200..600).contains(&header.word) {
                return Err(FrameError::Malformed("status"));
            }
            let outcome = Outcome::Reply(faas::Reply {
                status: header.word,
                headers,
                payload: body,
            });
            FromHandler::Reply {
                id: header.id,
                outcome,
            }
        }
        kind::PONG if body.len() <= PING_BYTES_MAX => FromHandler::Pong,
        kind::PONG => return Err(FrameError::Part("body")),
        kind::FAILED => FromHandler::Failed(message(&body)?),
        kind::LEAVING if body.is_empty() => FromHandler::Leaving,
        kind::LEAVING => return Err(FrameError::Part("body")),
        other => return Err(FrameError::Kind(other)),
    };
    Ok(Some(decoded))
}

/// Takes the next whole frame of the proxy off the front of `buffer`; none where more bytes are
/// needed, for which room is made.
///
/// # Errors
/// If the proxy broke the protocol; the stream is of no use then.
pub fn decode_from_proxy(buffer: &mut BytesMut) -> Result<Option<FromProxy>, FrameError> {
    let Some(frame) = take_frame(buffer)? else {
        return Ok(None);
    };
    let Frame {
        header,
        headers_len,
        mut body,
    } = frame;
    let decoded = match header.kind {
        kind::REQUEST => {
            if body.len() < REQUEST_FIXED_BYTES {
                return Err(FrameError::Part("fixed part"));
            }
            let invocation = body.get_u64();
            let time_left = Duration::from_millis(u64::from(body.get_u32()));
            let path_len = body.get_u16();
            let query_len = body.get_u16();
            let method = take_part(&mut body, usize::from(header.word), "method")?;
            let path = take_part(&mut body, usize::from(path_len), "path")?;
            let query = take_part(&mut body, usize::from(query_len), "query")?;
            let headers = take_headers(&mut body, headers_len)?;
            let (id, payload) = (header.id, body);
            FromProxy::Request {
                id,
                invocation,
                time_left,
                method,
                path,
                query,
                headers,
                payload,
            }
        }
        kind::CANCEL => FromProxy::Cancel { id: header.id },
        kind::PING if body.len() <= PING_BYTES_MAX => FromProxy::Ping(body),
        kind::PING => return Err(FrameError::Part("body")),
        other => return Err(FrameError::Kind(other)),
    };
    Ok(Some(decoded))
}

#[derive(Clone, Copy)]
struct Header {
    id: u32,
    kind: u8,
    flags: u8,
    word: u16,
}

struct Frame {
    header: Header,
    headers_len: u32,
    body: Bytes,
}

fn put_header(
    out: &mut BytesMut,
    header: Header,
    headers_len: usize,
    body_len: usize,
) -> Result<(), FrameError> {
    if headers_len > HEADERS_BYTES_MAX {
        return Err(FrameError::Part("header block"));
    }
    let headers_len =
        u32::try_from(headers_len).map_err(|_too_long| FrameError::Part("header block"))?;
    let whole = HEADER_BYTES + body_len;
    let len = u32::try_from(whole - LEN_BYTES).map_err(|_too_long| FrameError::Length(whole))?;
    if whole > FRAME_BYTES_MAX {
        return Err(FrameError::Length(whole));
    }
    out.reserve(whole);
    put_fields(out, len, header, headers_len);
    Ok(())
}

fn put_small(out: &mut BytesMut, header: Header, headers_len: u32, body: &[u8]) {
    let len = u32::try_from(HEADER_BYTES - LEN_BYTES + body.len())
        .expect("the callers cut their bodies far below 4 GiB");
    put_fields(out, len, header, headers_len);
    out.put_slice(body);
}

fn put_fields(out: &mut BytesMut, len: u32, header: Header, headers_len: u32) {
    out.put_u32(len);
    out.put_u32(header.id);
    out.put_u8(header.kind);
    out.put_u8(header.flags);
    out.put_u16(header.word);
    out.put_u32(headers_len);
}

fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(len) = buffer.first_chunk::<LEN_BYTES>() else {
        return Ok(None);
    };
    let whole = LEN_BYTES + u32::from_be_bytes(*len) as usize;
    if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&whole) {
        return Err(FrameError::Length(whole));
    }
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(whole).freeze();
    body.advance(LEN_BYTES);
    let header = Header {
        id: body.get_u32(),
        kind: body.get_u8(),
        flags: body.get_u8(),
        word: body.get_u16(),
    };
    let headers_len = body.get_u32();
    Ok(Some(Frame {
        header,
        headers_len,
        body,
    }))
}

fn take_part(body: &mut Bytes, len: usize, what: &'static str) -> Result<Bytes, FrameError> {
    if len > body.len() {
        return Err(FrameError::Part(what));
    }
    Ok(body.split_to(len))
}

fn take_headers(body: &mut Bytes, len: u32) -> Result<Headers, FrameError> {
    let len = len as usize;
    if len > HEADERS_BYTES_MAX {
        return Err(FrameError::Part("header block"));
    }
    let block = take_part(body, len, "header block")?;
    Headers::parse(block).map_err(|_grammar| FrameError::Malformed("header block"))
}

fn message(body: &Bytes) -> Result<String, FrameError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(FrameError::Part("message"));
    }
    Ok(String::from_utf8_lossy(body).into_owned())
}

#[cfg(test)]
mod tests;
