//! Reads data sets through the loader, as a training job does and without training: what device, ciphers and tiers give
//! together. Several data sets take turns, so that what else the machine does meets all of them alike.
//!
//! Each run opens a store of its own, so that L1 is empty, and asks the kernel to forget the files' pages; with O_DIRECT
//! there are none. Knows no policy: what is read is one epoch, or its first samples, in the loader's own order.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::Serialize;
use tierstream_crypto::KeyProvider;
use tierstream_loader::{Dataset, Loader};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::clock::Clock;
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::{Error, ErrorKind, RangeSource, Result, Store, StoreConfig};

use crate::number::float;

/// An hour: longer waits count as one.
const WAIT_US_MAX: u64 = 3_600_000_000;

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct ReadBench {
    /// Data sets, with the stored length of their blocks.
    pub data_sets: Vec<(PathBuf, u32)>,
    /// The store; its block length is each data set's own.
    pub config: StoreConfig,
    /// Samples to read of each; all when there are fewer.
    pub samples: u64,
    /// Samples per batch.
    pub batch_size: u64,
    /// Whether they are read in shuffled order.
    pub shuffle: bool,
    /// Whether the order is announced to the prefetcher.
    pub prefetch: bool,
    /// Times that each is read.
    pub repeat: u32,
}

/// One run over one data set.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Time from the first request to the last batch.
    pub seconds: f64,
    /// Samples per second.
    pub samples_per_s: f64,
    /// Bytes of samples per second, in 10^9.
    pub gbps: f64,
    /// Time the job waited for a batch, in microseconds.
    pub batch_wait_us: BatchWait,
    /// CPU time that opening blocks took, over all threads.
    pub decrypt_seconds: f64,
    /// Stored bytes opened per second of that time, in 10^9.
    pub decrypt_gbps: f64,
    /// Stored bytes read from L2 and L3 per byte of samples.
    pub read_amplification: f64,
    /// What each tier gave.
    pub tiers: Snapshot,
}

/// Percentiles of a wait, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BatchWait {
    /// Half of the batches came sooner.
    pub p50: u64,
    /// 99 of 100 did.
    pub p99: u64,
}

/// All runs over one data set.
#[derive(Clone, Debug, Serialize)]
pub struct DataSetReport {
    /// Its directory.
    pub path: PathBuf,
    /// How it is sealed.
    pub cipher: String,
    /// The code that opened its blocks.
    pub cipher_kernel: String,
    /// Stored length of its blocks.
    pub block_bytes: u32,
    /// Samples read in each run.
    pub samples: u64,
    /// Bytes of these samples.
    pub sample_bytes: u64,
    /// Median over the runs.
    pub samples_per_s: f64,
    /// Median over the runs, in 10^9.
    pub gbps: f64,
    /// That median as a share of the first data set's.
    pub ratio_to_first: f64,
    /// The runs.
    pub runs: Vec<Run>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The I/O engine that read.
    pub io_engine: String,
    /// The data sets, in the order given.
    pub data_sets: Vec<DataSetReport>,
}

/// Reads each data set in turn, `repeat` times.
///
/// # Errors
/// As the store and the loader say; `Misuse` when there is nothing to read.
pub fn run(bench: &ReadBench, keys: &Arc<dyn KeyProvider>, clock: &Arc<dyn Clock>) -> Result<Report> {
    if bench.data_sets.is_empty() || bench.repeat == 0 {
        return Err(Error::new(ErrorKind::Misuse, "bench read", "there is nothing to read"));
    }
    let mut report = Report { io_engine: String::new(), data_sets: Vec::new() };
    for turn in 0..bench.repeat {
        for (number, (path, block_bytes)) in bench.data_sets.iter().enumerate() {
            crate::pages::forget_in(path)?;
            let config = StoreConfig { block_bytes: *block_bytes, ..bench.config.clone() };
            let store = Store::open(config, Arc::clone(keys))?;
            let location = path.to_str().ok_or_else(|| {
                Error::new(ErrorKind::Misuse, "bench read", "the path is not UTF-8").at(path)
            })?;
            let dataset = Dataset::open(Arc::new(store.clone()), location)?;
            if turn == 0 {
                report.io_engine = store.io_report().name.to_owned();
                report.data_sets.push(DataSetReport::of(path, &dataset));
            }
            let entry = &mut report.data_sets[number];
            let run = read_once(bench, &store, dataset, clock, entry)?;
            entry.runs.push(run);
        }
    }
    for entry in &mut report.data_sets {
        entry.samples_per_s = median(&entry.runs, |run| run.samples_per_s);
        entry.gbps = median(&entry.runs, |run| run.gbps);
    }
    let first = report.data_sets[0].gbps;
    report.data_sets.iter_mut().for_each(|entry| entry.ratio_to_first = entry.gbps / first);
    Ok(report)
}

