//! Reads and writes of a file, in fio's words: the same option names, meanings and defaults, the same JSON fields.
//!
//! `io_uring` is the store's own engine; `psync`, `mmap` and `tokio-uring` are what it is compared with. What fio has
//! not is in the JSON under `x_tiers`: engine flags, CPU time per I/O, and every wish that was not granted.
//!
//! Differs from fio on purpose: an unknown option is an error that names the nearest known one; a file is laid out
//! before it is written too, so that writes replace blocks and never allocate them; only regular files are measured,
//! never a device whose contents would be lost; submission and waiting of `io_uring` are one system call, which
//! counts in `clat`.

mod engine;
mod job;
mod options;
mod plan;
mod record;
mod report;
mod session;
pub(crate) mod target;
mod text;

pub use job::IoJob;
pub use report::{DirectionReport, JobReport, LatencyReport, Report, TiersReport};

use std::sync::Arc;

use tierstream_storage::clock::Clock;

use crate::Result;
use session::{Inspect, Session};
use target::Target;

/// Lays out the file where needed, runs `job` on as many threads as it asks, and reports.
///
/// A writing job overwrites the bytes its file has. Nobody else may change the file meanwhile.
///
/// # Errors
/// `Misuse` when the file is no regular file, `Full` when the device has no room for it, `Unsupported` when this machine
/// does not give the engine, else as the first I/O that failed: with its file, offset and length.
pub fn run(job: &IoJob, clock: &Arc<dyn Clock>) -> Result<Report> {
    run_inspected(job, clock, None)
}

fn run_inspected(job: &IoJob, clock: &Arc<dyn Clock>, inspect: Option<&Inspect>) -> Result<Report> {
    let mut sessions = Vec::with_capacity(job.numjobs);
    let mut laid_out_bytes = Vec::with_capacity(job.numjobs);
    for number in 0..job.numjobs {
        let target = Target::open(job, number)?;
        sessions.push(Session::new(job, number, &target, Arc::clone(clock), inspect.cloned()));
        laid_out_bytes.push(target.laid_out_bytes);
    }
    let finished: Vec<Result<Session>> = std::thread::scope(|scope| {
        let start = |session| {
            // An engine lives on one thread; so does what is counted of it.
            scope.spawn(move || engine::run(job.ioengine, session))
        };
        let threads: Vec<_> = sessions.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a job that does not panic")).collect()
    });
    let mut jobs = Vec::with_capacity(job.numjobs);
    for (session, laid_out_bytes) in finished.into_iter().zip(laid_out_bytes) {
        jobs.push(JobReport::new(job, &session?, laid_out_bytes));
    }
    Ok(Report::new(job, jobs))
}
