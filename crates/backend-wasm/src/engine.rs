//! The engines that compile and run: one with a pool of slots, one that allocates for each call.

use crate::pace::Pace;
use crate::ticker::Ticker;
use faas::WasmLimits;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    ResourceLimiter, Store, UpdateDeadline,
};

/// What a fiber's stack has besides the instance's own.
const HOST_STACK_BYTES: usize = 512 << 10;
/// Addresses behind a memory that trap, so that small offsets need no check of their own.
const GUARD_BYTES: u64 = 64 << 10;
/// What a slot keeps mapped between two calls: a page more or less costs a system call.
const KEEP_BYTES: usize = 256 << 10;
/// The pool of a machine with few addresses, and the smallest that is worth having.
const SLOTS_ENOUGH: u32 = 100;
const SLOTS_MIN: u32 = 16;

/// The engines of a node.
#[derive(Debug)]
pub(crate) struct Engines {
    /// None where the host has not enough address space.
    pub(crate) pooled: Option<Engine>,
    pub(crate) on_demand: Engine,
    pub(crate) limits: WasmLimits,
    /// One permit for each instance that may run.
    pub(crate) slots: Slots,
    pub(crate) ticker: Ticker,
}

impl Engines {
    /// Makes the engines. Where the host has no addresses for the pool that is wanted, it gets a
    /// smaller one or none.
    pub(crate) fn start(limits: &WasmLimits) -> wasmtime::Result<Self> {
        let mut limits = *limits;
        let wanted = limits.instances_max;
        let pooled = loop {
            let error = match Engine::new(&config(&limits, true)) {
                Ok(engine) => break Some(engine),
                Err(error) => error,
            };
            limits.instances_max = match limits.instances_max {
                more if more > SLOTS_ENOUGH => (more / 2).max(SLOTS_ENOUGH),
                fewer => fewer / 2,
            };
            if limits.instances_max < SLOTS_MIN {
                tracing::warn!(%error, "no pool for WebAssembly instances; calls take longer");
                limits.instances_max = wanted;
                break None;
            }
        };
        let on_demand = compiler(&limits)?;
        let engines = pooled.iter().chain([&on_demand]).cloned().collect();
        Ok(Self {
            pooled,
            on_demand,
            limits,
            slots: Slots::new(&limits),
            ticker: Ticker::start(engines)?,
        })
    }

    /// The engine for an instance that takes so much. Code that one compiled runs in either.
    pub(crate) fn pick(&self, needs: Needs) -> &Engine {
        let fits = needs.memory_bytes_max <= self.limits.slot_bytes_max
            && needs.memories <= 1
            && needs.tables <= self.limits.tables_max;
        match &self.pooled {
            Some(pooled) if fits => pooled,
            Some(_) | None => &self.on_demand,
        }
    }
}

/// What one instance of a function takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) memory_bytes_max: u64,
    pub(crate) memories: u32,
    pub(crate) tables: u32,
}

/// An engine that compiles, and runs outside the pool.
pub(crate) fn compiler(limits: &WasmLimits) -> wasmtime::Result<Engine> {
    Engine::new(&config(limits, false))
}

