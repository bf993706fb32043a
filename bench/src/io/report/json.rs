//! fio's JSON: the field names, order and units of fio 3.33's stat.c; ours are under the one key `x_tiers`.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::super::job::{SteadyBy, Unified};
use super::super::record::{DirectionRecord, Latency, Stat};
use super::{JobReport, Report};
use crate::number::{ratio, whole};

/// A JSON value whose objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// An object.
    Object(Vec<(String, Node)>),
    /// An array.
    Array(Vec<Node>),
    /// A string.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number with six digits behind the point, as fio prints them.
    Float(f64),
    /// True or false.
    Flag(bool),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::Array(values) => {
                let mut array = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    array.serialize_element(value)?;
                }
                array.end()
            }
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Float(float) if float.is_finite() => serializer.serialize_f64((float * 1e6).round() / 1e6),
            Self::Float(_) => serializer.serialize_f64(0.0),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

impl From<u64> for Node {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Node {
    fn from(count: usize) -> Self {
        Self::Count(crate::to_u64(count))
    }
}

impl From<f64> for Node {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Node>> for Node {
    fn from(values: Vec<Node>) -> Self {
        Self::Array(values)
    }
}

/// An object being made.
#[derive(Debug, Default)]
pub(crate) struct Object(Vec<(String, Node)>);

impl Object {
    pub(crate) fn with(mut self, name: &str, value: impl Into<Node>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn maybe(self, name: &str, value: Option<impl Into<Node>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl From<Object> for Node {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

fn strings(pairs: &[(String, String)]) -> Node {
    Node::Object(pairs.iter().map(|(name, value)| (name.clone(), Node::from(value.as_str()))).collect())
}

/// The whole report.
pub(super) fn report(report: &Report, plus: bool) -> Node {
    let seconds = report.started_unix_millis / 1000;
    let jobs: Vec<Node> = report.jobs.iter().map(|job| job_node(job, report, plus)).collect();
    let disks: Vec<Node> = report
        .disks
        .iter()
        .map(|disk| {
            Object::default()
                .with("name", disk.name.as_str())
                .with("read_ios", disk.ios[0])
                .with("write_ios", disk.ios[1])
                .with("read_merges", disk.merges[0])
                .with("write_merges", disk.merges[1])
                .with("read_ticks", disk.ticks[0])
                .with("write_ticks", disk.ticks[1])
                .with("in_queue", disk.in_queue)
                .with("util", disk.util)
                .into()
        })
        .collect();
    let notes: Vec<Node> = report.notes.iter().map(|note| Node::from(note.as_str())).collect();
    let ours = Object::default()
        .with("version", concat!("tierstream-", env!("CARGO_PKG_VERSION")))
        .with("clock", report.clock)
        .with("cpu_us_per_io", report.cpu_us_per_io())
        .with("notes", notes);
    Object::default()
        .with("fio version", super::FIO_VERSION)
        .with("timestamp", seconds)
        .with("timestamp_ms", report.started_unix_millis)
        .with("time", super::normal::date(seconds))
        .with("global options", strings(&report.global))
        .with("jobs", jobs)
        .with("disk_util", disks)
        .with("x_tiers", ours)
        .into()
}

fn job_node(job: &JobReport, report: &Report, plus: bool) -> Node {
    let record = &job.record;
    let shares = |bounds: &[u64]| {
        let mut all = record.directions[0].clat.histogram.clone();
        all.merge(&record.directions[1].clat.histogram);
        all.shares(bounds)
    };
    let empty = DirectionRecord::default();
    let group_bytes = |way: usize| -> f64 {
        let of_group = report.jobs.iter().filter(|other| other.group == job.group);
        of_group.map(|other| other.record.directions[way].bw.mean()).sum()
    };
    let direction = |way: usize| direction_node(job, &record.directions[way], group_bytes(way), plus);
    let sync = Object::default().with("total_ios", record.syncs.stat.count).with(
        "lat_ns",
        latency_node(&record.syncs, &job.job.stats.percentiles, record.syncs.stat.count > 0, plus),
    );
    let mut object = Object::default()
        .with("jobname", job.job.name.as_str())
        .maybe("desc", job.job.description.as_deref())
        .with("groupid", job.group)
        .with("job_start", report.started_unix_millis)
        .with("error", 0_u64)
        .with("eta", 0_u64)
        .with("elapsed", job.elapsed_nanos / 1_000_000_000 + 1)
        .with("job options", strings(&options_of(job)));
    object = if job.job.stats.unified == Unified::Mixed {
        object.with("mixed", direction(0))
    } else {
        object
            .with("read", direction(0))
            .with("write", direction(1))
            .with("trim", direction_node(job, &empty, 0.0, plus))
            .with("sync", sync)
    };
    let (ns, us, ms) = latency_tables();
    let mut bounds = Vec::new();
    bounds.extend(ns.iter().copied());
    bounds.extend(us.iter().map(|bound| bound * 1_000));
    bounds.extend(ms.iter().map(|bound| bound * 1_000_000));
    let shares = shares(&bounds);
    let table = |from: usize, names: &[u64], last: Option<&str>| {
        let mut fields: Vec<(String, Node)> =
            names.iter().enumerate().map(|(at, name)| (name.to_string(), shares[from + at].into())).collect();
        fields.extend(last.map(|last| (last.to_owned(), shares[from + names.len()].into())));
        Node::Object(fields)
    };
    object
        .with("job_runtime", job.runtime_nanos / 1_000_000)
        .with("usr_cpu", job.percent_of_runtime(job.usage.user))
        .with("sys_cpu", job.percent_of_runtime(job.usage.system))
        .with("ctx", job.usage.switches)
        .with("majf", job.usage.major_faults)
        .with("minf", job.usage.minor_faults)
        .with("iodepth_level", depths(&record.depths))
        .with("iodepth_submit", counts(&record.submits))
        .with("iodepth_complete", counts(&record.completes))
        .with("latency_ns", table(0, &ns, None))
        .with("latency_us", table(ns.len(), &us, None))
        .with("latency_ms", table(ns.len() + us.len(), &ms, Some(">=2000")))
        .with("latency_depth", job.depth)
        .with("latency_target", job.job.latency_target.map_or(0, |target| target.nanos / 1_000))
        .with("latency_percentile", job.job.latency_target.map_or(100.0, |target| target.percentile))
        .with("latency_window", job.job.latency_target.map_or(0, |target| target.window_nanos / 1_000))
        .maybe("steadystate", steady_node(job))
        .with("x_tiers", ours(job))
        .into()
}

/// Upper bounds of fio's latency buckets, in the unit of each table.
pub(super) fn latency_tables() -> ([u64; 10], [u64; 10], [u64; 11]) {
    let small = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];
    (small, small, [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000])
}

/// The options as given, and what readers of fio's JSON look for, as text.
fn options_of(job: &JobReport) -> Vec<(String, String)> {
    let mut options = job.job.given.clone();
    let bs = job.job.pattern.bs[usize::from(!job.job.pattern.reads)].least();
    for (name, value) in [
        ("rw", job.job.option("rw").unwrap_or("read").to_owned()),
        ("bs", job.job.option("bs").map_or_else(|| bs.to_string(), str::to_owned)),
        ("ioengine", job.job.engine.word.to_owned()),
        ("iodepth", job.job.engine.depth.to_string()),
        ("numjobs", job.job.numjobs.to_string()),
    ] {
        if !options.iter().any(|(known, _)| known == name) {
            options.push((name.to_owned(), value));
        }
    }
    options
}

fn direction_node(job: &JobReport, of: &DirectionRecord, group_bw: f64, plus: bool) -> Node {
    let seconds = job.seconds();
    let options = &job.job.stats;
    let rate = ratio(of.bytes as f64, seconds);
    let latency = |latency: &Latency, listed: bool| {
        latency_node(latency, &options.percentiles, listed && latency.stat.count > 0, plus)
    };
    Object::default()
        .with("io_bytes", of.bytes)
        .with("io_kbytes", of.bytes / 1024)
        .with("bw_bytes", whole(rate))
        .with("bw", whole(rate / 1024.0))
        .with("iops", ratio(of.ios as f64, seconds))
        .with("runtime", if of.ios > 0 { job.elapsed_nanos / 1_000_000 } else { 0 })
        .with("total_ios", of.ios)
        .with("short_ios", of.short_ios)
        .with("drop_ios", of.failed_ios)
        .with("slat_ns", latency(&of.slat, options.slat_percentiles))
        .with("clat_ns", latency(&of.clat, options.clat_percentiles))
        .with("lat_ns", latency(&of.lat, options.lat_percentiles))
        .with("bw_min", of.bw.min)
        .with("bw_max", of.bw.max)
        .with("bw_agg", 100.0 * ratio(of.bw.mean(), group_bw))
        .with("bw_mean", of.bw.mean())
        .with("bw_dev", of.bw.stddev())
        .with("bw_samples", of.bw.count)
        .with("iops_min", of.iops.min)
        .with("iops_max", of.iops.max)
        .with("iops_mean", of.iops.mean())
        .with("iops_stddev", of.iops.stddev())
        .with("iops_samples", of.iops.count)
        .into()
}

fn latency_node(latency: &Latency, percentiles: &[f64], listed: bool, plus: bool) -> Node {
    let stat: &Stat = &latency.stat;
    let mut object = Object::default()
        .with("min", stat.min)
        .with("max", stat.max)
        .with("mean", stat.mean())
        .with("stddev", stat.stddev())
        .with("N", stat.count);
    if listed {
        let values = latency.histogram.percentiles(percentiles);
        let fields = percentiles.iter().zip(values).map(|(percent, nanos)| {
            // A bin's middle can lie beyond the greatest that was met.
            (format!("{percent:.6}"), Node::Count(nanos))
        });
        object = object.with("percentile", Node::Object(fields.collect()));
    }
    if plus && stat.count > 0 {
        let bins = latency.histogram.bins().map(|(nanos, count)| (nanos.to_string(), Node::Count(count)));
        object = object.with("bins", Node::Object(bins.collect()));
    }
    object.into()
}

fn shares_of(counts: &[u64]) -> Vec<f64> {
    let all: u64 = counts.iter().sum();
    counts.iter().map(|count| 100.0 * ratio(*count as f64, all as f64)).collect()
}

fn named(names: [&str; 7], shares: &[f64]) -> Node {
    Node::Object(
        names.iter().zip(shares).map(|(name, share)| ((*name).to_owned(), (*share).into())).collect(),
    )
}

fn depths(counts: &[u64; 7]) -> Node {
    named(["1", "2", "4", "8", "16", "32", ">=64"], &shares_of(counts))
}

fn counts(counts: &[u64; 7]) -> Node {
    named(["0", "4", "8", "16", "32", "64", ">=64"], &shares_of(counts))
}

fn steady_node(job: &JobReport) -> Option<Node> {
    let watch = job.steady.as_ref()?;
    let by = match watch.options.by {
        SteadyBy::Iops => "iops",
        SteadyBy::Bw => "bw",
        SteadyBy::Lat => "lat",
    };
    let slope = if watch.options.slope { "_slope" } else { "" };
    let percent = if watch.options.percent { "%" } else { "" };
    let column = |of: fn(&super::super::run::Look) -> f64| -> Node {
        watch.looks.iter().map(|look| Node::Count(whole(of(look)))).collect::<Vec<_>>().into()
    };
    let data = Object::default()
        .with("bw_mean", ratio(watch.looks.iter().map(|look| look.bw).sum(), watch.looks.len() as f64))
        .with("iops_mean", ratio(watch.looks.iter().map(|look| look.iops).sum(), watch.looks.len() as f64))
        .with("iops", column(|look| look.iops))
        .with("bw", column(|look| look.bw / 1024.0))
        .with("lat", column(|look| look.lat));
    Some(
        Object::default()
            .with("ss", format!("{by}{slope}:{:.6}{percent}", watch.options.limit))
            .with("duration", watch.options.window_nanos / 1_000_000_000)
            .with("attained", u64::from(watch.attained))
            .with("criterion", format!("{:.6}{percent}", watch.criterion))
            .with("max_deviation", watch.deviation)
            .with("slope", watch.slope)
            .with("data", data)
            .into(),
    )
}

/// What fio has no field for.
fn ours(job: &JobReport) -> Node {
    let notes: Vec<Node> = job.notes.iter().map(|note| Node::from(note.as_str())).collect();
    let verified = (job.record.verified > 0).then(|| {
        Object::default().with("blocks", job.record.verified).with("errors", job.record.verify_errors)
    });
    Object::default()
        .with("engine", job.engine.as_str())
        .with("direct", job.direct)
        .with("cpu_us_per_io", job.cpu_us_per_io())
        .with("laid_out_bytes", job.laid_out_bytes)
        .maybe("verify", verified)
        .maybe("workload", job.tiers.as_ref().map(crate::workload::Outcome::json))
        .with("notes", notes)
        .into()
}
