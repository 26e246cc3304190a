//! The volumes that functions are made of: their code with what was built for it, and the shims.

use crate::build;
use crate::engine::Engine;
use crate::image::Image;
use crate::shim;
use crate::volume::{self, Entry, Filling, Source, Volume};
use builds::{Recipe, Turns};
use faas::{Exposed, Exposure, Limits, Package, PrepareError, Runtime, Stage};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedMutexGuard, RwLock};
use tokio_util::sync::CancellationToken;

/// What is on hand at the engine.
#[derive(Debug)]
pub(crate) struct Stock {
    engine: Arc<Engine>,
    /// This program, for the shim of the binary runtime.
    program: PathBuf,
    limits: Arc<Limits>,
    /// The builds, which have a way out.
    exposure: Arc<Exposure>,
    turns: Turns,
    /// The volumes that handlers use or that are filled, by name.
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Read while a volume is found or made, until a container holds it; written while those that
    /// nothing uses are removed.
    removals: RwLock<()>,
}

/// The volume of a name, as long as handlers use it. Whoever fills it, or removes what could not be
/// filled, has the lock: one name has one of them, and different ones don't wait for each other.
type Slot = tokio::sync::Mutex<Weak<Volume>>;

/// What the handlers of a deployment are given.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    pub(crate) code: Arc<Volume>,
    pub(crate) shim: Arc<Volume>,
    /// Whether something was installed or compiled beside the code.
    pub(crate) is_built: bool,
}

/// A volume that is wanted: its name, what is put into it, and what is built there then.
struct Wanted {
    name: String,
    entries: Vec<Entry>,
    recipe: Option<Recipe>,
}

impl Stock {
    pub(crate) fn new(engine: &Arc<Engine>, program: PathBuf, limits: Arc<Limits>) -> Self {
        Self {
            engine: Arc::clone(engine),
            program,
            turns: Turns::new(&limits.builds),
            limits,
            exposure: Arc::default(),
            slots: Mutex::default(),
            removals: RwLock::default(),
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
        self: &Arc<Self>,
        package: &Package,
        image: &Image,
    ) -> Result<Volumes, PrepareError> {
        let (digest, entries) = match package.spec.runtime {
            Runtime::Binary => shim::program(&self.program).map_err(|error| {
                PrepareError::host(
                    format!("this program could not be read: {error}"),
                    "see that the file of tinyfaas is still where it was started from",
                )
            })?,
            _ => shim::interpreted(),
        };
        let wanted = Wanted {
            name: self.engine.name(&format!("shim-{digest}")),
            entries,
            recipe: None,
        };
        let shim = self.filled(wanted, (package, image)).await?;
        let recipe = build::recipe(package, image)?;
        let is_built = recipe.is_some();
        // What was built lies among the code, so the name tells both.
        let made_by = match &recipe {
            Some(recipe) => short_key(&recipe.key),
            None => package.spec.runtime.as_str(),
        };
        let name = format!("fn-{}-{made_by}", short(&package.digest));
        let wanted = Wanted {
            name: self.engine.name(&name),
            entries: vec![Entry {
                path: PathBuf::new(),
                mode: 0o755,
                source: Source::Folder(package.code.clone()),
            }],
            recipe,
        };
        let code = self.filled(wanted, (package, image)).await?;
        self.prune().await;
        Ok(Volumes {
            code,
            shim,
            is_built,
        })
    }

    /// Removes volumes that nothing uses.
    async fn prune(&self) {
        let _alone = self.removals.write().await;
        let used: HashSet<String> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| {
                // Whoever has or waits for its lock has the slot.
                Arc::strong_count(slot) > 1
                    || slot
                        .try_lock()
                        .is_ok_and(|volume| volume.strong_count() > 0)
            });
            slots.keys().cloned().collect()
        };
        volume::prune(&self.engine, |name| used.contains(name)).await;
    }

    /// Waits until nobody else fills the volume, for a bounded time, and tells of it.
    async fn slot(
        &self,
        name: &str,
        package: &Package,
    ) -> Result<OwnedMutexGuard<Weak<Volume>>, PrepareError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(name.to_owned()).or_default())
        };
        if let Ok(volume) = Arc::clone(&slot).try_lock_owned() {
            return Ok(volume);
        }
        let _waits = package.progress.enter(Stage::WaitsForBuild);
        let volume = tokio::time::timeout(self.limits.builds.wait, slot.lock_owned()).await;
        volume.map_err(|_elapsed| self.turns.too_late(package, "of the same code"))
    }

    /// The volume of that name, filled where it is not: in a task of its own, which keeps the name until
    /// nothing of what failed is left. Dropping the future cuts it.
    async fn filled(
        self: &Arc<Self>,
        wanted: Wanted,
        (package, image): (&Package, &Image),
    ) -> Result<Arc<Volume>, PrepareError> {
        let slot = self.slot(&wanted.name, package).await?;
        if let Some(volume) = slot.upgrade()
            && volume::is_there(&self.engine, &wanted.name).await
        {
            return Ok(volume);
        }
        let cut = CancellationToken::new();
        let _cuts = cut.clone().drop_guard();
        let (here, package, image) = (Arc::clone(self), package.clone(), image.clone());
        let filling = self
            .engine
            .tracker
            .spawn(async move { here.fill(slot, wanted, (&package, &image), &cut).await });
        let broken = |_panicked| {
            let fix = "see the log of tinyfaas";
            Err(PrepareError::host("filling a volume broke off", fix))
        };
        filling.await.unwrap_or_else(broken)
    }

    async fn fill(
        &self,
        mut slot: OwnedMutexGuard<Weak<Volume>>,
        wanted: Wanted,
        (package, image): (&Package, &Image),
        cut: &CancellationToken,
    ) -> Result<Arc<Volume>, PrepareError> {
        let exposed = wanted.recipe.as_ref().map(|_| self.exposure.begin());
        let mut filling = {
            let _stays = self.removals.read().await;
            Filling::begin(&self.engine, wanted.name.clone(), &image.id).await?
        };
        let filled = match filling.is_complete {
            true => Ok(()),
            false => tokio::select! {
                filled = self.put(&mut filling, wanted, (package, image)) => filled,
                () = cut.cancelled() => Err(cancelled()),
            },
        };
        if let Err(error) = filled {
            self.engine.tracker.spawn(async move {
                filling.abandon().await;
                drop((slot, exposed));
            });
            return Err(error);
        }
        let volume = Arc::new(filling.complete().await?);
        *slot = Arc::downgrade(&volume);
        Ok(volume)
    }

    async fn put(
        &self,
        filling: &mut Filling,
        wanted: Wanted,
        (package, image): (&Package, &Image),
    ) -> Result<(), PrepareError> {
        let Some(recipe) = wanted.recipe else {
            return filling.put(wanted.entries).await;
        };
        let _turn = self.turns.take(package).await?;
        filling.put(wanted.entries).await?;
        let what = (recipe, &*filling);
        let notes = build::run(&self.engine, &self.limits, (package, image), what).await?;
        filling.volume.notes = notes;
        Ok(())
    }
}

/// Nobody hears of it: whoever waited has gone.
fn cancelled() -> PrepareError {
    PrepareError::build("the build was cancelled", "deploy again")
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