/// Everything that decides how code is compiled is the same for both engines.
fn config(limits: &WasmLimits, is_pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes_max)
        .async_stack_size(limits.stack_bytes_max + HOST_STACK_BYTES)
        .memory_reservation(limits.slot_bytes_max)
        .memory_guard_size(GUARD_BYTES)
        .guard_before_linear_memory(false)
        .memory_init_cow(true)
        // Only debuggers and unwinders of other languages read it.
        .native_unwind_info(false)
        .cranelift_opt_level(OptLevel::SpeedAndSize);
    if is_pooled {
        let slots = limits.instances_max;
        let mut pool = PoolingAllocationConfig::new();
        pool.max_memory_size(usize::try_from(limits.slot_bytes_max).unwrap_or(usize::MAX))
            .total_memories(slots)
            .total_stacks(slots)
            .total_component_instances(slots)
            .total_core_instances(slots * limits.core_instances_max)
            .max_core_instances_per_component(limits.core_instances_max)
            .max_memories_per_component(1)
            .max_memories_per_module(1)
            .total_tables(slots * limits.tables_max)
            .max_tables_per_component(limits.tables_max)
            .max_tables_per_module(limits.tables_max)
            .table_elements(limits.table_entries_max)
            .total_gc_heaps(slots)
            .linear_memory_keep_resident(KEEP_BYTES)
            .table_keep_resident(KEEP_BYTES)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// The part of all slots that is kept for functions that hold few.
const RESERVED_PART: usize = 4;
/// A function that holds fewer slots than this may take those.
const HELD_FEW: usize = 8;

/// The slots of the instances that run, and of the calls that wait for one. Functions whose
/// instances wait for others' hosts hold theirs for long, so a part is out of their reach.
#[derive(Debug)]
pub(crate) struct Slots {
    open: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Slots {
    fn new(limits: &WasmLimits) -> Self {
        let all = limits.instances_max as usize;
        let reserved = all / RESERVED_PART;
        Self {
            open: Arc::new(Semaphore::new(all - reserved)),
            reserved: Arc::new(Semaphore::new(reserved)),
            waiting: Semaphore::new(limits.waiting_max),
        }
    }

    /// A slot for a function that holds so many, awaited where all are taken; none where too many
    /// calls wait already.
    pub(crate) async fn take(&self, held: usize) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.open).try_acquire_owned() {
            return Some(slot);
        }
        let has_few = held < HELD_FEW;
        if has_few && let Ok(slot) = Arc::clone(&self.reserved).try_acquire_owned() {
            return Some(slot);
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        let open = Arc::clone(&self.open).acquire_owned();
        if !has_few {
            return open.await.ok();
        }
        tokio::select! {
            slot = open => slot.ok(),
            slot = Arc::clone(&self.reserved).acquire_owned() => slot.ok(),
        }
    }
}

/// The bounds of one instance.
#[derive(Debug)]
pub(crate) struct Bounds {
    bytes_max: usize,
    bytes: usize,
    limits: WasmLimits,
    /// Whether memory was asked for in vain, which a later trap is most likely about.
    pub(crate) is_exceeded: bool,
}

impl Bounds {
    pub(crate) fn new(memory_bytes_max: u64, limits: WasmLimits) -> Self {
        Self {
            limits,
            bytes_max: usize::try_from(memory_bytes_max).unwrap_or(usize::MAX),
            bytes: 0,
            is_exceeded: false,
        }
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        let is_within = bytes <= self.bytes_max && maximum.is_none_or(|max| desired <= max);
        if is_within {
            self.bytes = bytes;
        } else {
            self.is_exceeded = true;
        }
        Ok(is_within)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_entries_max && maximum.is_none_or(|max| desired <= max))
    }

    fn instances(&self) -> usize {
        self.limits.core_instances_max as usize
    }

    fn tables(&self) -> usize {
        self.limits.tables_max as usize
    }

    fn memories(&self) -> usize {
        self.limits.memories_max as usize
    }
}

/// What the state of every instance has.
pub(crate) trait Bounded: Send + 'static {
    fn bounds(&mut self) -> &mut Bounds;
}

/// A store whose instance is bounded and lets others have their turn at every tick.
///
/// Where its function has less than a core, it pauses when it has used that up.
pub(crate) fn store<T: Bounded>(engine: &Engine, state: T, pace: Option<&Arc<Pace>>) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.bounds());
    store.set_epoch_deadline(1);
    // Tokio's own yield lets sockets be looked at; an instance that only computes can't starve
    // them.
    match pace.cloned() {
        None => store.epoch_deadline_callback(|_| {
            let turn = Box::pin(tokio::task::yield_now());
            Ok(UpdateDeadline::YieldCustom(1, turn))
        }),
        Some(pace) => store.epoch_deadline_callback(move |_| {
            pace.charge_tick();
            let pace = Arc::clone(&pace);
            let turn = Box::pin(async move {
                tokio::task::yield_now().await;
                pace.wait().await;
            });
            Ok(UpdateDeadline::YieldCustom(1, turn))
        }),
    }
    store
}
