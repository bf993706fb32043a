//! Reads and writes in fio's language: job files and flags, patterns, engines, latencies, output.
//!
//! [`options`] has the table of keys and the readers, [`job`] the values, [`pattern`] which bytes come next, [`target`]
//! the files, [`engine`] what carries I/O out, [`run`] the threads that do, [`record`] what they count and [`report`]
//! what is printed. What fio has not is in the JSON under `x_tiers`.
//!
//! Guarantees that nothing asked is ignored: an unknown key is an error that names the nearest one, and what this
//! machine does not give (O_DIRECT, registered buffers, a queue depth) is a note in the report. Differs from fio on
//! purpose in what docs/reference/bench.md lists. Deliberately prints nothing and reads no environment.

mod engine;
pub(crate) mod iolog;
pub(crate) mod job;
mod logs;
mod options;
mod pattern;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod target;
pub(crate) mod timer;
mod tune;
mod verify;

#[cfg(test)]
mod tests;

pub use options::{Arguments, Eta, Format, Key, Kind, RunOptions, Status as KeyStatus, keys};
pub use report::{Node, Report, compare};
pub use run::{Status, Watcher};
pub use tune::{TuneReport, tune};

use std::sync::Arc;

use tierstream_storage::clock::Clock;

use self::job::{Job, contradiction};
use self::timer::Timer;
use crate::Result;

/// Jobs that were read and make sense.
#[derive(Debug)]
pub struct Plan {
    jobs: Vec<Job>,
    global: Vec<(String, String)>,
}

impl Plan {
    /// The jobs of `arguments`.
    ///
    /// # Errors
    /// `Misuse` for a value that is none and for values that contradict each other.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let jobs = arguments.jobs.iter().map(Job::new).collect::<Result<Vec<_>>>()?;
        if arguments.run.readonly
            && let Some(job) = jobs.iter().find(|job| job.writes())
        {
            return Err(contradiction(&job.name, "it writes, and --readonly was given"));
        }
        let given = arguments.global.effective();
        let global = given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { jobs, global })
    }

    /// What the jobs are, one a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let line = |job: &Job| {
            let rw = job.option("rw").unwrap_or("read");
            format!(
                "{}: rw={rw}, ioengine={}, iodepth={}, numjobs={}\n",
                job.name, job.engine.word, job.engine.depth, job.numjobs
            )
        };
        self.jobs.iter().map(line).collect()
    }

    /// Lays out files where needed, runs the jobs, and reports.
    ///
    /// A writing job overwrites the bytes its files have. Nobody else may change the files meanwhile.
    ///
    /// # Errors
    /// `Misuse` when there is nothing to read, `Full` when a device has no room, `Unsupported` when this machine does
    /// not give the engine, else as the first I/O that failed: with its file, offset and length.
    pub fn run(&self, clock: &Arc<dyn Clock>, watcher: &mut dyn Watcher) -> Result<Report> {
        self.run_timed(clock, &Timer::calibrated(clock), watcher)
    }

    fn run_timed(&self, clock: &Arc<dyn Clock>, timer: &Timer, watcher: &mut dyn Watcher) -> Result<Report> {
        let outcome = run::run(&self.jobs, clock, timer, watcher)?;
        Ok(Report::new(&self.jobs, outcome, self.global.clone(), timer.source()))
    }
}

/// Help for all options, or the page of one.
///
/// # Errors
/// `Misuse` for an option that does not exist, naming the nearest.
pub fn help(name: &str) -> Result<String> {
    if name.is_empty() {
        let line = |key: &Key| {
            let refused = matches!(key.status, KeyStatus::Refused(_));
            (!refused).then(|| format!("{:26} {}\n", key.name, key.help))
        };
        return Ok(keys().filter_map(line).collect());
    }
    let key = options::table::find(name).ok_or_else(|| {
        let nearest = options::nearest(name, options::table::names());
        options::misuse(format!("unknown option `{name}`, the nearest known one is `{nearest}`"))
    })?;
    Ok(key.page())
}

/// Watches nothing and never ends a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn look(&mut self, _status: &Status) -> bool {
        true
    }
}
