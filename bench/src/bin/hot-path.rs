//! Runs a part of the hot path a number of times and ends: under `callgrind` the difference of two
//! such runs is what one call takes in instructions, whatever else the machine does.
//!
//! The client is part of the count: the plainest that there can be, blocking, one call at a time.
#![expect(clippy::print_stderr, reason = "it tells the person at the terminal")]

use anyhow::{Context, Result, bail, ensure};
use backend_wasm::{Options, WasmBackend};
use bytes::{Bytes, BytesMut};
use coap::{Code, Encoder, Kind, Token};
use faas::{
    Backend, BoxFuture, Callable, Deployment, Entry, FunctionLimits, FunctionLog, FunctionSpec,
    Handler, HandlerState, HandlerStatus, Handlers, Headers, Invocation, InvokeError, Limits,
    Package, Proxy, Reply, Router, Runtime,
};
use handler_protocol::frame::{self, FromProxy};
use handler_protocol::{Connection, Stream};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const PAYLOAD: [u8; 64] = [b'x'; 64];
const LONG: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    // The backend for WebAssembly compiles in a process of its own, which begins as this program.
    // It compiles an example, and is run under valgrind.
    if let Some(code) = backend_wasm::compiler_main_unconfined() {
        return code;
    }
    let words: Vec<String> = std::env::args().collect();
    let [_, driver, count] = &words[..] else {
        eprintln!("usage: hot-path proxy|http|coap|grpc|frames|wasm COUNT");
        return ExitCode::from(2);
    };
    match count
        .parse()
        .context("a count")
        .and_then(|count| run(driver, count))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(driver: &str, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match driver {
        "proxy" => runtime.block_on(through_proxy(count)),
        "frames" => runtime.block_on(through_frames(count)),
        "wasm" => runtime.block_on(through_wasm(count)),
        "http" => {
            let addr = serve(&runtime, |proxy, listener| {
                let clients = endpoints::clients(proxy.limits());
                let open = endpoints::http::Browsers::default();
                endpoints::http::serve(listener, clients, (proxy, open), CancellationToken::new())
            })?;
            on_thread(&runtime, move || {
                let mut client = bench::load::http::OneByOne::connect(addr, "echo")?;
                (0..count).try_for_each(|_| {
                    let reply = client.call(&PAYLOAD)?;
                    ensure!(reply == PAYLOAD, "{reply:?}");
                    Ok(())
                })
            })
        }
        "coap" => {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let proxy = proxy()?;
            let listener = endpoints::coap::bind(to, 1, proxy.limits())?;
            let addr = listener.local_addr();
            let clients = endpoints::clients(proxy.limits());
            let serving = listener.serve(clients, proxy, CancellationToken::new());
            let _served = runtime.spawn(serving);
            on_thread(&runtime, move || over_coap(addr, count))
        }
        "grpc" => {
            let addr = serve(&runtime, |proxy, listener| {
                let clients = endpoints::clients(proxy.limits());
                let proxy = (proxy, Arc::default());
                endpoints::grpc::serve(listener, clients, proxy, CancellationToken::new())
            })?;
            let payload = "x".repeat(PAYLOAD.len());
            runtime.block_on(async {
                let mut client = bench::load::grpc::Client::connect(addr).await?;
                for _ in 0..count {
                    ensure!(client.call("echo", &payload).await, "a wrong reply");
                }
                Ok(())
            })
        }
        _ => bail!("there is no driver {driver}"),
    }
}

/// Starts an endpoint and returns where it listens.
fn serve<F, S>(runtime: &tokio::runtime::Runtime, endpoint: F) -> Result<SocketAddr>
where
    F: FnOnce(Arc<Proxy>, tokio::net::TcpListener) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let _served = runtime.spawn(endpoint(proxy()?, listener));
    Ok(addr)
}

/// Runs a blocking client while the runtime serves.
fn on_thread(
    runtime: &tokio::runtime::Runtime,
    client: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        // Whoever waits has gone where this fails.
        drop(tell.send(client()));
    });
    let ended = runtime.block_on(told)?;
    ensure!(thread.join().is_ok(), "the client's thread panicked");
    ended
}

fn over_coap(addr: SocketAddr, count: usize) -> Result<()> {
    const URI_PATH: u16 = 11;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = [0; 2048];
    for number in 0..count {
        let id = u16::try_from(number)?;
        let token = Token::new(&id.to_be_bytes()).context("two bytes are a token")?;
        let mut request = Encoder::new(Kind::Confirmable, Code::POST, id, token);
        request.option(URI_PATH, b"echo");
        socket.send(&request.finish(&PAYLOAD))?;
        let len = socket.recv(&mut buffer)?;
        ensure!(buffer[..len].ends_with(&PAYLOAD), "{:?}", &buffer[..len]);
    }
    Ok(())
}

