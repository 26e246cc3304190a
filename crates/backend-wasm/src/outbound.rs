//! Requests that a component sends to the hosts on its list.

use crate::resolver::Resolver;
use bytes::Bytes;
use faas::{HostPattern, Limits};
use http::Uri;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

type Connector = HttpsConnector<HttpConnector<Resolver>>;
/// A response, and what goes on beside reading it.
pub(crate) type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

/// What one function may send.
#[derive(Debug)]
pub(crate) struct Outbound {
    allowed: Vec<HostPattern>,
    limits: Arc<Limits>,
    /// Made with the first request: reading the host's certificates takes time and memory.
    client: OnceLock<Client<Connector, WasiBody>>,
}

impl Outbound {
    /// None where the list is empty.
    pub(crate) fn new(allowed: &[HostPattern], limits: &Arc<Limits>) -> Option<Arc<Self>> {
        (!allowed.is_empty()).then(|| {
            Arc::new(Self {
                allowed: allowed.to_vec(),
                limits: Arc::clone(limits),
                client: OnceLock::new(),
            })
        })
    }

    /// The places of one call.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.limits.outbound_at_once_max))
    }

    /// Sends a request, where its host is on the list. Redirects are the component's to follow,
    /// so that each of their hosts is looked up too.
    pub(crate) async fn send(
        self: Arc<Self>,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        places: Arc<Semaphore>,
    ) -> Sent {
        if !self.allows(request.uri()) {
            return Err(Error::HttpRequestDenied);
        }
        let place = places.try_acquire_owned();
        let place = place.map_err(|_none| Error::ConnectionLimitReached)?;
        // The client connects by the target's host and sends only its path.
        *request.version_mut() = http::Version::HTTP_11;
        let wanted = |wanted: Option<Duration>, max: Duration| wanted.map_or(max, |w| w.min(max));
        let options = options.unwrap_or(RequestOptions {
            connect_timeout: None,
            first_byte_timeout: None,
            between_bytes_timeout: None,
        });
        let idle = self.limits.outbound_idle;
        let connect = wanted(options.connect_timeout, self.limits.outbound_connect);
        let first_byte = connect + wanted(options.first_byte_timeout, idle);
        let sending = self.client()?.request(request);
        let Ok(response) = tokio::time::timeout(first_byte, sending).await else {
            return Err(Error::HttpResponseTimeout);
        };
        let response = response.map_err(|error| told(&error))?;
        let idle = wanted(options.between_bytes_timeout, idle);
        let response = response.map(|incoming| {
            let received = Received {
                incoming,
                idle,
                expires: Box::pin(tokio::time::sleep(idle)),
                bytes_max: self.limits.payload_bytes_max,
                bytes: 0,
                _place: place,
            };
            received.boxed_unsync()
        });
        Ok((response, Box::new(std::future::ready(Ok(())))))
    }

    fn allows(&self, target: &Uri) -> bool {
        let own_port = if target.scheme() == Some(&Scheme::HTTP) {
            80
        } else {
            443
        };
        let port = target.port_u16().unwrap_or(own_port);
        let host = target.host().unwrap_or_default();
        self.allowed
            .iter()
            .any(|pattern| pattern.allows(host, port, own_port))
    }

    fn client(&self) -> Result<&Client<Connector, WasiBody>, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = make(&self.limits).map_err(|error| {
            tracing::warn!(%error, "functions can't send requests");
            Error::ConfigurationError
        })?;
        Ok(self.client.get_or_init(|| made))
    }
}

/// A client that trusts what the host trusts.
fn make(limits: &Limits) -> Result<Client<Connector, WasiBody>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(Resolver::new());
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limits.outbound_connect));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limits.outbound_kept)
        .pool_max_idle_per_host(limits.outbound_kept_max)
        .http1_max_buf_size(limits.headers_bytes_max)
        .build(connector))
}

/// What the component is told of a request that failed.
fn told(error: &ClientError) -> Error {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
                _ => Error::TlsProtocolError,
            };
        }
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            // One that wraps another says less than that one.
            match error.get_ref() {
                Some(wrapped) => {
                    source = Some(wrapped);
                    continue;
                }
                None => return Error::Connect(error.kind().into()),
            }
        }
        source = inner.source();
    }
    if error.is_connect() {
        // Names that are not there and addresses that can't be reached end without a cause.
        return Error::DestinationUnavailable;
    }
    Error::HttpProtocolError
}

/// A response's body, bounded in size and in the time between two pieces.
struct Received {
    incoming: Incoming,
    idle: Duration,
    expires: Pin<Box<Sleep>>,
    bytes_max: usize,
    bytes: usize,
    _place: OwnedSemaphorePermit,
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.expires.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        let expires = Instant::now() + self.idle;
        self.expires.as_mut().reset(expires);
        let frame = match next {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
        if self.bytes > self.bytes_max {
            let bytes_max = u64::try_from(self.bytes_max).ok();
            return Poll::Ready(Some(Err(Error::HttpResponseBodySize(bytes_max))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
