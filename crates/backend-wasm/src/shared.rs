//! What every instance of a function has in common.

use crate::engine::Bounds;
use crate::failure::Lines;
use crate::outbound::Outbound;
use crate::pace::Pace;
use faas::WasmLimits;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) envs: Arc<[(String, String)]>,
    pub(crate) lines: Lines,
    pub(crate) memory_bytes_max: u64,
    /// What its instances may compute; none where that is no less than they can.
    pub(crate) pace: Option<Arc<Pace>>,
    pub(crate) wasm: WasmLimits,
    pub(crate) payload_bytes_max: usize,
    pub(crate) headers_bytes_max: usize,
    /// What it may send; none where it may send nothing.
    pub(crate) outbound: Option<Arc<Outbound>>,
    /// What is kept of one call's output for the log.
    pub(crate) log_bytes_max: usize,
}

impl Shared {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.memory_bytes_max, self.wasm)
    }

    /// What may be copied out of an instance at once, so that it can't make us hold more.
    pub(crate) fn copied_bytes_max(&self) -> usize {
        // Each field costs more than its bytes.
        const OVERHEAD: usize = 16;
        self.payload_bytes_max + self.headers_bytes_max * OVERHEAD
    }
}
