//! Functions that are `wasi:http/proxy` components of WASI 0.2.

use super::State;
use super::own::{checked, too_large};
use crate::failure::{Failure, no_instance};
use crate::outbound::{Outbound, Sent};
use crate::shared::Shared;
use bytes::Bytes;
use faas::{Invocation, LogStream, PrepareError, Reply};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// The interface that such a component exports, up to its version's last part.
pub(crate) const EXPORT: &str = "wasi:http/incoming-handler@0.2.";
/// What it is, for people.
pub(crate) const NAME: &str = "wasi:http proxy component";
/// What a request is for that names no host.
const HOST: &str = "localhost";

/// What came of a call.
pub(crate) struct Called {
    pub(crate) reply: Result<Reply, Failure>,
    /// What the function still does after its reply.
    pub(crate) rest: Option<Rest>,
}

impl From<Result<Reply, Failure>> for Called {
    fn from(reply: Result<Reply, Failure>) -> Self {
        Self { reply, rest: None }
    }
}

/// A linked proxy.
pub(crate) struct Http(Arc<Linked>);

struct Linked {
    proxy: ProxyPre<State>,
    shared: Shared,
}

/// What a function still does after its reply.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

type Response = Result<hyper::Response<HyperOutgoingBody>, ErrorCode>;

/// What one instance may do over HTTP besides replying: nothing, unless it has a list of hosts.
#[derive(Debug)]
pub(crate) struct Hooks(Option<(Arc<Outbound>, Arc<Semaphore>)>);

impl Hooks {
    pub(crate) fn new(shared: &Shared) -> Self {
        let outbound = shared.outbound.as_ref();
        Self(outbound.map(|outbound| (Arc::clone(outbound), outbound.places())))
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match &self.0 {
            Some((outbound, places)) => {
                Box::new(Arc::clone(outbound).send(request, options, Arc::clone(places)))
            }
            None => Box::new(ready(Err(Error::HttpRequestDenied))),
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl Http {
    pub(crate) fn link(component: &Component, shared: Shared) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(component.engine());
        wasmtime_wasi::p2::add_to_linker_async::<State>(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let proxy = ProxyPre::new(linker.instantiate_pre(component)?)?;
        Ok(Self(Arc::new(Linked { proxy, shared })))
    }

    pub(crate) async fn try_instance(&self) -> Result<(), PrepareError> {
        let Linked { proxy, shared } = &*self.0;
        let (mut store, _) = super::store(proxy.engine(), shared);
        let made = proxy.instantiate_async(&mut store).await;
        made.map(drop)
            .map_err(|error| no_instance(&error, store.data().bounds.is_exceeded))
    }

    /// Runs a call. Its reply is whole as soon as the response's head and body are; what the
    /// function does then is the rest, and how that ends changes nothing of the reply.
    pub(crate) async fn call(&self, invocation: &Invocation) -> Called {
        let request = match request(invocation) {
            Ok(request) => request,
            Err(failure) => return Err(failure).into(),
        };
        let (sender, receiver) = oneshot::channel();
        let mut run = Box::pin(Arc::clone(&self.0).run(request, sender));
        let mut collect = pin!(self.0.collect(receiver));
        tokio::select! {
            // Most functions end with their response, which is then whole at once.
            biased;
            ran = &mut run => match (collect.await, ran) {
                (Ok(reply), Ok(())) => Ok(reply).into(),
                (Ok(reply), Err(failure)) => {
                    self.0.tell(&failure);
                    Ok(reply).into()
                }
                (Err(_), Err(failure)) | (Err(failure), Ok(())) => Err(failure).into(),
            },
            reply = &mut collect => match reply {
                Ok(reply) => Called {
                    reply: Ok(reply),
                    rest: Some(Box::pin(Arc::clone(&self.0).end(run))),
                },
                Err(failure) => Err(run.await.err().unwrap_or(failure)).into(),
            },
        }
    }
}

impl Linked {
    async fn run(
        self: Arc<Self>,
        request: http::Request<Full<Bytes>>,
        sender: oneshot::Sender<Response>,
    ) -> Result<(), Failure> {
        let (mut store, printed) = super::store(self.proxy.engine(), &self.shared);
        let ran = async {
            let request = store
                .data_mut()
                .http()
                .new_incoming_request(Scheme::Http, request)?;
            let out = store.data_mut().http().new_response_outparam(sender)?;
            let proxy = self.proxy.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        };
        let ran = ran.await;
        printed.tell(&self.shared);
        let is_exceeded = store.data().bounds.is_exceeded;
        // The store goes here, and with it the sender: whoever waits for a response that never
        // came is told so.
        ran.map_err(|error| Failure::of(&error, is_exceeded))
    }

    /// Runs to the end of a call that was answered.
    async fn end(self: Arc<Self>, run: impl Future<Output = Result<(), Failure>>) {
        if let Err(failure) = run.await {
            self.tell(&failure);
        }
    }

    /// Tells the log alone: the caller has its reply.
    fn tell(&self, failure: &Failure) {
        let text = format!("after its reply: {}\n{}", failure.message, failure.details);
        self.shared
            .lines
            .push(LogStream::Platform, &Bytes::from(text));
    }

    async fn collect(&self, receiver: oneshot::Receiver<Response>) -> Result<Reply, Failure> {
        let response = match receiver.await {
            Ok(Ok(response)) => response,
            Ok(Err(code)) => {
                return Err(Failure::said(&format!("the function failed: {code:?}")));
            }
            Err(_gone) => {
                return Err(Failure::said(
                    "the function returned without a response; set the response-outparam",
                ));
            }
        };
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.shared.payload_bytes_max);
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large(&self.shared)),
            Err(_broken) => {
                return Err(Failure::said("the function did not finish its response"));
            }
        };
        let fields = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        checked(&self.shared, parts.status.as_u16(), fields, body)
    }
}

fn request(invocation: &Invocation) -> Result<http::Request<Full<Bytes>>, Failure> {
    let mut target = invocation.path.to_vec();
    if !invocation.query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&invocation.query);
    }
    let mut builder = http::Request::builder()
        .method(invocation.method.as_ref())
        .uri(target.as_slice());
    let mut has_host = false;
    for (name, value) in invocation.headers.iter() {
        has_host |= name == "host";
        builder = builder.header(name, value);
    }
    if !has_host {
        builder = builder.header("host", HOST);
    }
    let request = builder.body(Full::new(invocation.payload.clone()));
    request.map_err(|error| Failure::said(&format!("the request is none of HTTP: {error}")))
}
