//! The engines that compile and run: one with a pool of slots, one that allocates for each call.

use crate::ticker::Ticker;
use tokio::sync::Semaphore;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter,
    Store, UpdateDeadline,
};

/// Tables, core instances and memories that one call may have.
const TABLES_MAX: u32 = 8;
const CORE_INSTANCES_MAX: u32 = 16;
const MEMORIES_MAX: u32 = 4;
/// Entries of one table.
const TABLE_ELEMENTS_MAX: usize = 64 << 10;
/// The stack of an instance, and what a fiber has besides.
const WASM_STACK_BYTES_MAX: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;
/// Addresses behind a memory that trap, so that small offsets need no check of their own.
const GUARD_BYTES: u64 = 64 << 10;
/// What a slot keeps mapped between two calls: a page more or less costs a system call.
const KEEP_BYTES: usize = 256 << 10;
/// The smallest pool that is worth having.
const SLOTS_MIN: u32 = 16;

/// How large the pool is that instances come from.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// Instances that can run at once on this node.
    pub slots: u32,
    /// The address space of one instance's memory. An instance that may need more runs outside
    /// the pool.
    pub memory_bytes_max: usize,
}

impl Default for PoolOptions {
    /// As many addresses as any 64-bit machine has to give; none of it is memory until touched.
    fn default() -> Self {
        Self {
            slots: 512,
            memory_bytes_max: 256 << 20,
        }
    }
}

/// The engines of a node.
#[derive(Debug)]
pub(crate) struct Engines {
    /// None where the host has not enough address space.
    pub(crate) pooled: Option<Engine>,
    pub(crate) on_demand: Engine,
    pub(crate) pool: PoolOptions,
    /// One permit for each instance that may run.
    pub(crate) slots: Semaphore,
    pub(crate) ticker: Ticker,
}

impl Engines {
    /// Makes the engines. Where the host has no addresses for the pool that is wanted, it gets a
    /// smaller one or none.
    pub(crate) fn start(wanted: PoolOptions) -> wasmtime::Result<Self> {
        let mut pool = wanted;
        let pooled = loop {
            let error = match Engine::new(&config(pool, true)) {
                Ok(engine) => break Some(engine),
                Err(error) => error,
            };
            if pool.slots / 2 < SLOTS_MIN {
                tracing::warn!(%error, "no pool for WebAssembly instances; calls take longer");
                pool.slots = wanted.slots;
                break None;
            }
            pool.slots /= 2;
        };
        let on_demand = Engine::new(&config(pool, false))?;
        let engines = pooled.iter().chain([&on_demand]).cloned().collect();
        Ok(Self {
            pooled,
            on_demand,
            pool,
            slots: Semaphore::new(pool.slots as usize),
            ticker: Ticker::start(engines)?,
        })
    }

    /// The engine for an instance that takes so much. Code that one compiled runs in either.
    pub(crate) fn pick(&self, needs: Needs) -> &Engine {
        let fits = needs.memory_bytes_max <= self.pool.memory_bytes_max as u64
            && needs.memories <= 1
            && needs.tables <= TABLES_MAX;
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

/// Everything that decides how code is compiled is the same for both engines.
fn config(pool: PoolOptions, is_pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES_MAX)
        .async_stack_size(FIBER_STACK_BYTES)
        .memory_reservation(pool.memory_bytes_max as u64)
        .memory_guard_size(GUARD_BYTES)
        .guard_before_linear_memory(false)
        .memory_init_cow(true);
    if is_pooled {
        let mut slots = PoolingAllocationConfig::new();
        slots
            .max_memory_size(pool.memory_bytes_max)
            .total_memories(pool.slots)
            .total_stacks(pool.slots)
            .total_component_instances(pool.slots)
            .total_core_instances(pool.slots * CORE_INSTANCES_MAX)
            .max_core_instances_per_component(CORE_INSTANCES_MAX)
            .max_memories_per_component(1)
            .max_memories_per_module(1)
            .total_tables(pool.slots * TABLES_MAX)
            .max_tables_per_component(TABLES_MAX)
            .max_tables_per_module(TABLES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .total_gc_heaps(pool.slots)
            .linear_memory_keep_resident(KEEP_BYTES)
            .table_keep_resident(KEEP_BYTES)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots));
    }
    config
}

/// The bounds of one instance.
#[derive(Debug)]
pub(crate) struct Bounds {
    bytes_max: usize,
    bytes: usize,
    /// Whether memory was asked for in vain, which a later trap is most likely about.
    pub(crate) is_exceeded: bool,
}

impl Bounds {
    pub(crate) fn new(memory_bytes_max: u64) -> Self {
        Self {
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
        Ok(desired <= TABLE_ELEMENTS_MAX && maximum.is_none_or(|max| desired <= max))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

/// What the state of every instance has.
pub(crate) trait Bounded: Send + 'static {
    fn bounds(&mut self) -> &mut Bounds;
}

/// A store whose instance is bounded and lets others have their turn at every tick.
pub(crate) fn store<T: Bounded>(engine: &Engine, state: T) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.bounds());
    store.set_epoch_deadline(1);
    // Tokio's own yield lets sockets be looked at; an instance that only computes can't starve
    // them.
    store.epoch_deadline_callback(|_| {
        let turn = Box::pin(tokio::task::yield_now());
        Ok(UpdateDeadline::YieldCustom(1, turn))
    });
    store
}
