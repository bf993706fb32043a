//! What fio has no words for: a training job or server on the store's tiers, with an emulated accelerator.
//!
//! A data set is made with the workload's distribution of sample sizes, sealed, and read through the loader
//! (`ioengine=loader`) or by demand alone (`ioengine=tier`); between batches the job sleeps for the accelerator's
//! compute time, as MLPerf Storage does. Reports accelerator utilisation (AU), waits, what each tier gave, what the
//! cipher took, and how evenly several jobs were served.
//!
//! Deliberately knows no model: the bytes are random.

mod checkpoint;
mod data;
mod outcome;
mod profile;
mod steps;

use std::sync::Arc;

use tierstream_storage::clock::Clock;

pub(crate) use outcome::Outcome;
pub(crate) use steps::Registry;

use crate::io::job::{EngineName, Job, Workload};
use crate::io::run::Done;
use crate::io::run::progress::{Progress, Shared};
use crate::io::timer::Timer;
use crate::{Error, ErrorKind, Result};

/// Runs thread `number` of a job on the tiers.
///
/// # Errors
/// `Misuse` when the options say no place for the data; else as the store and the loader say.
pub(crate) fn run(
    job: &Job,
    number: usize,
    clock: &Arc<dyn Clock>,
    timer: &Timer,
    shared: &Shared,
    progress: &Progress,
) -> Result<(Done, Outcome)> {
    let profile = profile::Profile::new(job);
    if profile.kind == Workload::Checkpoint {
        return checkpoint::run(job, number, &profile, clock, timer, shared, progress);
    }
    let prepared = shared.registry.of_job(job, || steps::prepare(job, &profile, clock))?;
    steps::run(job, number, &profile, &prepared, clock, timer, shared, progress)
}

/// Where the data lies: `l3`, else `directory`.
fn place_of(job: &Job) -> Result<std::path::PathBuf> {
    let first = job.files.directory.first().map(std::path::PathBuf::from);
    job.tiers.l3.clone().or(first).ok_or_else(|| {
        Error::new(ErrorKind::Misuse, "make the data set", format!("job `{}` has no place for it", job.name))
            .hint("add l3=DIRECTORY on the slow device, and l2=DIRECTORY on the fast one")
    })
}

/// What the engine is called in reports.
fn engine_word(job: &Job) -> String {
    let words =
        if job.engine.name == EngineName::Loader { "batches of the loader" } else { "reads of the store" };
    let tiers = &job.tiers;
    format!(
        "{words}, {}, L1 {} bytes, L2 {}",
        tiers.cipher,
        tiers.l1_bytes,
        if tiers.l2.is_some() { "yes" } else { "none" }
    )
}
