//! The host's side: a backend with a function that runs what it is sent, and targets to attack.

use anyhow::{Context, Result, anyhow};
use backend_process::{Interpreters, Options, ProcessBackend, SandboxMode};
use faas::{
    Backend, Entry, FunctionLimits, FunctionLog, FunctionName, FunctionSpec, Handlers, Invocation,
    InvokeError, Limits, Network, Package, PrepareError, Proxy, Runtime,
};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A function that runs the Python code that it is sent and returns its `result`.
const FUNCTION: &str = r#"
def fn(code):
    scope = {}
    try:
        exec(code, scope)
        return str(scope["result"])
    except BaseException as error:
        return "denied: %r" % error
"#;

/// Helpers that attacks use.
const PRELUDE: &str = r#"
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    value = libc.syscall(number, *args)
    if value < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return value
"#;

/// A node with one function, and everything on the host that attacks aim at.
pub(crate) struct Node {
    runtime: tokio::runtime::Runtime,
    backend: Arc<ProcessBackend>,
    pub(crate) handlers: Handlers,
    proxy: Proxy,
    pub(crate) log: Arc<FunctionLog>,
    targets: Targets,
    folder: tempfile::TempDir,
}

struct Targets {
    sleeper: Child,
    tcp: TcpListener,
    abstract_name: String,
    _abstract_socket: UnixListener,
    _socket: UnixListener,
    /// Open without close-on-exec, as a careless part of the program might have left it.
    _secret: rustix::fd::OwnedFd,
}

impl Node {
    pub(crate) fn start() -> Result<Self> {
        Self::with(&FunctionLimits::default(), 1)
    }

    pub(crate) fn with(limits: &FunctionLimits, handlers: u16) -> Result<Self> {
        Self::isolated(SandboxMode::Full, spec(limits.clone(), handlers)?)
    }

    pub(crate) fn reduced() -> Result<Self> {
        Self::isolated(SandboxMode::Reduced, spec(FunctionLimits::default(), 1)?)
    }

    /// One whose function reaches the network.
    pub(crate) fn connected(network: Network) -> Result<Self> {
        let mut spec = spec(FunctionLimits::default(), 1)?;
        spec.network = network;
        Self::isolated(SandboxMode::Full, spec)
    }