impl DataSetReport {
    fn of(path: &std::path::Path, dataset: &Dataset) -> Self {
        let info = dataset.info();
        Self {
            path: path.to_owned(),
            cipher: info.cipher.clone(),
            cipher_kernel: info.cipher_kernel.clone(),
            block_bytes: info.block_bytes,
            samples: 0,
            sample_bytes: 0,
            samples_per_s: 0.0,
            gbps: 0.0,
            ratio_to_first: 0.0,
            runs: Vec::new(),
        }
    }
}

fn read_once(
    bench: &ReadBench,
    store: &Store,
    dataset: Dataset,
    clock: &Arc<dyn Clock>,
    entry: &mut DataSetReport,
) -> Result<Run> {
    let mut builder =
        Loader::builder(dataset).batch_size(bench.batch_size).shuffle(bench.shuffle).clock(Arc::clone(clock));
    if bench.prefetch {
        builder = builder.prefetcher(Prefetcher::new(store));
    }
    let began = clock.now();
    let mut loader = builder.build()?;
    let mut waits = Histogram::<u64>::new_with_max(WAIT_US_MAX, 3).expect("bounds that are allowed");
    (entry.samples, entry.sample_bytes) = (0, 0);
    while entry.samples < bench.samples {
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        waits.saturating_record(u64::try_from(loader.last_wait().as_micros()).unwrap_or(u64::MAX));
        entry.samples += tierstream_storage::units::to_u64(batch.len());
        entry.sample_bytes += tierstream_storage::units::to_u64(batch.bytes().len());
    }
    let seconds = clock.now().saturating_sub(began).as_secs_f64();
    let tiers = store.metrics();
    let decrypt_seconds = std::time::Duration::from_nanos(tiers.open_nanos).as_secs_f64();
    Ok(Run {
        seconds,
        samples_per_s: float(entry.samples) / seconds,
        gbps: float(entry.sample_bytes) / seconds / 1e9,
        batch_wait_us: BatchWait { p50: waits.value_at_quantile(0.5), p99: waits.value_at_quantile(0.99) },
        decrypt_seconds,
        decrypt_gbps: float(tiers.open_bytes) / decrypt_seconds / 1e9,
        read_amplification: float(tiers.l2.bytes + tiers.l3.bytes) / float(entry.sample_bytes),
        tiers,
    })
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "medians of {} runs, in turns; {}", self.data_sets[0].runs.len(), self.io_engine)?;
        writeln!(
            f,
            "{:>8} {:12} {:>10} {:>12} {:>8} {:>7} {:>10} {:>10} {:>9} {:>8}  data set",
            "block",
            "cipher",
            "samples",
            "samples/s",
            "GB/s",
            "ratio",
            "wait p50",
            "wait p99",
            "open GB/s",
            "amplif."
        )?;
        for entry in &self.data_sets {
            writeln!(
                f,
                "{:>7}K {:12} {:>10} {:>12.0} {:>8.3} {:>7.3} {:>7.0} us {:>7.0} us {:>9.2} {:>8.2}  {}",
                entry.block_bytes >> 10,
                entry.cipher,
                entry.samples,
                entry.samples_per_s,
                entry.gbps,
                entry.ratio_to_first,
                median(&entry.runs, |run| float(run.batch_wait_us.p50)),
                median(&entry.runs, |run| float(run.batch_wait_us.p99)),
                median(&entry.runs, |run| run.decrypt_gbps),
                median(&entry.runs, |run| run.read_amplification),
                entry.path.display()
            )?;
        }
        Ok(())
    }
}