async fn through_proxy(count: usize) -> Result<()> {
    let proxy = proxy()?;
    for _ in 0..count {
        let reply = proxy.invoke("echo", invocation()).await?;
        ensure!(reply.payload == PAYLOAD[..], "{reply:?}");
    }
    Ok(())
}

/// Over a socket pair to a peer that answers each frame. Both are tasks of one thread: two threads
/// would meet in another order every time, and count differently.
async fn through_frames(count: usize) -> Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let peer = answer(theirs);
    tokio::pin!(peer);
    let opened = Connection::open(Stream::Unix(ours), "echo".parse()?);
    let connection = tokio::select! {
        connection = opened => connection?,
        answered = &mut peer => bail!("the peer ended: {answered:?}"),
    };
    let timing = handler_protocol::connection::Timing {
        cancel_grace: LONG,
        health_interval: LONG,
        health_timeout: LONG,
    };
    let calls = async {
        for _ in 0..count {
            let reply = connection.invoke(&invocation(), LONG).await?;
            ensure!(reply.payload == PAYLOAD[..], "{reply:?}");
        }
        Ok(())
    };
    tokio::select! {
        called = calls => called,
        end = connection.run(timing) => bail!("the connection ended: {end:?}"),
        answered = &mut peer => bail!("the peer ended: {answered:?}"),
    }
}

/// Each in an instance of its own, of a command in C.
async fn through_wasm(count: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let code = folder.path().join("code");
    std::fs::create_dir(&code)?;
    let example = bench::folder().join("../examples/echo-wasm/fn.wasm");
    std::fs::copy(example, code.join("fn.wasm"))?;
    let limits = Arc::new(Limits::default());
    let backend = WasmBackend::start(Options {
        data_dir: folder.path().to_owned(),
        limits: Arc::clone(&limits),
        compiler: std::env::current_exe()?,
    })?;
    let package = Package {
        spec: Arc::new(spec(Runtime::Wasm)?),
        code,
        digest: "0".to_owned(),
        log: Arc::new(FunctionLog::new(&limits)),
        progress: faas::Progress::default(),
        asker: faas::Asker::Node,
    };
    let handlers = backend.prepare(package).await?;
    let proxy = proxy()?;
    let handler = proxy.callable(&handlers).first();
    let handler = handler.context("one is prepared")?;
    for _ in 0..count {
        let reply = handler.invoke(&invocation(), LONG).await?;
        ensure!(reply.payload == PAYLOAD[..], "{reply:?}");
    }
    Ok(())
}

async fn answer(stream: UnixStream) -> Result<()> {
    let mut out = BytesMut::new();
    frame::encode_hello(&mut out, 1);
    let mut received = BytesMut::new();
    loop {
        // The buffer of a socket pair holds many of what is sent here.
        ensure!(stream.try_write(&out)? == out.len(), "a short write");
        stream.readable().await?;
        match stream.try_read_buf(&mut received) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        out.clear();
        while let Some(frame) = frame::decode_from_proxy(&mut received)? {
            if let FromProxy::Request { id, payload, .. } = frame {
                frame::encode_reply(&mut out, id, &reply(payload))?;
            }
        }
    }
}

fn invocation() -> Invocation {
    Invocation::new(
        "POST",
        Bytes::from_static(b"/echo"),
        Bytes::from_static(&PAYLOAD),
    )
}

fn reply(payload: Bytes) -> Reply {
    Reply {
        status: 200,
        headers: Headers::new(),
        payload,
    }
}

fn spec(runtime: Runtime) -> Result<FunctionSpec> {
    Ok(FunctionSpec {
        name: "echo".parse()?,
        runtime,
        entry: Entry::Convention,
        handlers: 1,
        envs: Vec::new(),
        network: faas::Network::None,
        allow_hosts: Vec::new(),
        allow_scripts: false,
        cors: None,
        limits: FunctionLimits::default(),
    })
}

/// A proxy with one function, which answers with what came.
fn proxy() -> Result<Arc<Proxy>> {
    let router = Arc::new(Router::default());
    let spec = spec(Runtime::Binary)?;
    let deployment = Deployment::new(spec.terms(), Handlers::here([Arc::new(Echo)]));
    router.publish(Arc::new(deployment));
    Ok(Arc::new(Proxy::new(router, Arc::new(Limits::default()))))
}

#[derive(Debug)]
struct Echo;

impl Callable for Echo {
    fn invoke<'a>(
        &'a self,
        invocation: &'a Invocation,
        _: Duration,
    ) -> BoxFuture<'a, Result<Reply, InvokeError>> {
        Box::pin(async { Ok(reply(invocation.payload.clone())) })
    }

    fn concurrency(&self) -> usize {
        1000
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn state(&self) -> HandlerState {
        HandlerState::Ready
    }
}

impl Handler for Echo {
    fn status(&self) -> HandlerStatus {
        HandlerStatus {
            id: "echo".into(),
            state: self.state(),
            restarts: 0,
            in_flight: 0,
        }
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
