//! Starts the containers of one function's handlers.

use crate::build::BUILT;
use crate::container::{self, Container, NOBODY, Plan, Target};
use crate::deployment_network::Network;
use crate::engine::{ENGINE_FIX, Engine, explain};
use crate::image::Image;
use crate::shim;
use crate::stock::{Stock, Volumes};
use auth::Secret;
use faas::{BoxFuture, Entry, Package, PrepareError, Runtime};
use handler_protocol::{Launch, Launched, Process};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// The port that every handler listens on, on its own network.
const PORT: u16 = 7000;

/// How often the engine is asked for the address of a container that starts.
const ADDR_PAUSE: Duration = Duration::from_millis(5);

/// The lines of a handler that did not load which its error shows.
const LAST_LINES: usize = 20;

/// A small young generation and one helper thread: a handler is one of many on a small machine.
const NODEJS_FLAGS: [&str; 2] = ["--max-semi-space-size=2", "--v8-pool-size=1"];

/// Everything that the containers of a deployment have in common.
#[derive(Debug)]
pub(crate) struct Template {
    engine: Arc<Engine>,
    stock: Arc<Stock>,
    pub(crate) package: Package,
    image: Image,
    volumes: Mutex<Volumes>,
    network: Network,
    /// Containers that were started so far.
    launched: AtomicUsize,
}

impl Launch for Template {
    fn launch<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Launched, PrepareError>> {
        Box::pin(async move {
            let target = Target {
                log: Arc::clone(&self.package.log),
                handler: Arc::clone(id),
            };
            let volumes = self.supplied().await?;
            let secret = Secret::random().map_err(|error| {
                PrepareError::host(
                    format!("this machine has no random bytes: {error}"),
                    "deploy again; if it fails again, look at /dev/urandom",
                )
            })?;
            let plan = self.plan(id, &volumes, &secret);
            let mut container = Container::start(&self.engine, plan, target).await?;
            let name = container.name().to_owned();
            let addr = tokio::select! {
                addr = self.addr(&name) => addr?,
                exit = container.wait() => return Err(self.not_loaded(id, &exit.text)),
            };
            Ok(Launched {
                addr: SocketAddr::new(addr, PORT),
                secret,
                process: Box::new(container),
            })
        })
    }
}

impl Process for Container {
    fn kill(&mut self) {
        Container::kill(self);
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async { Container::wait(self).await.text })
    }
}

impl Template {
    pub(crate) fn new(
        engine: Arc<Engine>,
        stock: Arc<Stock>,
        (package, image): (Package, Image),
        (volumes, network): (Volumes, Network),
    ) -> Self {
        Self {
            engine,
            stock,
            package,
            image,
            volumes: Mutex::new(volumes),
            network,
            launched: AtomicUsize::new(0),
        }
    }

    /// Its volumes, and its network seen to. A handler that is started again may find that somebody
    /// has removed them, as `tinyfaas clean` does: they are made again.
    async fn supplied(&self) -> Result<Volumes, PrepareError> {
        let mut volumes = self.volumes.lock().await;
        let launched = self.launched.fetch_add(1, Ordering::Relaxed);
        if launched >= usize::from(self.package.spec.handlers) {
            self.network.restore().await?;
            if !self.stock.has(&volumes).await {
                let _exposed = self.stock.exposed_by(&self.package, &self.image)?;
                *volumes = self.stock.volumes_of(&self.package, &self.image).await?;
            }
        }
        Ok(volumes.clone())
    }

    /// Its address on the network of the deployment, which it has once it has started.
    async fn addr(&self, name: &str) -> Result<IpAddr, PrepareError> {
        loop {
            let found = container::addr(&self.engine, name, &self.network.name).await;
            let found = found.map_err(|error| {
                PrepareError::host(format!("Docker: {}", explain(&error)), ENGINE_FIX)
            })?;
            match found {
                Some(addr) => return Ok(addr),
                None => tokio::time::sleep(ADDR_PAUSE).await,
            }
        }
    }

    fn not_loaded(&self, id: &str, how: &str) -> PrepareError {
        let output = self.package.log.last_text(id, LAST_LINES);
        handler_protocol::not_loaded(&self.package.spec.name, how).with_output(output)
    }

    fn plan(&self, id: &Arc<str>, volumes: &Volumes, secret: &Secret) -> Plan {
        Plan {
            name: self.engine.unique(id),
            image: self.image.id.clone(),
            command: self.command(),
            envs: self.envs(id, volumes.is_built, secret),
            mounts: vec![
                volumes.code.mount("/fn", false),
                volumes.shim.mount(shim::FOLDER, false),
            ],
            network: self.network.name.clone(),
            user: Some(NOBODY),
            is_read_only: true,
            reads_all: false,
            file_bytes_max: None,
            profile: None,
            limits: self.package.spec.limits.clone(),
            labels: self.engine.labels_of(self.package.spec.name.as_str()),
        }
    }

    fn command(&self) -> Vec<String> {
        let at = |file: &str| format!("{}/{file}", shim::FOLDER);
        let words = |words: &[&str], last: String| {
            let words = words.iter().map(|word| (*word).to_owned());
            words.chain([last]).collect()
        };
        match self.package.spec.runtime {
            Runtime::Nodejs => {
                let node = [&["node"][..], &NODEJS_FLAGS].concat();
                words(&node, at("shim.js"))
            }
            Runtime::Python3 => words(&["python3", "-B", "-X", "utf8"], at("shim.py")),
            Runtime::Go => vec![format!("/fn/{BUILT}/fn")],
            Runtime::Binary | Runtime::Wasm => words(&[shim::PROGRAM], shim::WORD.to_owned()),
        }
    }

    fn envs(&self, id: &Arc<str>, is_built: bool, secret: &Secret) -> Vec<String> {
        let spec = &self.package.spec;
        let mut envs = vec![
            "HOME=/tmp".to_owned(),
            "TMPDIR=/tmp".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            format!("TINYFAAS_FUNCTION={}", spec.name),
            format!("TINYFAAS_HANDLER={id}"),
            "TINYFAAS_CODE=/fn".to_owned(),
            format!("TINYFAAS_LISTEN={PORT}"),
            // Others on its network have other ones.
            format!("TINYFAAS_SECRET={}", secret.to_hex()),
        ];
        if is_built && spec.runtime == Runtime::Python3 {
            envs.push(format!("TINYFAAS_DEPS=/fn/{BUILT}"));
        }
        if let Entry::EventHandler(entry) = &spec.entry {
            envs.push(format!("TINYFAAS_ENTRY={entry}"));
        }
        let own = spec.process_envs().into_iter();
        envs.extend(own.map(|(name, value)| format!("{name}={value}")));
        envs
    }
}
