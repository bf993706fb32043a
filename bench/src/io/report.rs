//! What a run measured, with the field names of fio's JSON.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use hdrhistogram::Histogram;

use super::job::IoJob;
use super::record::{DirectionRecord, Spread, nanos};
use super::session::Session;

/// fio's default `percentile_list`.
const PERCENTILES: [f64; 17] =
    [1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];
/// Upper bounds of fio's latency buckets, in the unit of each table. What is longer than all is in `>=2000` ms.
const NS_BOUNDS: [u64; 10] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];
const US_BOUNDS: [u64; 10] = NS_BOUNDS;
const MS_BOUNDS: [u64; 11] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000];

/// Names and values, serialised as a map in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A run. Serialises as fio's `--output-format=json` does, prints as fio's `normal` does.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which program measured; readers of fio's JSON insist on the field.
    #[serde(rename = "fio version")]
    pub version: String,
    #[serde(rename = "global options")]
    global_options: Ordered<String>,
    /// One for each of `numjobs`.
    pub jobs: Vec<JobReport>,
}

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The job's `name`.
    pub jobname: String,
    /// fio's group; there is one.
    pub groupid: u32,
    /// Zero: a job that fails gives an error in place of a report.
    pub error: u32,
    /// Whole seconds it ran, and one.
    pub elapsed: u64,
    #[serde(rename = "job options")]
    pub(super) options: Ordered<String>,
    /// What was read.
    pub read: DirectionReport,
    /// What was written.
    pub write: DirectionReport,
    /// Milliseconds it ran.
    pub job_runtime: u64,
    /// CPU time in user mode, in percent of the time it ran.
    pub usr_cpu: f64,
    /// CPU time in the kernel, in percent of the time it ran.
    pub sys_cpu: f64,
    /// Context switches.
    pub ctx: u64,
    /// Page faults that read from a device.
    pub majf: u64,
    /// Page faults that did not.
    pub minf: u64,
    pub(super) latency_ns: Ordered<f64>,
    pub(super) latency_us: Ordered<f64>,
    pub(super) latency_ms: Ordered<f64>,
    /// I/Os in flight.
    pub latency_depth: usize,
    /// What fio has no field for.
    pub x_tiers: TiersReport,
}

/// One direction of a job.
#[derive(Clone, Debug, Serialize)]
pub struct DirectionReport {
    /// Bytes moved.
    pub io_bytes: u64,
    /// The same in KiB.
    pub io_kbytes: u64,
    /// Bytes per second.
    pub bw_bytes: u64,
    /// KiB per second.
    pub bw: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Milliseconds.
    pub runtime: u64,
    /// I/Os completed.
    pub total_ios: u64,
    /// Transfers that moved less than asked and were continued.
    pub short_ios: u64,
    /// Always zero: an I/O that fails ends the job.
    pub drop_ios: u64,
    /// From making an I/O to handing it to the kernel; only where the engine can tell.
    pub slat_ns: LatencyReport,
    /// From there to its completion.
    pub clat_ns: LatencyReport,
    /// Both together.
    pub lat_ns: LatencyReport,
    /// Least KiB/s of any half second; zero in runs too short for one, as the fields below.
    pub bw_min: u64,
    /// Most.
    pub bw_max: u64,
    /// Share of all jobs' throughput, in percent.
    pub bw_agg: f64,
    /// Mean.
    pub bw_mean: f64,
    /// Standard deviation.
    pub bw_dev: f64,
    /// Half seconds counted.
    pub bw_samples: u64,
    /// Fewest I/Os per second in any half second.
    pub iops_min: u64,
    /// Most.
    pub iops_max: u64,
    /// Mean.
    pub iops_mean: f64,
    /// Standard deviation.
    pub iops_stddev: f64,
    /// Half seconds counted.
    pub iops_samples: u64,
}

/// Latencies, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub stddev: f64,
    /// I/Os counted.
    #[serde(rename = "N")]
    pub count: u64,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) percentile: Ordered<u64>,
}

