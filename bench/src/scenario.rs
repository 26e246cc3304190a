//! The scenarios, as data, and how each kind is run.

mod fleet;
mod footprint;
mod functionbench;
mod growth;
mod open_loop;
mod overhead;
mod overload;
mod throughput;

use crate::row::Row;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// What every scenario is given.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The program under test.
    pub tinyfaas: PathBuf,
    /// The same without WebAssembly.
    pub without_wasm: Option<PathBuf>,
    /// Where Express is installed.
    pub tools: PathBuf,
    /// How long one load takes.
    pub time: Duration,
    /// How often both sides have their turn.
    pub rounds: usize,
    /// How long the realistic load takes.
    pub fleet: Duration,
}

/// A named measurement.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    run: fn(&Setting) -> Result<Vec<Row>>,
}

impl Scenario {
    /// Measures.
    ///
    /// # Errors
    /// If something can't be started or breaks.
    pub fn run(&self, setting: &Setting) -> Result<Vec<Row>> {
        (self.run)(setting)
    }
}

/// Every scenario, in the order of the table. Those of `throughput` each have their own name too.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "throughput",
        run: throughput::run,
    },
    Scenario {
        name: "overhead",
        run: overhead::run,
    },
    Scenario {
        name: "open-loop",
        run: open_loop::run,
    },
    Scenario {
        name: "overload",
        run: overload::run,
    },
    Scenario {
        name: "growth",
        run: growth::run,
    },
    Scenario {
        name: "footprint",
        run: footprint::run,
    },
    Scenario {
        name: "fleet",
        run: fleet::run,
    },
    Scenario {
        name: "functionbench",
        run: functionbench::run,
    },
];

pub use throughput::{COMPARED, PAIRS, Pair, run_alone, run_pair};
