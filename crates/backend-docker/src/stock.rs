//! The volumes that functions are made of: their code with what was built for it, and the shims.

use crate::build;
use crate::engine::Engine;
use crate::image::Image;
use crate::shim;
use crate::volume::{self, Entry, Filling, Source, Volume};
use builds::Recipe;
use faas::{Exposed, Exposure, Limits, Package, PrepareError, Runtime, Stage};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, MutexGuard};

/// What is on hand at the engine.
#[derive(Debug)]
pub(crate) struct Stock {
    engine: Arc<Engine>,
    /// This program, for the shim of the binary runtime.
    program: PathBuf,
    limits: Arc<Limits>,
    /// The builds, which have a way out.
    exposure: Arc<Exposure>,
    /// The volumes that handlers use, by name. The lock is held while one is filled: code is copied
    /// and built one at a time.
    volumes: Mutex<HashMap<String, Weak<Volume>>>,
}

/// What the handlers of a deployment are given.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    pub(crate) code: Arc<Volume>,
    pub(crate) shim: Arc<Volume>,
    /// Whether something was installed or compiled beside the code.
    pub(crate) is_built: bool,
}

impl Stock {
    pub(crate) fn new(engine: &Arc<Engine>, program: PathBuf, limits: Arc<Limits>) -> Self {
        Self {
            engine: Arc::clone(engine),
            program,
            limits,
            exposure: Arc::default(),
            volumes: Mutex::default(),
        }
    }

    pub(crate) fn exposure(&self) -> Arc<Exposure> {
        Arc::clone(&self.exposure)
    }

    /// Notes that a function may be built now.
    pub(crate) fn exposed_by(
        &self,
        package: &Package,
        image: &Image,
    ) -> Result<Option<Exposed>, PrepareError> {
        let recipe = build::recipe(package, image)?;
        Ok(recipe.map(|_| self.exposure.begin()))
    }

    /// Whether the engine still has them: somebody may have removed them behind our back.
    pub(crate) async fn has(&self, volumes: &Volumes) -> bool {
        volume::is_there(&self.engine, &volumes.code.name).await
            && volume::is_there(&self.engine, &volumes.shim.name).await
    }

    /// The volumes of a function, made and filled where the engine does not have them.
    pub(crate) async fn volumes_of(
        &self,
        package: &Package,
        image: &Image,
    ) -> Result<Volumes, PrepareError> {
        let mut volumes = self.turn(package).await?;
        let (digest, entries) = match package.spec.runtime {
            Runtime::Binary => shim::program(&self.program).map_err(|error| {
                PrepareError::host(
                    format!("this program could not be read: {error}"),
                    "see that the file of tinyfaas is still where it was started from",
                )
            })?,
            _ => shim::interpreted(),
        };
        let name = self.engine.name(&format!("shim-{digest}"));
        let shim = self
            .filled(&mut volumes, name, image, entries, None)
            .await?;
        let recipe = build::recipe(package, image)?;
        let is_built = recipe.is_some();
        // What was built lies among the code, so the name tells both.
        let made_by = match &recipe {
            Some(recipe) => short_key(&recipe.key),
            None => package.spec.runtime.as_str(),
        };
        let name = format!("fn-{}-{made_by}", short(&package.digest));
        let name = self.engine.name(&name);
        let entries = vec![Entry {
            path: PathBuf::new(),
            mode: 0o755,
            source: Source::Folder(package.code.clone()),
        }];
        let recipe = recipe.map(|recipe| (recipe, package));
        let code = self
            .filled(&mut volumes, name, image, entries, recipe)
            .await?;
        volumes.retain(|_, volume| volume.strong_count() > 0);
        volume::prune(&self.engine, |name| volumes.contains_key(name)).await;
        Ok(Volumes {
            code,
            shim,
            is_built,
        })
    }

    /// Waits until nothing else is filled or built, for a bounded time, and tells of it.
    async fn turn(
        &self,
        package: &Package,
    ) -> Result<MutexGuard<'_, HashMap<String, Weak<Volume>>>, PrepareError> {
        if let Ok(volumes) = self.volumes.try_lock() {
            return Ok(volumes);
        }
        let _waits = package.progress.enter(Stage::WaitsForBuild);
        let wait = self.limits.builds.wait;
        let volumes = tokio::time::timeout(wait, self.volumes.lock()).await;
        volumes.map_err(|_elapsed| {
            let (name, seconds) = (&package.spec.name, wait.as_secs());
            PrepareError::busy(
                format!("function \"{name}\": it waited {seconds} s for other builds to end"),
                "deploy it again when they have ended, or delete the functions that hold them",
            )
        })
    }

    /// The volume of that name, filled where it is not.
    async fn filled(
        &self,
        volumes: &mut HashMap<String, Weak<Volume>>,
        name: String,
        image: &Image,
        entries: Vec<Entry>,
        recipe: Option<(Recipe, &Package)>,
    ) -> Result<Arc<Volume>, PrepareError> {
        if let Some(volume) = volumes.get(&name).and_then(Weak::upgrade)
            && volume::is_there(&self.engine, &name).await
        {
            return Ok(volume);
        }
        let mut filling = Filling::begin(&self.engine, name.clone(), &image.id).await?;
        let filled = match filling.is_complete {
            true => Ok(()),
            false => self.fill(&mut filling, image, entries, recipe).await,
        };
        if let Err(error) = filled {
            filling.abandon().await;
            return Err(error);
        }
        let volume = Arc::new(filling.complete().await?);
        volumes.insert(name, Arc::downgrade(&volume));
        Ok(volume)
    }

    async fn fill(
        &self,
        filling: &mut Filling,
        image: &Image,
        entries: Vec<Entry>,
        recipe: Option<(Recipe, &Package)>,
    ) -> Result<(), PrepareError> {
        filling.put(entries).await?;
        let Some((recipe, package)) = recipe else {
            return Ok(());
        };
        let _builds = package.progress.enter(Stage::Builds);
        let what = (recipe, &*filling);
        let notes = build::run(&self.engine, &self.limits, (package, image), what).await?;
        filling.volume.notes = notes;
        Ok(())
    }
}

/// Enough of a digest to tell codes apart.
fn short(digest: &str) -> &str {
    digest.get(..24).unwrap_or(digest)
}

/// Enough of a recipe's key, which ends with a digest of all that the result depends on. With the
/// code's it is short enough for a name.
fn short_key(key: &str) -> &str {
    key.rsplit('-')
        .next()
        .and_then(|digest| digest.get(..24))
        .unwrap_or(key)
}
