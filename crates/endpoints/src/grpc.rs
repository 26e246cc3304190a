//! The gRPC endpoint: the service `TinyFaaS`, reflection, and the standard health service.

mod call;
mod charged;
mod fields;
mod reply;

use crate::connection::Connection;
use crate::http::head;
use crate::metered::Metered;
use crate::server::{self, Style};
use charged::{ChargedBody, Ticket};
use faas::{Proxy, Reserve};
use http::{Request, Response};
use hyper::body::Incoming;
use net::Clients;
use proto::tiny_faa_s_server::TinyFaaSServer;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::Service;

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

/// The path of a function's call.
const CALL: &str = "/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";

/// Answers gRPC on `listener` until `shutdown`. The first connection calls the reserve.
///
/// Then the health service says `NOT_SERVING`, no connection is accepted any more, and calls
/// under way finish, up to [`Limits::drain`](faas::Limits::drain).
pub async fn serve(
    listener: TcpListener,
    clients: Arc<Clients>,
    (proxy, reserve): (Arc<Proxy>, Arc<Reserve>),
    shutdown: CancellationToken,
) {
    let message_bytes_max = proxy.limits().payload_bytes_max + ENVELOPE_BYTES_MAX;
    let (mut health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status(SERVICE, ServingStatus::Serving)
        .await;
    let functions = TinyFaaSServer::new(call::Functions::new(Arc::clone(&proxy)))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let (reflection, reflection_alpha) = reflection();
    let routes = Routes::new(functions)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha);
    let door = Door {
        routes: routes.prepare(),
        proxy: Arc::clone(&proxy),
        reserve,
    };
    let stopping = async {
        shutdown.cancelled().await;
        for service in ["", SERVICE] {
            health
                .set_service_status(service, ServingStatus::NotServing)
                .await;
            // Ends the streams of those who watch, which would keep their connections open.
            health.clear_service_status(service).await;
        }
    };
    let serving = server::serve(listener, clients, (door, proxy), shutdown.clone());
    let (cut, ()) = tokio::join!(serving, stopping);
    if cut > 0 {
        tracing::warn!(connections = cut, "gRPC connections were cut");
    }
}

/// What answers calls.
#[derive(Debug)]
struct Door {
    routes: Routes,
    proxy: Arc<Proxy>,
    reserve: Arc<Reserve>,
}

impl server::Door for Door {
    type Body = Metered<tonic::body::Body>;

    const STYLE: Style = Style::Grpc;

    fn greet(&self) {
        self.reserve.call();
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Self::Body> {
        if let Err(error) = head::check(&request, self.proxy.limits()) {
            let response = reply::bad_head(&error).into_http();
            return response.map(|body| Metered::new(body, None, connection));
        }
        let ticket = match Ticket::take(connection, request.headers()) {
            Ok(ticket) => Arc::new(ticket),
            Err(spent) => {
                let response = reply::spent(spent).into_http();
                return response.map(|body| Metered::new(body, None, connection));
            }
        };
        let is_call = request.uri().path() == CALL;
        let pace = is_call.then(|| self.proxy.limits());
        let mut request = request.map(|body| ChargedBody::new(body, Arc::clone(&ticket), pace));
        request.extensions_mut().insert(Arc::clone(&ticket));
        let Ok(mut response) = self.routes.clone().call(request).await;
        if is_call && !ticket.is_read() {
            reply::blame_caller(&mut response);
        }
        response.map(|body| Metered::new(body, ticket.give(), connection))
    }
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