    fn isolated(sandbox: SandboxMode, spec: FunctionSpec) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // In reduced isolation functions reach their code by the host's paths.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let targets = Targets::make(&folder)?;
        let code = folder.path().join("code");
        fs::create_dir(&code)?;
        fs::write(code.join("fn.py"), FUNCTION)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let node_limits = Arc::new(Limits::default());
        let log = Arc::new(FunctionLog::new(&node_limits));
        let options = Options {
            data_dir: folder.path().join("data"),
            limits: node_limits,
            sandbox,
            may_lack_landlock: false,
            interpreters: interpreters(sandbox),
            build_network: Network::own(),
            build_envs: Vec::new(),
        };
        let package = Package {
            spec: Arc::new(spec),
            code,
            digest: "0".into(),
            log: Arc::clone(&log),
            progress: faas::Progress::default(),
            asker: faas::Asker::Node,
        };
        let (backend, handlers) = runtime.block_on(async {
            let backend = ProcessBackend::start(options).await?;
            let prepared = backend.prepare(package).await;
            let handlers = prepared.map_err(|error| anyhow!("{error}: {}", error.output))?;
            anyhow::Ok((backend, handlers))
        })?;
        Ok(Self {
            runtime,
            backend,
            handlers,
            proxy: proxy(),
            log,
            targets,
            folder,
        })
    }

    /// The version of Landlock that the node says it has.
    pub(crate) fn landlock(&self) -> Result<u32> {
        let report = self.runtime.block_on(self.backend.report());
        let mut walls = report.isolation.iter();
        let wall = walls.find(|wall| wall.name == "landlock");
        let told = wall.context("Landlock is not told of")?;
        let words = told.detail.split([' ', ',']);
        let version = words.filter_map(|word| word.parse().ok()).next();
        version.with_context(|| told.detail.clone())
    }

    /// The folder of everything that belongs to this node.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder with code.
    pub(crate) fn code(&self, files: &[(&str, String)]) -> Result<PathBuf> {
        let folder = tempfile::tempdir_in(&self.folder)?.keep();
        for (path, contents) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().context("it lies in the folder")?)?;
            fs::write(path, contents)?;
        }
        Ok(folder)
    }

    /// Makes a function ready whose packages may run what they want when they are installed.
    pub(crate) fn prepare(
        &self,
        runtime: Runtime,
        code: PathBuf,
    ) -> Result<Handlers, PrepareError> {
        let spec = spec(FunctionLimits::default(), 1);
        let spec = spec.map_err(|error| PrepareError::host(error.to_string(), "mend it"))?;
        let package = Package {
            spec: Arc::new(FunctionSpec {
                runtime,
                allow_scripts: true,
                ..spec
            }),
            digest: code.display().to_string(),
            code,
            log: Arc::clone(&self.log),
            progress: faas::Progress::default(),
            asker: faas::Asker::Node,
        };
        self.runtime.block_on(self.backend.prepare(package))
    }

    /// What a function with these files answers; its handlers are stopped.
    pub(crate) fn deployed(&self, runtime: Runtime, files: &[(&str, String)]) -> Result<String> {
        let prepared = self.prepare(runtime, self.code(files)?);
        let handlers = prepared.map_err(|error| anyhow!("{error}: {}", error.output))?;
        let invocation = Invocation::new("POST", "/attack".into(), Vec::new().into());
        let handler = self.proxy.callable(&handlers).first();
        let handler = handler.context("one handler was asked for")?;
        self.runtime.block_on(async {
            let reply = handler.invoke(&invocation, DEADLINE).await;
            handlers.stop(Duration::ZERO).await;
            Ok(String::from_utf8_lossy(&reply?.payload).into_owned())
        })
    }

    /// Puts the targets into an attack.
    pub(crate) fn aim(&self, code: &str) -> String {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let aimed = code
            .replace("@PID", &self.targets.sleeper.id().to_string())
            .replace("@PORT", &self.port().to_string())
            .replace("@ABSTRACT", &self.targets.abstract_name)
            .replace("@SOCKET", &path("docker.sock"))
            .replace("@SECRET", &path("secret"))
            .replace("@OTHER", &path("other/fn.py"))
            .replace("@FOLDER", &path(""));
        format!("{PRELUDE}{aimed}")
    }

    fn port(&self) -> u16 {
        self.targets
            .tcp
            .local_addr()
            .map(|addr| addr.port())
            .unwrap_or_default()
    }

    /// Sends code to the first handler.
    pub(crate) fn call(&self, code: &str) -> Result<String> {
        Ok(self.try_call(0, code)?)
    }

    pub(crate) fn try_call(&self, handler: usize, code: &str) -> Result<String, InvokeError> {
        let code = code.as_bytes().to_vec();
        let invocation = Invocation::new("POST", "/attack".into(), code.into());
        let handler = &self.proxy.callable(&self.handlers)[handler];
        self.runtime.block_on(async {
            handler.settled().await;
            let call = handler.invoke(&invocation, DEADLINE);
            let reply = tokio::time::timeout(DEADLINE, call).await;
            let late = InvokeError::Deadline {
                name: attack()?,
                deadline: DEADLINE,
            };
            let reply = reply.unwrap_or(Err(late))?;
            Ok(String::from_utf8_lossy(&reply.payload).into_owned())
        })
    }
}

/// Calls handlers without a route to them.
fn proxy() -> Proxy {
    Proxy::new(Arc::default(), Arc::new(Limits::default()))
}