fn is_empty(percentile: &Ordered<u64>) -> bool {
    percentile.0.is_empty()
}

/// What fio has no field for.
#[derive(Clone, Debug, Serialize)]
pub struct TiersReport {
    /// The engine with its flags, depth and buffers.
    pub engine: String,
    /// Whether I/O went past the page cache.
    pub direct: bool,
    /// CPU time of the job's thread per I/O, in microseconds. Kernel workers that buffered io_uring I/O may be handed to
    /// are not in it.
    pub cpu_us_per_io: f64,
    /// Bytes written before the run because the file did not have them.
    pub laid_out_bytes: u64,
    /// What else a reader of the numbers has to know.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(job: &IoJob, mut jobs: Vec<JobReport>) -> Self {
        share(&mut jobs, |job| &mut job.read);
        share(&mut jobs, |job| &mut job.write);
        let version = concat!("tierstream-", env!("CARGO_PKG_VERSION")).to_owned();
        Self { version, global_options: options(job), jobs }
    }
}

/// Each job's share of the throughput of all.
fn share(jobs: &mut [JobReport], direction: fn(&mut JobReport) -> &mut DirectionReport) {
    let all: f64 = jobs.iter_mut().map(|job| direction(job).bw_mean).sum();
    for job in jobs {
        let report = direction(job);
        report.bw_agg = if all > 0.0 { 100.0 * report.bw_mean / all } else { 0.0 };
    }
}

