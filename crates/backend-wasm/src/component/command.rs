//! Functions that are `wasi:cli/command` components of WASI 0.2: called as preview 1 commands are.

use super::State;
use crate::command::{Streams, exit_status, reply};
use crate::failure::{Failure, no_instance};
use crate::shared::Shared;
use faas::{Invocation, PrepareError, Reply};
use wasmtime::Store;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p2::bindings::CommandPre;

/// The interface that such a component exports, up to its version's last part.
pub(crate) const EXPORT: &str = "wasi:cli/run@0.2.";
/// What it is, for people.
pub(crate) const NAME: &str = "wasi:cli command component";

/// A linked command.
pub(crate) struct CliCommand {
    linked: CommandPre<State>,
    shared: Shared,
}

impl CliCommand {
    pub(crate) fn link(component: &Component, shared: Shared) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(component.engine());
        wasmtime_wasi::p2::add_to_linker_async::<State>(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let linked = CommandPre::new(linker.instantiate_pre(component)?)?;
        Ok(Self { linked, shared })
    }

    pub(crate) async fn try_instance(&self) -> Result<(), PrepareError> {
        let (mut store, _) = super::store(self.linked.engine(), &self.shared);
        let made = self.linked.instantiate_async(&mut store).await;
        made.map(drop)
            .map_err(|error| no_instance(&error, store.data().bounds.is_exceeded))
    }

    pub(crate) async fn call(&self, invocation: &Invocation) -> Result<Reply, Failure> {
        let mut builder = WasiCtx::builder();
        let streams = Streams::connect(&mut builder, &self.shared, invocation);
        let mut store = super::store_of(self.linked.engine(), &self.shared, &mut builder);
        let ran = self.run(&mut store).await;
        let printed = streams.finish(&self.shared);
        let is_memory_short = store.data().bounds.is_exceeded;
        let (ran, failed) = match ran {
            Ok(Ok(())) => (Ok(()), false),
            // `run` itself said that it failed.
            Ok(Err(())) => (Ok(()), true),
            Err(error) => (Err(error), false),
        };
        let status = exit_status(ran, is_memory_short)?.max(i32::from(failed));
        reply(status, printed)
    }

    async fn run(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), ()>> {
        let command = self.linked.instantiate_async(&mut *store).await?;
        command.wasi_cli_run().call_run(store).await
    }
}
