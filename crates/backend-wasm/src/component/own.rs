//! Functions of our own world, `wit/tinyfaas.wit`: the cheapest way.

use super::State;
use crate::engine::{self, Bounded, Bounds};
use crate::failure::{Failure, no_instance, wrong_type};
use crate::shared::Shared;
use bytes::Bytes;
use faas::{Headers, Invocation, PrepareError, Reply};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, Lower,
};
use wasmtime::{AsContextMut, Store};

/// The interface that such a component exports.
pub(crate) const EXPORT: &str = "tinyfaas:function/handler@0.1.0";
/// What it is, for people.
pub(crate) const NAME: &str = "tinyfaas:function component";

#[derive(ComponentType, Lower)]
#[component(record)]
struct RequestRecord<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct ReplyRecord {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

type Outcome = Result<ReplyRecord, String>;

/// A linked component of our world.
pub(crate) struct Own {
    linked: Linked,
    handle: ComponentExportIndex,
    shared: Shared,
}

/// Most need nothing of the host, which spares making it for every call.
enum Linked {
    Bare(InstancePre<Bare>),
    Wasi(InstancePre<State>),
}

struct Bare {
    bounds: Bounds,
}

impl Bounded for Bare {
    fn bounds(&mut self) -> &mut Bounds {
        &mut self.bounds
    }
}

impl Own {
    pub(crate) fn link(component: &Component, shared: Shared) -> wasmtime::Result<Self> {
        let engine = component.engine();
        let interface = component.get_export_index(None, EXPORT);
        let handle = interface.and_then(|i| component.get_export_index(Some(&i), "handle"));
        let handle = handle.ok_or_else(|| wasmtime::format_err!("{EXPORT} has no handle"))?;
        let has_imports = component.component_type().imports(engine).len() > 0;
        let linked = if has_imports {
            let mut linker = Linker::new(engine);
            wasmtime_wasi::p2::add_to_linker_async::<State>(&mut linker)?;
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            Linked::Wasi(linker.instantiate_pre(component)?)
        } else {
            Linked::Bare(Linker::new(engine).instantiate_pre(component)?)
        };
        Ok(Self {
            linked,
            handle,
            shared,
        })
    }

    pub(crate) async fn try_instance(&self) -> Result<(), PrepareError> {
        match &self.linked {
            Linked::Bare(linked) => self.try_in(linked, self.bare_store(linked)).await,
            Linked::Wasi(linked) => {
                let (store, _) = super::store(linked.engine(), &self.shared);
                self.try_in(linked, store).await
            }
        }
    }

    async fn try_in<T: Bounded>(
        &self,
        linked: &InstancePre<T>,
        mut store: Store<T>,
    ) -> Result<(), PrepareError> {
        let made = linked.instantiate_async(&mut store).await;
        let is_memory_short = store.data_mut().bounds().is_exceeded;
        let instance = made.map_err(|error| no_instance(&error, is_memory_short))?;
        let typed =
            instance.get_typed_func::<(RequestRecord<'_>,), (Outcome,)>(&mut store, self.handle);
        typed.map(drop).map_err(|error| {
            let what = format!("handle has another type: {error:#}");
            wrong_type(&what, "build it with the WIT file of tinyFaaS")
        })
    }

    pub(crate) async fn call(&self, invocation: &Invocation) -> Result<Reply, Failure> {
        let (outcome, is_exceeded) = match &self.linked {
            Linked::Bare(linked) => {
                let mut store = self.bare_store(linked);
                let outcome = self.run(linked, &mut store, invocation).await;
                (outcome, store.data().bounds.is_exceeded)
            }
            Linked::Wasi(linked) => {
                let (mut store, printed) = super::store(linked.engine(), &self.shared);
                let outcome = self.run(linked, &mut store, invocation).await;
                printed.tell(&self.shared);
                (outcome, store.data().bounds.is_exceeded)
            }
        };
        match outcome {
            Ok(Ok(reply)) => self.reply(reply),
            Ok(Err(message)) => Err(Failure::said(&message)),
            Err(error) => Err(Failure::of(&error, is_exceeded)),
        }
    }

    async fn run<T: Send>(
        &self,
        linked: &InstancePre<T>,
        store: &mut Store<T>,
        invocation: &Invocation,
    ) -> wasmtime::Result<Outcome> {
        let instance = linked.instantiate_async(&mut *store).await?;
        let handle = instance.get_typed_func::<(RequestRecord<'_>,), (Outcome,)>(
            store.as_context_mut(),
            self.handle,
        )?;
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let headers: Vec<(&str, &[u8])> = invocation.headers.iter().collect();
        let request = RequestRecord {
            method: text(&invocation.method),
            path: text(&invocation.path),
            query: text(&invocation.query),
            headers: &headers,
            body: &invocation.payload,
        };
        let (outcome,) = handle.call_async(store, (request,)).await?;
        Ok(outcome)
    }

    fn bare_store(&self, linked: &InstancePre<Bare>) -> Store<Bare> {
        let bounds = self.shared.bounds();
        let mut store = engine::store(linked.engine(), Bare { bounds }, self.shared.pace.as_ref());
        store.set_hostcall_fuel(self.shared.copied_bytes_max());
        store
    }

    fn reply(&self, reply: ReplyRecord) -> Result<Reply, Failure> {
        let ReplyRecord {
            status,
            headers,
            body,
        } = reply;
        let fields = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_slice()));
        checked(&self.shared, status, fields, Bytes::from(body))
    }
}

/// A reply whose parts are what they may be.
pub(super) fn checked<'a>(
    shared: &Shared,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    payload: Bytes,
) -> Result<Reply, Failure> {
    if !(200..600).contains(&status) {
        return Err(Failure::said(&format!(
            "the function replied with the status {status}; 200 to 599 are possible"
        )));
    }
    if payload.len() > shared.payload_bytes_max {
        return Err(too_large(shared));
    }
    let headers = Headers::collect(fields)
        .map_err(|error| Failure::said(&format!("the function's reply: {error}")))?;
    if headers.len_bytes() > shared.headers_bytes_max {
        return Err(Failure::said(&format!(
            "the function replied with more than {} bytes of header fields",
            shared.headers_bytes_max
        )));
    }
    Ok(Reply {
        status,
        headers,
        payload,
    })
}

pub(super) fn too_large(shared: &Shared) -> Failure {
    Failure::said(&format!(
        "the function replied with more than {} bytes",
        shared.payload_bytes_max
    ))
}
