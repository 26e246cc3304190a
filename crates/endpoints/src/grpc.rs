//! The gRPC endpoint: the service `TinyFaaS`, reflection, and the standard health service.

mod call;
mod incoming;
mod reply;

use crate::listen::Listener;
use faas::{Proxy, Reserve};
use proto::tiny_faa_s_server::TinyFaaSServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;

/// The messages, the client and the server that proto/tinyfaas.proto describes.
#[expect(
    clippy::doc_markdown,
    clippy::missing_errors_doc,
    clippy::allow_attributes_without_reason,
    reason = "the code is generated"
)]
pub mod proto {
    tonic::include_proto!("openfogstack.tinyfaas.tinyfaas");
}

/// The description of the service for clients that ask by reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tinyfaas.bin"));

/// The service's full name.
const SERVICE: &str = "openfogstack.tinyfaas.tinyfaas.TinyFaaS";

/// What the messages may take beside their payload.
const ENVELOPE_BYTES_MAX: usize = 1 << 10;

/// How long a client may take to answer a ping before its connection is closed.
const PING_ANSWER: Duration = Duration::from_secs(10);

/// Answers gRPC on `listener` until `shutdown`. The first connection calls the reserve.
///
/// Then the health service says `NOT_SERVING`, no connection is accepted any more, and calls
/// under way finish, up to [`Limits::drain`](faas::Limits::drain).
///
/// # Errors
/// Where the server can't run on the listener.
pub async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    reserve: Arc<Reserve>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let limits = proxy.limits();
    let (idle, drain, head) = (limits.http_idle, limits.drain, limits.http_head);
    let headers_bytes_max = u32::try_from(limits.headers_bytes_max).unwrap_or(u32::MAX);
    let streams_max = limits.http2_streams_max;
    let message_bytes_max = limits.payload_bytes_max + ENVELOPE_BYTES_MAX;
    let listener = Listener::new(listener, limits.connections_max);
    let (mut health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status(SERVICE, ServingStatus::Serving)
        .await;
    let functions = TinyFaaSServer::new(call::Functions::new(proxy))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let stopped = shutdown.clone();
    let stopping = async move {
        stopped.cancelled().await;
        for service in ["", SERVICE] {
            health
                .set_service_status(service, ServingStatus::NotServing)
                .await;
            // Ends the streams of those who watch, which would keep their connections open.
            health.clear_service_status(service).await;
        }
    };
    let (reflection, reflection_alpha) = reflection();
    let server = Server::builder()
        .http2_keepalive_interval(Some(idle))
        .http2_keepalive_timeout(Some(PING_ANSWER))
        .http2_max_header_list_size(headers_bytes_max)
        .max_concurrent_streams(streams_max)
        .add_service(functions)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .serve_with_incoming_shutdown(incoming::connections(listener, head, reserve), stopping);
    tokio::select! {
        served = server => served,
        () = drained(&shutdown, drain) => {
            tracing::warn!("gRPC connections are cut");
            Ok(())
        }
    }
}

async fn drained(shutdown: &CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
}

/// Both versions of the reflection service, since clients ask for either.
fn reflection() -> (
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::v1alpha::ServerReflectionServer<
        impl tonic_reflection::server::v1alpha::ServerReflection,
    >,
) {
    let configured = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = configured().build_v1();
    let v1alpha = configured().build_v1alpha();
    (
        v1.expect("the descriptors were made by the build"),
        v1alpha.expect("the descriptors were made by the build"),
    )
}
