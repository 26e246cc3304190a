//! From a call to an invocation.

use super::charged::Ticket;
use super::fields::is_reserved;
use super::proto::tiny_faa_s_server::TinyFaaS;
use super::proto::{Data, Response};
use super::reply;
use bytes::Bytes;
use faas::{HeaderError, Headers, Invocation, Proxy};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Status};

/// The functions of this node as a gRPC service.
#[derive(Debug)]
pub(crate) struct Functions {
    proxy: Arc<Proxy>,
}

impl Functions {
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy }
    }
}

#[tonic::async_trait]
impl TinyFaaS for Functions {
    /// A client that gives up, or whose `grpc-timeout` passes, drops this future, which cancels
    /// the invocation.
    async fn request(&self, request: Request<Data>) -> Result<tonic::Response<Response>, Status> {
        let (metadata, extensions, data) = request.into_parts();
        let ticket = extensions.get::<Arc<Ticket>>();
        if let Some(ticket) = ticket {
            ticket.read();
            // What came is decoded: the text is left of it.
            let bytes = data.function_identifier.len() + data.data.len();
            ticket.resize(bytes).map_err(reply::spent)?;
        }
        let name = data.function_identifier;
        let name = name.strip_prefix('/').unwrap_or(&name);
        let path = Bytes::from(format!("/{name}"));
        let mut invocation = Invocation::new("POST", path, Bytes::from(data.data));
        invocation.headers = headers(&metadata).map_err(reply::bad_metadata)?;
        let invoked = self.proxy.invoke(name, invocation);
        let reply = match patience(&metadata) {
            Some(patience) => tokio::time::timeout(patience, invoked)
                .await
                .map_err(|_elapsed| reply::impatient(patience))?,
            None => invoked.await,
        };
        match reply {
            Ok(reply) => {
                if let Some(ticket) = ticket {
                    let bytes = reply.payload.len() + reply.headers.len_bytes();
                    ticket.resize(bytes).map_err(reply::spent)?;
                }
                reply::encode(reply)
            }
            Err(error) => {
                drop(metadata);
                let _given_back = ticket.is_none_or(|ticket| ticket.resize(0).is_ok());
                self.proxy.hold_back(&error).await;
                Err(reply::status(&error))
            }
        }
    }
}

/// How long the client waits (`grpc-timeout`), less a moment: the library drops the call at that
/// time with a status of its own, which says nothing.
fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // gRPC over HTTP/2 allows eight digits and a unit.
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(time - (time / 10).min(Duration::from_millis(50)))
}

/// The metadata that is meant for the function. Binary values are passed as they travel: base64.
fn headers(metadata: &MetadataMap) -> Result<Headers, HeaderError> {
    let fields = metadata.iter().map(|field| match field {
        KeyAndValueRef::Ascii(key, value) => (key.as_str(), value.as_encoded_bytes()),
        KeyAndValueRef::Binary(key, value) => (key.as_str(), value.as_encoded_bytes()),
    });
    let meant = fields.filter(|(name, _)| !is_reserved(name));
    Headers::collect(meant.map(|(name, value)| (name.as_bytes(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataValue;

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        let check = |text: &'static str, expected: Option<u128>| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", MetadataValue::from_static(text));
            let nanos = |time: Duration| time.as_nanos();
            assert_eq!(patience(&metadata).map(nanos), expected, "{text}");
        };
        check("2H", Some(7_199_950_000_000));
        check("3M", Some(179_950_000_000));
        check("4S", Some(3_950_000_000));
        check("200m", Some(180_000_000));
        check("5000u", Some(4_500_000));
        check("7000000n", Some(6_300_000));
        for bad in ["", "S", "1", "1x", "123456789S", "-1S"] {
            check(bad, None);
        }
    }

    #[test]
    fn metadata_becomes_headers_without_what_belongs_to_grpc() {
        let mut metadata = MetadataMap::new();
        metadata.insert("x-a", MetadataValue::from_static("1"));
        metadata.insert("te", MetadataValue::from_static("trailers"));
        metadata.insert("grpc-timeout", MetadataValue::from_static("1S"));
        metadata.insert_bin("x-b-bin", MetadataValue::from_bytes(b"\0\x01"));
        let headers = headers(&metadata).unwrap();
        assert_eq!(headers.get("x-a"), Some(&b"1"[..]));
        assert_eq!(headers.get("x-b-bin"), Some(&b"AAE"[..]));
        assert_eq!(headers.iter().count(), 2);
    }
}
