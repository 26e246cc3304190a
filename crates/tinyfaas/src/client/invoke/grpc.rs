//! Calling over gRPC.

use super::{Answer, Call};
use crate::client::localhost;
use crate::failure::Failure;
use anyhow::{Context, Result, bail};
use endpoints::grpc::proto::Data;
use endpoints::grpc::proto::tiny_faa_s_client::TinyFaaSClient;
use tonic::metadata::{AsciiMetadataKey, KeyAndValueRef, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The largest reply that is taken.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The most metadata that is taken: what a function may send, 64 KiB, with the 32 bytes that HTTP/2
/// counts for each field (RFC 9113, section 6.5.2), however short they are. Without it, the library
/// takes 16 KiB.
const METADATA_BYTES_MAX: u32 = 1 << 20;

pub(super) fn call(call: &Call) -> Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(request(call))
}

async fn request(call: &Call) -> Result<Answer> {
    let Ok(data) = String::from_utf8(call.payload.clone()) else {
        bail!("gRPC carries text only, and the payload is not UTF-8; use http or coap");
    };
    let mut request = Request::new(Data {
        function_identifier: call.target.name.clone(),
        data,
    });
    for (name, value) in &call.headers {
        let key: AsciiMetadataKey = name
            .to_ascii_lowercase()
            .parse()
            .with_context(|| format!("the header {name} can't be sent as metadata"))?;
        let value = value
            .parse()
            .with_context(|| format!("the value of {name} can't be sent as metadata"))?;
        request.metadata_mut().append(key, value);
    }
    request.set_timeout(call.timeout);
    let Some(channel) = connect(call).await? else {
        return Err(Failure::EndpointUnreachable(call.target.text.clone()).into());
    };
    let mut client = TinyFaaSClient::new(channel)
        .max_decoding_message_size(REPLY_BYTES_MAX)
        .max_encoding_message_size(REPLY_BYTES_MAX);
    Ok(match client.request(request).await {
        Ok(response) => Answer {
            status: "gRPC OK".to_owned(),
            is_success: true,
            is_unknown: false,
            headers: shown(response.metadata()),
            payload: response.into_inner().response.into_bytes(),
        },
        Err(status) => refused(&status),
    })
}

/// A connection to the first address that answers.
async fn connect(call: &Call) -> Result<Option<Channel>> {
    let target = &call.target;
    let named = format!("http://{}", target.authority());
    let addresses = if localhost::is_local(&target.host) {
        let found = localhost::addresses(&target.host, target.port)?.into_iter();
        found.map(|addr| format!("http://{addr}")).collect()
    } else {
        vec![named.clone()]
    };
    for address in addresses {
        let endpoint = Channel::from_shared(address)?
            .connect_timeout(call.timeout)
            .http2_max_header_list_size(METADATA_BYTES_MAX)
            .origin(named.parse()?);
        if let Ok(channel) = endpoint.connect().await {
            return Ok(Some(channel));
        }
    }
    Ok(None)
}

fn refused(status: &Status) -> Answer {
    let fault = status.metadata().get("x-tinyfaas-error");
    let is_callers = fault.is_some_and(|fault| fault == "caller");
    Answer {
        status: format!("gRPC {:?}", status.code()),
        is_success: false,
        is_unknown: status.code() == Code::NotFound && is_callers,
        headers: shown(status.metadata()),
        payload: status.message().as_bytes().to_vec(),
    }
}

fn shown(metadata: &MetadataMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let field = |field: KeyAndValueRef<'_>| match field {
        KeyAndValueRef::Ascii(key, value) => (key.to_string(), text(value.as_encoded_bytes())),
        KeyAndValueRef::Binary(key, value) => (key.to_string(), text(value.as_encoded_bytes())),
    };
    metadata.iter().map(field).collect()
}