/// What a build that fails prints: its code says what it reached.
pub(crate) fn failed_build(runtime: Runtime, files: &[(&str, String)]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let code = folder.path().join("code");
    for (name, contents) in files {
        let path = code.join(name);
        fs::create_dir_all(path.parent().context("it is below the code")?)?;
        fs::write(path, contents)?;
    }
    let runner = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let limits = Arc::new(Limits::default());
    let mut spec = spec(FunctionLimits::default(), 1)?;
    spec.runtime = runtime;
    spec.allow_scripts = true;
    let package = Package {
        spec: Arc::new(spec),
        code,
        digest: "0".into(),
        log: Arc::new(FunctionLog::new(&limits)),
        progress: faas::Progress::default(),
        asker: faas::Asker::Node,
    };
    let options = Options {
        data_dir: folder.path().join("data"),
        limits,
        sandbox: SandboxMode::Full,
        may_lack_landlock: false,
        interpreters: interpreters(SandboxMode::Full),
        build_network: Network::own(),
        build_envs: Vec::new(),
    };
    runner.block_on(async {
        let backend = ProcessBackend::start(options).await?;
        let prepared = backend.prepare(package).await;
        backend.shutdown().await;
        match prepared {
            Ok(_) => Err(anyhow!("the build did not fail")),
            Err(error) => Ok(format!("{error}\n{}", error.output)),
        }
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            self.handlers.stop(Duration::ZERO).await;
            self.backend.shutdown().await;
        });
        drop(self.targets.sleeper.kill());
        drop(self.targets.sleeper.wait());
    }
}

impl Targets {
    fn make(folder: &tempfile::TempDir) -> Result<Self> {
        let other = folder.path().join("other");
        fs::create_dir(&other)?;
        fs::write(other.join("fn.py"), "KEY = 'of another function'")?;
        let secret = folder.path().join("secret");
        fs::write(&secret, "of the host")?;
        let name = abstract_name();
        let address = SocketAddr::from_abstract_name(name.as_bytes())?;
        let flags = rustix::fs::OFlags::RDONLY;
        Ok(Self {
            sleeper: Command::new("sleep").arg("1000").spawn().context("sleep")?,
            tcp: TcpListener::bind("127.0.0.1:0")?,
            abstract_name: name,
            _abstract_socket: UnixListener::bind_addr(&address)?,
            _socket: UnixListener::bind(folder.path().join("docker.sock"))?,
            _secret: rustix::fs::open(&secret, flags, rustix::fs::Mode::empty())?,
        })
    }
}

/// Without namespaces, functions can't enter root's home, where a version manager's Python may lie.
fn interpreters(sandbox: SandboxMode) -> Interpreters {
    let system = Some(PathBuf::from("/usr/bin/python3"));
    Interpreters {
        python3: system.filter(|path| sandbox == SandboxMode::Reduced && path.exists()),
        ..Interpreters::default()
    }
}

/// A name that no other node of this process has.
fn abstract_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("tinyfaas-escape-{}-{number}", std::process::id())
}

fn attack() -> Result<FunctionName, InvokeError> {
    let name = "attack";
    name.parse()
        .map_err(|_bad| InvokeError::NotFound(name.to_owned()))
}

fn spec(limits: FunctionLimits, handlers: u16) -> Result<FunctionSpec> {
    Ok(FunctionSpec {
        name: attack()?,
        runtime: Runtime::Python3,
        entry: Entry::Convention,
        handlers,
        envs: Vec::new(),
        network: Network::None,
        allow_hosts: Vec::new(),
        allow_scripts: false,
        cors: None,
        limits,
    })
}

/// Runs code as the function would, in a plain process of this host.
pub(crate) fn outside(code: &str) -> Result<String> {
    let program = format!("{FUNCTION}\nimport sys\nprint(fn(sys.stdin.read()), end='')");
    let mut child = Command::new(python())
        .args(["-S", "-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 is needed for the controls")?;
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    stdin.write_all(code.as_bytes())?;
    drop(stdin);
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

/// The interpreter itself: a version manager's wrapper would not pass descriptors on.
fn python() -> PathBuf {
    let asked = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let path = asked
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    path.map_or_else(|| "python3".into(), |path| path.trim().into())
}
