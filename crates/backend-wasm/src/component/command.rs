//! Functions that are `wasi:cli/command` components of WASI 0.2: called as preview 1 commands are.

use super::{Shared, State};
use crate::command::{add_variables, exit_status, reply};
use crate::failure::{Failed, Failure};
use crate::output::{Output, Overflow};
use faas::{Invocation, LogStream, Reply};
use wasmtime::Store;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

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

    pub(crate) async fn try_instance(&self) -> Result<(), Failed> {
        let (mut store, _) = super::store(self.linked.engine(), &self.shared);
        let made = self.linked.instantiate_async(&mut store).await;
        made.map(drop)
            .map_err(|error| Failed::instance(&error, store.data().bounds.is_exceeded))
    }

    pub(crate) async fn call(&self, invocation: &Invocation) -> Result<Reply, Failure> {
        let output = Output::new(self.shared.payload_bytes_max, Overflow::Fails);
        let errors = Output::new(self.shared.log_bytes_max, Overflow::IsDropped);
        let mut builder = WasiCtx::builder();
        builder
            .stdin(MemoryInputPipe::new(invocation.payload.clone()))
            .stdout(output.clone())
            .stderr(errors.clone())
            .arg("fn");
        add_variables(&mut builder, &self.shared.envs, invocation);
        let mut store = super::store_of(self.linked.engine(), &self.shared, &mut builder);
        let ran = self.run(&mut store).await;
        self.shared.lines.push(LogStream::Stderr, &errors.take());
        let is_memory_short = store.data().bounds.is_exceeded;
        let (ran, failed) = match ran {
            Ok(Ok(())) => (Ok(()), false),
            // `run` itself said that it failed.
            Ok(Err(())) => (Ok(()), true),
            Err(error) => (Err(error), false),
        };
        let status = exit_status(ran, is_memory_short)?.max(i32::from(failed));
        reply(status, output.take())
    }

    async fn run(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), ()>> {
        let command = self.linked.instantiate_async(&mut *store).await?;
        command.wasi_cli_run().call_run(store).await
    }
}
