//! Functions that are WASI preview 1 commands: payload on standard input, reply on standard
//! output, the request in variables as CGI (RFC 3875) names them.

use crate::engine::{self, Bounded, Bounds};
use crate::failure::{Failure, no_instance, wrong_type};
use crate::output::{Output, Overflow};
use crate::shared::Shared;
use bytes::Bytes;
use faas::{Headers, Invocation, LogStream, PrepareError, Reply};
use std::borrow::Cow;
use wasmtime::{InstancePre, Linker, Module, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

/// What it is, for people.
pub(crate) const NAME: &str = "WASI preview 1 command";

/// A linked command.
pub(crate) struct Command {
    linked: InstancePre<State>,
    shared: Shared,
}

struct State {
    bounds: Bounds,
    wasi: WasiP1Ctx,
}

impl Bounded for State {
    fn bounds(&mut self) -> &mut Bounds {
        &mut self.bounds
    }
}

impl Command {
    pub(crate) fn link(module: &Module, shared: Shared) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(module.engine());
        p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
        let linked = linker.instantiate_pre(module)?;
        Ok(Self { linked, shared })
    }

    pub(crate) async fn try_instance(&self) -> Result<(), PrepareError> {
        let mut store = self.store(&mut WasiCtx::builder());
        let made = self.linked.instantiate_async(&mut store).await;
        let made = made.map_err(|error| no_instance(&error, store.data().bounds.is_exceeded));
        let typed = made?.get_typed_func::<(), ()>(&mut store, "_start");
        typed.map(drop).map_err(|_other_type| {
            wrong_type(
                "_start takes parameters or returns something",
                "let it do neither",
            )
        })
    }

    pub(crate) async fn call(&self, invocation: &Invocation) -> Result<Reply, Failure> {
        let mut builder = WasiCtx::builder();
        let streams = Streams::connect(&mut builder, &self.shared, invocation);
        let mut store = self.store(&mut builder);
        let ran = self.run(&mut store).await;
        let printed = streams.finish(&self.shared);
        exit_status(ran, store.data().bounds.is_exceeded).and_then(|status| reply(status, printed))
    }

    async fn run(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        let instance = self.linked.instantiate_async(&mut *store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
        start.call_async(store, ()).await
    }

    fn store(&self, builder: &mut WasiCtxBuilder) -> Store<State> {
        let state = State {
            bounds: self.shared.bounds(),
            wasi: builder.build_p1(),
        };
        engine::store(
            self.linked.module().engine(),
            state,
            self.shared.pace.as_ref(),
        )
    }
}

/// The standard streams of one call of a command.
pub(crate) struct Streams {
    output: Output,
    errors: Output,
}

impl Streams {
    /// Gives the call its streams, arguments and variables.
    pub(crate) fn connect(
        builder: &mut WasiCtxBuilder,
        shared: &Shared,
        invocation: &Invocation,
    ) -> Self {
        let output = Output::new(shared.payload_bytes_max, Overflow::Fails);
        let errors = Output::new(shared.log_bytes_max, Overflow::IsDropped);
        builder
            .stdin(MemoryInputPipe::new(invocation.payload.clone()))
            .stdout(output.clone())
            .stderr(errors.clone())
            .arg("fn");
        add_variables(builder, &shared.envs, invocation);
        Self { output, errors }
    }

    /// Logs what the call wrote to its standard error; gives what it printed.
    pub(crate) fn finish(self, shared: &Shared) -> Bytes {
        shared.lines.push(LogStream::Stderr, &self.errors.take());
        self.output.take()
    }
}

/// The status that a command left with.
pub(crate) fn exit_status(
    ran: wasmtime::Result<()>,
    is_memory_short: bool,
) -> Result<i32, Failure> {
    let Err(error) = ran else {
        return Ok(0);
    };
    let exit = error.downcast_ref::<I32Exit>();
    exit.map(|exit| exit.0)
        .ok_or_else(|| Failure::of(&error, is_memory_short))
}

/// What a command printed, as its reply or its error.
pub(crate) fn reply(status: i32, printed: Bytes) -> Result<Reply, Failure> {
    if status == 0 {
        return Ok(Reply {
            status: 200,
            headers: Headers::new(),
            payload: printed,
        });
    }
    let text = String::from_utf8_lossy(&printed);
    match text.trim() {
        "" => Err(Failure::said(&format!(
            "the function exited with status {status}"
        ))),
        text => Err(Failure::said(text)),
    }
}

/// Sets the function's own variables and those of the request.
fn add_variables(builder: &mut WasiCtxBuilder, envs: &[(String, String)], invocation: &Invocation) {
    builder.envs(envs);
    let text = |bytes| String::from_utf8_lossy(bytes);
    builder
        .env("TINYFAAS_INVOCATION", invocation.id.get().to_string())
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .env("REQUEST_METHOD", text(&invocation.method))
        .env("PATH_INFO", text(&invocation.path))
        .env("QUERY_STRING", text(&invocation.query))
        .env("CONTENT_LENGTH", invocation.payload.len().to_string());
    for (name, value) in fields(&invocation.headers) {
        builder.env(name, value);
    }
}

/// The header fields as variables, named as RFC 3875 (section 4.1.18) does.
fn fields(headers: &Headers) -> Vec<(String, Cow<'_, str>)> {
    let mut variables: Vec<(String, Cow<'_, str>)> = Vec::new();
    for (name, value) in headers.iter() {
        let variable = match name {
            "content-type" => "CONTENT_TYPE".to_owned(),
            // The payload's length is what counts; and HTTP_PROXY is not for callers to set.
            "content-length" | "proxy" => continue,
            // It would pass for the field with a hyphen, which a proxy in front may vouch for.
            name if name.contains('_') => continue,
            name => format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_")),
        };
        let value = String::from_utf8_lossy(value);
        match variables.iter_mut().find(|(known, _)| *known == variable) {
            Some((_, before)) => *before = format!("{before}, {value}").into(),
            None => variables.push((variable, value)),
        }
    }
    variables
}
