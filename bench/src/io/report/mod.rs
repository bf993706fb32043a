//! What a run measured: as fio's JSON, as fio prints it, as a page.

mod compare;
mod html;
pub(crate) mod json;
mod normal;
mod units;

pub use compare::compare;
pub use json::Node;

use super::job::{Job, Unified};
use super::record::{DirectionRecord, Record};
use super::run::{DiskUse, Outcome, SteadyWatch};
use crate::os::Usage;
use crate::workload;

/// fio's version that this tool's JSON and words follow; readers of the JSON insist on the form `fio-X.Y`.
const FIO_VERSION: &str = "fio-3.33";

/// Milliseconds since 1970, for the heads of reports and for logs.
#[expect(
    clippy::disallowed_methods,
    reason = "a report says on which day it was made: no interval is measured with it"
)]
pub(crate) fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One job, or all jobs of a group as one.
#[derive(Debug)]
pub(crate) struct JobReport {
    pub(crate) job: Job,
    pub(crate) group: usize,
    /// Threads in it.
    pub(crate) threads: usize,
    pub(crate) record: Record,
    pub(crate) usage: Usage,
    /// Of the longest thread.
    pub(crate) elapsed_nanos: u64,
    /// Of all threads together.
    pub(crate) runtime_nanos: u64,
    pub(crate) engine: String,
    pub(crate) direct: bool,
    pub(crate) depth: usize,
    pub(crate) laid_out_bytes: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) steady: Option<SteadyWatch>,
    pub(crate) tiers: Option<workload::Outcome>,
    /// Bytes per second of each thread, least and greatest, by direction.
    pub(crate) bw_range: [(f64, f64); 2],
    /// Milliseconds of each thread, least and greatest.
    pub(crate) run_range: (u64, u64),
}

/// A run.
#[derive(Debug)]
pub struct Report {
    pub(crate) jobs: Vec<JobReport>,
    pub(crate) disks: Vec<DiskUse>,
    pub(crate) notes: Vec<String>,
    pub(crate) started_unix_millis: u64,
    pub(crate) global: Vec<(String, String)>,
    pub(crate) clock: &'static str,
}

impl Report {
    pub(crate) fn new(
        jobs: &[Job],
        outcome: Outcome,
        global: Vec<(String, String)>,
        clock: &'static str,
    ) -> Self {
        let mut reports: Vec<JobReport> = Vec::new();
        let Outcome { threads, disks, mut steady, notes, started_unix_millis } = outcome;
        for thread in threads {
            let job = &jobs[thread.job];
            let done = thread.done;
            let rate =
                |of: &DirectionRecord| crate::number::ratio(of.bytes as f64 * 1e9, done.elapsed_nanos as f64);
            let rates = [rate(&done.record.directions[0]), rate(&done.record.directions[1])];
            let millis = done.elapsed_nanos / 1_000_000;
            // As fio: with group_reporting all jobs of a group are one.
            let known = reports.last_mut().filter(|last| job.group_reporting && last.group == thread.group);
            match known {
                Some(known) => {
                    known.threads += 1;
                    known.record.merge(&done.record);
                    known.usage = known.usage.and(done.usage);
                    known.elapsed_nanos = known.elapsed_nanos.max(done.elapsed_nanos);
                    known.runtime_nanos += done.elapsed_nanos;
                    known.laid_out_bytes += done.laid_out_bytes;
                    for note in done.notes {
                        if !known.notes.contains(&note) {
                            known.notes.push(note);
                        }
                    }
                    for (range, rate) in known.bw_range.iter_mut().zip(rates) {
                        *range = (range.0.min(rate), range.1.max(rate));
                    }
                    known.run_range = (known.run_range.0.min(millis), known.run_range.1.max(millis));
                    if let (Some(tiers), Some(more)) = (&mut known.tiers, thread.tiers) {
                        tiers.merge(more);
                    }
                }
                None => reports.push(JobReport {
                    job: job.clone(),
                    group: thread.group,
                    threads: 1,
                    record: done.record,
                    usage: done.usage,
                    elapsed_nanos: done.elapsed_nanos,
                    runtime_nanos: done.elapsed_nanos,
                    engine: done.engine,
                    direct: done.direct,
                    depth: done.depth,
                    laid_out_bytes: done.laid_out_bytes,
                    notes: done.notes,
                    steady: steady[thread.job].take(),
                    tiers: thread.tiers,
                    bw_range: [(rates[0], rates[0]), (rates[1], rates[1])],
                    run_range: (millis, millis),
                }),
            }
        }
        for report in &mut reports {
            let note = report.job.note.clone();
            report.notes.extend(note);
            if report.job.rate.poisson {
                report.notes.push(
                    "open loop: lat counts from the arrival of an I/O, slat has the time it waited, clat the device's"
                        .to_owned(),
                );
            }
            if report.job.stats.unified == Unified::Mixed {
                report.unify();
            }
        }
        Self { jobs: reports, disks, notes, started_unix_millis, global, clock }
    }

    /// Whether checks of what was written failed.
    #[must_use]
    pub fn verify_errors(&self) -> u64 {
        self.jobs.iter().map(|job| job.record.verify_errors).sum()
    }

    /// I/Os per second of all jobs.
    #[must_use]
    pub fn iops(&self) -> f64 {
        self.jobs
            .iter()
            .map(|job| crate::number::ratio(job.record.ios() as f64 * 1e9, job.elapsed_nanos as f64))
            .sum()
    }

    /// Bytes per second of all jobs.
    #[must_use]
    pub fn bw_bytes(&self) -> f64 {
        let rate =
            |job: &JobReport| crate::number::ratio(job.record.bytes() as f64 * 1e9, job.elapsed_nanos as f64);
        self.jobs.iter().map(rate).sum()
    }

    /// Microseconds of CPU time for each I/O.
    #[must_use]
    pub fn cpu_us_per_io(&self) -> f64 {
        let ios: u64 = self.jobs.iter().map(|job| job.record.ios()).sum();
        let cpu: f64 = self.jobs.iter().map(|job| (job.usage.user + job.usage.system).as_secs_f64()).sum();
        crate::number::ratio(cpu * 1e6, ios as f64)
    }

    /// The page of `--report`.
    #[must_use]
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The text that fio calls `normal`.
    #[must_use]
    pub fn normal(&self) -> String {
        normal::text(self)
    }

    /// fio's JSON; with every bin of the latency histograms where `plus`.
    #[must_use]
    pub fn json(&self, plus: bool) -> Node {
        json::report(self, plus)
    }
}

impl JobReport {
    /// Both directions as one: fio's `unified_rw_reporting=mixed`.
    fn unify(&mut self) {
        let writes = std::mem::take(&mut self.record.directions[1]);
        let reads = &mut self.record.directions[0];
        reads.add(&writes);
    }

    pub(crate) fn cpu_us_per_io(&self) -> f64 {
        let cpu = (self.usage.user + self.usage.system).as_secs_f64() * 1e6;
        crate::number::ratio(cpu, self.record.ios() as f64)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed_nanos as f64 / 1e9
    }

    /// CPU time in percent of the time that all its threads ran.
    pub(crate) fn percent_of_runtime(&self, time: std::time::Duration) -> f64 {
        100.0 * crate::number::ratio(time.as_secs_f64() * 1e9, self.runtime_nanos as f64)
    }
}
