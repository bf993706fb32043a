//! Deterministic simulation: the whole store, with its threads, catalog and files, on a machine that a seed rules.
//!
//! [`simulate`] draws a machine and a plan from a seed ([`swarm`](Plan)), lets a client work ([`client`](World)) while
//! faults strike and the machine crashes, and holds what it reads against a plain model. What must hold is listed in
//! docs/design/0008-simulation.md; the same seed gives the same schedule, the same faults and the same crash.

mod client;
mod disk;
mod engine;
mod host;
mod model;
mod stats;
mod swarm;

pub use crate::host::Mistake;
pub use disk::{Disk, DiskConfig, Fault, FaultCounts, FaultRates, Part, Sabotage};
pub use engine::SimEngine;
pub use host::SimHost;
pub use stats::Stats;
pub use swarm::{Mode, Plan};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a seed did.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it came to.
    pub stats: Stats,
    /// Stands for its whole schedule: equal for equal runs.
    pub trace: u64,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was found, and where in the run.
    pub what: String,
    /// What the client and the machine had done before.
    pub history: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}\nreplay: {}", self.seed, self.what, replay(self.seed))
    }
}

impl std::error::Error for Failure {}

/// The command that runs one seed again.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!(
        "TIERSTREAM_SIM_SEED={seed} cargo test --release -p tierstream-storage --test simulation -- --nocapture"
    )
}

/// Runs one seed.
///
/// # Errors
/// What promise was broken.
pub fn simulate(seed: u64) -> Result<Run, Failure> {
    run(seed, None, None, false)
}

/// Runs one seed and keeps every disk operation in its history.
///
/// # Errors
/// What promise was broken.
pub fn simulate_in_detail(seed: u64) -> Result<Run, Failure> {
    run(seed, None, None, true)
}

/// Runs one seed on disks that lie, to see whether the simulation notices.
///
/// # Errors
/// What promise was broken.
pub fn simulate_sabotaged(seed: u64, sabotage: Sabotage) -> Result<Run, Failure> {
    run(seed, Some(sabotage), None, false)
}

/// Runs one seed with a store that makes a mistake, to see whether the simulation notices.
///
/// # Errors
/// What promise was broken.
pub fn simulate_mistaken(seed: u64, mistake: Mistake) -> Result<Run, Failure> {
    run(seed, None, Some(mistake), false)
}

fn run(
    seed: u64,
    sabotage: Option<Sabotage>,
    mistake: Option<Mistake>,
    in_detail: bool,
) -> Result<Run, Failure> {
    let plan = Plan::draw(seed);
    let disk = Disk::new(seed, DiskConfig { sabotage, ..plan.disk() });
    let host = SimHost::new(seed, plan.yield_one_in, disk, mistake);
    if in_detail {
        host.disk().keep_log();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| host.run(|| client::run(&host, &plan))));
    let failed = |what: String| Failure { seed, what, history: host.history() };
    let mut stats = outcome.map_err(|panic| failed(text(&*panic)))?.map_err(failed)?;
    if let Some(thread) = host.panics().first() {
        return Err(failed(format!("the thread {thread} panicked")));
    }
    stats.of_machine(&host);
    Ok(Run { stats, trace: host.trace() })
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}
