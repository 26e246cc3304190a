//! Sees that a build writes no more into its volume than it may, and leaves the engine's disk some space. The engine bounds no volume, and
//! its files may be out of our sight, so another container looks: one that the build does not see.

use crate::container::{Container, Plan, Target};
use crate::engine::Engine;
use crate::image::Image;
use crate::volume::Filling;
use bollard::query_parameters::KillContainerOptionsBuilder;
use builds::Why;
use faas::{FunctionLimits, FunctionLog, Limits, PrepareError, Runtime};
use std::sync::Arc;
use std::time::Duration;

/// What looks, in the languages whose packages run code while they are installed.
const NODEJS: &str = include_str!("watch/watch.js");
const PYTHON3: &str = include_str!("watch/watch.py");

/// Where it has the volume.
const AT: &str = "/volume";

/// How it ends where there is too much.
const TOO_MANY_BYTES: &str = "exit status 11";
const UNREADABLE: &str = "exit status 12";
const DISK_FULL: &str = "exit status 13";

/// How often it is asked for its last look, which it does not hear before it has begun.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Looks at the volume of a build, again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    engine: Arc<Engine>,
    container: Container,
    bytes_max: u64,
}

impl Watch {
    /// Begins to look; nothing where the build can write a single file, whose size is bounded
    /// otherwise.
    pub(crate) async fn start(
        engine: &Arc<Engine>,
        limits: &Limits,
        (runtime, image): (Runtime, &Image),
        filling: &Filling,
    ) -> Result<Option<Self>, PrepareError> {
        let program = match runtime {
            Runtime::Nodejs => ["node", "-e", NODEJS],
            Runtime::Python3 => ["python3", "-c", PYTHON3],
            // The compiler runs nothing of the function's, and writes what it compiled.
            Runtime::Go | Runtime::Binary | Runtime::Wasm => return Ok(None),
        };
        let bytes_max = limits.builds.bytes_max;
        let words = program.into_iter().map(str::to_owned);
        let free_min = limits.builds.free_bytes_min / 2;
        let own = [AT.to_owned(), bytes_max.to_string(), free_min.to_string()];
        let id: Arc<str> = engine.id("watch").into();
        let plan = Plan {
            name: engine.unique(&id),
            image: image.id.clone(),
            command: words.chain(own).collect(),
            envs: Vec::new(),
            mounts: vec![filling.volume.mount(AT, false)],
            network: "none".to_owned(),
            user: Some("0:0"),
            is_read_only: true,
            // The build may hide a folder from its own user.
            reads_all: true,
            file_bytes_max: None,
            profile: None,
            limits: FunctionLimits {
                cpu_millis_max: limits.builds.cpu_millis_max,
                ..FunctionLimits::default()
            },
            labels: engine.labels(),
        };
        let target = Target {
            log: Arc::new(FunctionLog::new(limits)),
            handler: id,
        };
        Ok(Some(Self {
            engine: Arc::clone(engine),
            container: Container::start(engine, plan, target).await?,
            bytes_max,
        }))
    }

    /// Returns when there is too much, or nobody looks any more. Says which.
    pub(crate) async fn outgrown(&mut self) -> Why {
        let exit = self.container.wait().await;
        Why::Failed(match exit.text.as_str() {
            TOO_MANY_BYTES => format!("the build wrote more than {} MiB", self.bytes_max >> 20),
            UNREADABLE => "the build made folders that can't be looked into".to_owned(),
            DISK_FULL => return Why::DiskFull,
            how => format!("what the build writes could not be watched ({how})"),
        })
    }

    /// Looks once more, at what a build left. Says whether that is too much.
    pub(crate) async fn last_look(&mut self, patience: Duration) -> Option<Why> {
        let name = self.container.name().to_owned();
        let engine = Arc::clone(&self.engine);
        let asking = async {
            loop {
                let options = KillContainerOptionsBuilder::default().signal("SIGTERM");
                let asked = engine.docker.kill_container(&name, Some(options.build()));
                if let Err(error) = asked.await {
                    tracing::debug!(%error, "the watch has ended");
                }
                tokio::time::sleep(ASK_PAUSE).await;
            }
        };
        let exit = tokio::select! {
            exit = tokio::time::timeout(patience, self.container.wait()) => exit,
            () = asking => return None,
        };
        match exit {
            Ok(exit) if exit.is_success => None,
            Ok(_) => Some(self.outgrown().await),
            Err(_elapsed) => {
                let why = "what the build wrote could not be looked at in time";
                Some(Why::Failed(why.to_owned()))
            }
        }
    }
}
