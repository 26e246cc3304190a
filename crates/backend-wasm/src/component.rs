//! Functions that are components.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod own;

use crate::engine::{self, Bounded, Bounds};
use crate::output::{Output, Overflow};
use crate::shared::Shared;
use faas::LogStream;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

/// The state of a component's instance.
pub(crate) struct State {
    bounds: Bounds,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: http::Hooks,
}

impl Bounded for State {
    fn bounds(&mut self) -> &mut Bounds {
        &mut self.bounds
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// What a component's instance printed.
struct Printed {
    stdout: Output,
    stderr: Output,
}

impl Printed {
    fn tell(&self, shared: &Shared) {
        shared.lines.push(LogStream::Stdout, &self.stdout.take());
        shared.lines.push(LogStream::Stderr, &self.stderr.take());
    }
}

/// A store for one call of a component that imports WASI.
fn store(engine: &Engine, shared: &Shared) -> (Store<State>, Printed) {
    let kept = || Output::new(shared.log_bytes_max, Overflow::IsDropped);
    let printed = Printed {
        stdout: kept(),
        stderr: kept(),
    };
    let mut builder = WasiCtx::builder();
    builder
        .envs(&shared.envs)
        .stdout(printed.stdout.clone())
        .stderr(printed.stderr.clone());
    (store_of(engine, shared, &mut builder), printed)
}

/// A store whose instance sees what the builder was given.
fn store_of(engine: &Engine, shared: &Shared, builder: &mut WasiCtxBuilder) -> Store<State> {
    let state = State {
        bounds: shared.bounds(),
        table: ResourceTable::new(),
        wasi: builder.build(),
        http: WasiHttpCtx::new(),
        hooks: http::Hooks::new(shared),
    };
    let mut store = engine::store(engine, state, shared.pace.as_ref());
    store.set_hostcall_fuel(shared.copied_bytes_max());
    store
}
