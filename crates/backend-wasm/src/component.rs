//! Functions that are components, and what all functions share.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod own;

use crate::engine::{self, Bounded, Bounds};
use crate::failure::Lines;
use crate::outbound::Outbound;
use crate::output::{Output, Overflow};
use crate::pace::Pace;
use faas::{LogStream, WasmLimits};
use std::sync::Arc;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

/// What every instance of a function has in common.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) envs: Arc<[(String, String)]>,
    pub(crate) lines: Lines,
    pub(crate) memory_bytes_max: u64,
    /// What its instances may compute; none where that is no less than they can.
    pub(crate) pace: Option<Arc<Pace>>,
    pub(crate) wasm: WasmLimits,
    pub(crate) payload_bytes_max: usize,
    pub(crate) headers_bytes_max: usize,
    /// What it may send; none where it may send nothing.
    pub(crate) outbound: Option<Arc<Outbound>>,
    /// What is kept of one call's output for the log.
    pub(crate) log_bytes_max: usize,
}

impl Shared {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.memory_bytes_max, self.wasm)
    }

    /// What may be copied out of an instance at once, so that it can't make us hold more.
    fn copied_bytes_max(&self) -> usize {
        // Each field costs more than its bytes.
        const OVERHEAD: usize = 16;
        self.payload_bytes_max + self.headers_bytes_max * OVERHEAD
    }
}

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