fn options(job: &IoJob) -> Ordered<String> {
    Ordered(job.options().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

impl JobReport {
    pub(super) fn new(job: &IoJob, session: &Session, laid_out_bytes: u64) -> Self {
        let seconds = session.elapsed.as_secs_f64();
        let percent = |time: std::time::Duration| {
            if seconds > 0.0 { 100.0 * time.as_secs_f64() / seconds } else { 0.0 }
        };
        let usage = session.usage;
        let mut latency = session.record.read.clat.clone();
        latency.add(&session.record.write.clat).expect("two histograms of the same bounds");
        let ios = session.record.ios();
        let cpu_us = (usage.user + usage.system).as_secs_f64() * 1e6;
        Self {
            jobname: job.name.clone(),
            groupid: 0,
            error: 0,
            elapsed: session.elapsed.as_secs() + 1,
            options: options(job),
            read: DirectionReport::new(&session.record.read, session.elapsed),
            write: DirectionReport::new(&session.record.write, session.elapsed),
            job_runtime: nanos(session.elapsed) / 1_000_000,
            usr_cpu: percent(usage.user),
            sys_cpu: percent(usage.system),
            ctx: usage.switches,
            majf: usage.major_faults,
            minf: usage.minor_faults,
            latency_ns: buckets(&latency, &NS_BOUNDS, 1, 0),
            latency_us: buckets(&latency, &US_BOUNDS, 1_000, 1_000),
            latency_ms: buckets(&latency, &MS_BOUNDS, 1_000_000, 1_000_000),
            latency_depth: session.depth,
            x_tiers: TiersReport {
                engine: session.engine.clone(),
                direct: session.direct,
                cpu_us_per_io: if ios > 0 { cpu_us / ios as f64 } else { 0.0 },
                laid_out_bytes,
                notes: session.notes.clone(),
            },
        }
    }

    /// The option `name` as it was in effect.
    pub(super) fn option(&self, name: &str) -> &str {
        self.options.0.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }
}

/// Shares of latencies, in percent, below each of `bounds` (in `unit` nanoseconds) and not below the bound before it;
/// the first begins at `from` nanoseconds. Milliseconds have one more, for what is longer than all.
fn buckets(latency: &Histogram<u64>, bounds: &[u64], unit: u64, from: u64) -> Ordered<f64> {
    // By recorded value and not by `count_between`, which counts a value on a bound on both sides of it.
    let share = |low: u64, high: u64| {
        let within = latency.iter_recorded().filter(|step| (low..high).contains(&step.value_iterated_to()));
        let ios: u64 = within.map(|step| step.count_at_value()).sum();
        if ios == 0 { 0.0 } else { 100.0 * ios as f64 / latency.len() as f64 }
    };
    let mut low = from;
    let mut shares = Vec::with_capacity(bounds.len() + 1);
    for bound in bounds {
        shares.push((bound.to_string(), share(low, bound * unit)));
        low = bound * unit;
    }
    if unit == 1_000_000 {
        shares.push((format!(">={}", low / unit), share(low, u64::MAX)));
    }
    Ordered(shares)
}

impl DirectionReport {
    fn new(record: &DirectionRecord, elapsed: std::time::Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let idle = record.ios == 0 || seconds == 0.0;
        let bw = if idle { 0.0 } else { record.bytes as f64 / seconds };
        let (bw_spread, iops_spread) =
            if idle { Default::default() } else { (record.windows.bw, record.windows.iops) };
        Self {
            io_bytes: record.bytes,
            io_kbytes: record.bytes / 1024,
            bw_bytes: whole(bw),
            bw: whole(bw / 1024.0),
            iops: if idle { 0.0 } else { record.ios as f64 / seconds },
            runtime: if idle { 0 } else { nanos(elapsed) / 1_000_000 },
            total_ios: record.ios,
            short_ios: record.short_ios,
            drop_ios: 0,
            slat_ns: LatencyReport::new(&record.slat),
            clat_ns: LatencyReport::new(&record.clat),
            lat_ns: LatencyReport::new(&record.lat),
            bw_min: whole(bw_spread.min),
            bw_max: whole(bw_spread.max),
            bw_agg: 0.0,
            bw_mean: bw_spread.mean,
            bw_dev: Spread::stddev(&bw_spread),
            bw_samples: bw_spread.samples,
            iops_min: whole(iops_spread.min),
            iops_max: whole(iops_spread.max),
            iops_mean: iops_spread.mean,
            iops_stddev: Spread::stddev(&iops_spread),
            iops_samples: iops_spread.samples,
        }
    }
}

/// A rate without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and below 2^53"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

impl LatencyReport {
    fn new(latency: &Histogram<u64>) -> Self {
        if latency.is_empty() {
            return Self {
                min: 0,
                max: 0,
                mean: 0.0,
                stddev: 0.0,
                count: 0,
                percentile: Ordered(Vec::new()),
            };
        }
        let value = |percent: f64| (format!("{percent:.6}"), latency.value_at_percentile(percent));
        Self {
            min: latency.min(),
            max: latency.max(),
            mean: latency.mean(),
            stddev: latency.stdev(),
            count: latency.len(),
            percentile: Ordered(PERCENTILES.into_iter().map(value).collect()),
        }
    }

    /// The latency that `percent` of the I/Os did not exceed, in nanoseconds; only those that are reported.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let name = format!("{percent:.6}");
        self.percentile.0.iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_one_bucket() {
        let mut latency = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
        // On bounds, beside them, and beyond the last.
        for nanos in
            [0, 1, 2, 999, 1000, 99_999, 100_000, 100_001, 750_000, 1_000_000, 2_000_000_000, 3_000_000_000]
        {
            latency.record(nanos).expect("a value within the bounds");
        }
        let tables = [
            buckets(&latency, &NS_BOUNDS, 1, 0),
            buckets(&latency, &US_BOUNDS, 1_000, 1_000),
            buckets(&latency, &MS_BOUNDS, 1_000_000, 1_000_000),
        ];
        let sum: f64 = tables.iter().flat_map(|table| &table.0).map(|(_, share)| share).sum();
        assert!((sum - 100.0).abs() < 1e-9, "{tables:?}");
        let share =
            |table: usize, bound: &str| tables[table].0.iter().find(|(of, _)| of == bound).map(|of| of.1);
        let one = 100.0 / 12.0;
        assert_eq!(share(0, "2"), Some(2.0 * one), "fio counts 0 and 1 ns there");
        assert_eq!(share(0, "1000"), Some(one));
        assert_eq!(share(2, ">=2000"), Some(2.0 * one));
    }
}
