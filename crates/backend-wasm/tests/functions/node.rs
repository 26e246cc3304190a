//! A backend in a folder of its own, and modules written as text.

use backend_wasm::{Options, WasmBackend};
use bytes::Bytes;
use faas::{
    Backend, Entry, FunctionLimits, FunctionLog, FunctionSpec, HandlerStatus, Handlers,
    HostPattern, Invocation, InvokeError, Limits, Package, PrepareError, Proxy, Reply, Runtime,
    WasmLimits,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub(crate) struct Node {
    pub(crate) backend: Arc<WasmBackend>,
    pub(crate) log: Arc<FunctionLog>,
    pub(crate) limits: FunctionLimits,
    pub(crate) allow_hosts: Vec<HostPattern>,
    folder: tempfile::TempDir,
}

pub(crate) type Deployed = Arc<Function>;

/// A function that is ready, as management and the proxy see it.
#[derive(Debug)]
pub(crate) struct Function {
    proxy: Proxy,
    handlers: Handlers,
}

impl Function {
    pub(crate) async fn invoke(
        &self,
        invocation: &Invocation,
        time_left: Duration,
    ) -> Result<Reply, InvokeError> {
        let callable = self.proxy.callable(&self.handlers);
        callable[0].invoke(invocation, time_left).await
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.proxy.callable(&self.handlers)[0].in_flight()
    }

    pub(crate) fn status(&self) -> HandlerStatus {
        self.handlers.living()[0].status()
    }

    pub(crate) async fn stop(&self, grace: Duration) {
        self.handlers.stop(grace).await;
    }
}

/// Long enough for any call that ends at all.
pub(crate) const LONG: Duration = Duration::from_secs(60);

impl Node {
    pub(crate) fn start() -> Self {
        Self::with_slots(32)
    }

    pub(crate) fn with_slots(slots: u32) -> Self {
        Self::with(slots, Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::with(32, limits)
    }

    pub(crate) fn with(slots: u32, mut limits: Limits) -> Self {
        limits.wasm.instances_max = slots;
        let folder = tempfile::tempdir().unwrap();
        let backend = start(folder.path(), limits);
        Self {
            backend,
            log: Arc::new(FunctionLog::new(&Limits::default())),
            // What fits a slot: else these tests were all of instances outside the pool.
            limits: FunctionLimits {
                memory_bytes_max: WasmLimits::default().slot_bytes_max,
                ..FunctionLimits::default()
            },
            allow_hosts: Vec::new(),
            folder,
        }
    }

    /// The backend of a node that was stopped and started with the same data.
    pub(crate) fn restart(&mut self) {
        self.backend = start(self.folder.path(), Limits::default());
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn deploy(&self, binary: &[u8]) -> Result<Deployed, PrepareError> {
        self.deploy_many(binary, 64).await
    }

    pub(crate) async fn deploy_many(
        &self,
        binary: &[u8],
        at_once: u16,
    ) -> Result<Deployed, PrepareError> {
        let code = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        std::fs::write(code.join("some.wasm"), binary).unwrap();
        let spec = FunctionSpec {
            name: "fn".parse().unwrap(),
            runtime: Runtime::Wasm,
            entry: Entry::Convention,
            handlers: at_once,
            envs: vec![("GREETING".to_owned(), "hello".to_owned())],
            network: faas::Network::None,
            allow_hosts: self.allow_hosts.clone(),
            allow_scripts: false,
            cors: None,
            limits: self.limits.clone(),
        };
        let package = Package {
            spec: Arc::new(spec),
            code,
            digest: "0".to_owned(),
            log: Arc::clone(&self.log),
            progress: faas::Progress::default(),
            asker: faas::Asker::Node,
        };
        let handlers = self.backend.prepare(package).await?;
        assert_eq!(handlers.living().len(), 1);
        let proxy = Proxy::new(Arc::default(), Arc::new(Limits::default()));
        Ok(Arc::new(Function { proxy, handlers }))
    }

    pub(crate) fn log_text(&self) -> String {
        let lines = self.log.after(0);
        lines.into_iter().map(|line| line.text + "\n").collect()
    }
}

fn start(folder: &Path, limits: Limits) -> Arc<WasmBackend> {
    let options = Options {
        data_dir: folder.to_owned(),
        limits: Arc::new(limits),
        compiler: env!("CARGO_BIN_EXE_compile-webassembly").into(),
    };
    WasmBackend::start(options).unwrap()
}

pub(crate) fn invocation(payload: impl Into<Bytes>) -> Invocation {
    Invocation::new("POST", Bytes::from_static(b"/fn"), payload.into())
}

pub(crate) async fn call(
    handler: &Deployed,
    payload: impl Into<Bytes>,
) -> Result<Reply, InvokeError> {
    handler.invoke(&invocation(payload), LONG).await
}

/// A component of our own world from a core module.
pub(crate) fn own_component(text: &str) -> Vec<u8> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/tinyfaas.wit");
    let mut resolve = Resolve::default();
    let package = resolve.push_file(wit).unwrap();
    let world = resolve.select_world(&[package], Some("function")).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

/// A component of a world of WASI 0.2, such as `wasi:cli/command`, from a core module.
pub(crate) fn wasi_component(world: &str, text: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wasi_interfaces()).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

/// The interfaces of WASI 0.2 as the engine's own crate has them.
fn wasi_interfaces() -> std::path::PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = std::process::Command::new(cargo);
    metadata.args(["metadata", "--offline", "--format-version", "1"]);
    // Those of other platforms need not be on this machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    metadata.args(["--filter-platform", &platform]);
    let output = metadata.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // The only text with that crate's name and a manifest.
    let manifest = text
        .split('"')
        .find(|part| part.contains("/wasmtime-wasi-http-") && part.ends_with("/Cargo.toml"))
        .expect("cargo knows where the engine's crates are");
    Path::new(manifest).parent().unwrap().join("wit")
}

/// A core module of our own world with an allocator; `body` sees the pointers `$method`, `$path`,
/// `$query`, `$headers`, `$body` with their lengths (`$body_len`), and leaves the address of the
/// outcome.
pub(crate) fn own(body: &str) -> Vec<u8> {
    own_component(&format!(
        r#"(module
          (memory (export "memory") 2)
          (global $free (mut i32) (i32.const 4096))
          (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.set $free (i32.add (local.get $at) (local.get 3)))
            (block $enough
              (loop $more
                (br_if $enough
                  (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
                (drop (memory.grow (i32.const 1)))
                (br $more)))
            (local.get $at))
          (func (export "tinyfaas:function/handler@0.1.0#handle")
            (param $method i32) (param $method_len i32) (param $path i32) (param $path_len i32)
            (param $query i32) (param $query_len i32) (param $headers i32)
            (param $headers_len i32) (param $body i32) (param $body_len i32) (result i32)
            {body}))"#
    ))
}

/// Replies with the body that came, and the fields that came.
pub(crate) const OWN_ECHO: &str = "
    (i32.store16 (i32.const 1028) (i32.const 200))
    (i32.store (i32.const 1032) (local.get $headers))
    (i32.store (i32.const 1036) (local.get $headers_len))
    (i32.store (i32.const 1040) (local.get $body))
    (i32.store (i32.const 1044) (local.get $body_len))
    (i32.const 1024)";

/// A preview 1 command with what `body` needs to read and write.
pub(crate) fn command(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "environ_get"
            (func $environ (param i32 i32) (result i32)))
          (memory (export "memory") 4)
          (data (i32.const 256) "this is for the log")
          (func (export "_start") {body}))"#
    );
    wat::parse_str(text).unwrap()
}

/// Copies standard input to standard output, 32 kB at a time.
pub(crate) const COMMAND_ECHO: &str = "
    (loop $more
      (i32.store (i32.const 0) (i32.const 65536))
      (i32.store (i32.const 4) (i32.const 32768))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
      (if (i32.load (i32.const 16))
        (then
          (i32.store (i32.const 4) (i32.load (i32.const 16)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
          (br $more))))";
