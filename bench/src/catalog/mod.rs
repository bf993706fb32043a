//! What the catalogs of this build cost by number of objects: where redb ends and RocksDB begins.
//!
//! Objects are blocks on L2 as `storage::tier` records them: keys of a 16-byte file id and a block number, values of 12
//! bytes, in batches of 1024 and in the order a shuffled epoch admits them. Everything is measured through
//! [`CatalogStore`], as the store calls it.
//!
//! Deliberately knows no tuning of either catalog: what is measured is what the store would get. Files are in the page
//! cache as far as it holds them; a start after a reboot is slower than `reopen` says.

mod text;
mod workload;

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tierstream_storage::catalog::{self, CatalogKind, CatalogStore, Table};
use tierstream_storage::clock::Clock;

use crate::random::Random;
use crate::{Error, ErrorKind, Result};
use workload::Objects;

/// Commits measured at each number of objects: enough for a 99th percentile.
const COMMITS: usize = 200;
/// Gets measured at each number of objects.
const GETS: u64 = 100_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct CatalogBench {
    /// An existing directory on the device to measure; what is made there is removed again.
    pub directory: PathBuf,
    /// Which catalogs.
    pub catalogs: Vec<CatalogKind>,
    /// Numbers of objects, each measured in a catalog of its own.
    pub objects: Vec<u64>,
}

impl CatalogBench {
    /// All catalogs with ten thousand, a hundred thousand and a million objects, in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            catalogs: vec![CatalogKind::Redb, CatalogKind::RocksDb],
            objects: vec![10_000, 100_000, 1_000_000],
        }
    }
}

/// Median, 99th percentile and worst of a number of measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half were at most this.
    pub p50: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// All were at most this.
    pub max: f64,
    /// How many there were.
    pub samples: u64,
}

/// One catalog with one number of objects.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// "redb" or "rocksdb".
    pub catalog: &'static str,
    /// Objects in it.
    pub objects: u64,
    /// Seconds to put them there, in batches of 1024, each durable before the next.
    pub fill_seconds: f64,
    /// Objects put per second.
    pub fill_objects_per_second: f64,
    /// One random object: nanoseconds.
    pub get_ns: Percentiles,
    /// Objects per second of a scan of all.
    pub scan_objects_per_second: f64,
    /// One more batch of 1024 that replaces values of random objects, durable: milliseconds.
    pub commit_ms: Percentiles,
    /// Milliseconds to open the catalog again after those commits and a clean close.
    pub reopen_ms: f64,
    /// Bytes on the device, closed.
    pub disk_bytes: u64,
}

/// All rows, and what could not be measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Batches held this many changes.
    pub batch_changes: usize,
    /// By number of objects, then by catalog.
    pub rows: Vec<Row>,
    /// Catalogs that this build does not have.
    pub skipped: Vec<String>,
}

/// Measures each catalog with each number of objects. At ten million objects it takes minutes.
///
/// # Errors
/// `Misuse` without catalogs or objects, or when an earlier run left its files; `Missing` when there is no such
/// directory; `Corrupt` when a catalog does not give back what it was given; else as the catalog says. A catalog that
/// this build does not have is no error.
pub fn run(bench: &CatalogBench, clock: &dyn Clock) -> Result<Report> {
    if bench.catalogs.is_empty() || bench.objects.is_empty() || bench.objects.contains(&0) {
        let why = format!(
            "found catalogs {:?}, objects {:?}, expected some of each",
            bench.catalogs, bench.objects
        );
        return Err(Error::new(ErrorKind::Misuse, "measure catalogs", why));
    }
    let mut report = Report { batch_changes: workload::BATCH_CHANGES, rows: Vec::new(), skipped: Vec::new() };
    for objects in &bench.objects {
        for kind in &bench.catalogs {
            let scratch = Scratch::new(&bench.directory, *kind, *objects)?;
            match measure(*kind, *objects, &scratch.0, clock) {
                Ok(row) => report.rows.push(row),
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    let why = error.to_string();
                    if !report.skipped.contains(&why) {
                        report.skipped.push(why);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(report)
}

/// A directory of this run, removed with all in it when the run is over.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path, kind: CatalogKind, objects: u64) -> Result<Self> {
        let path = parent.join(format!("tierstream-bench-{kind:?}-{objects}").to_lowercase());
        std::fs::create_dir(&path).map_err(|error| {
            Error::io("create", &path, error).hint("if an earlier run left it there, remove it")
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found, and named, by the next run.
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

fn measure(kind: CatalogKind, count: u64, directory: &Path, clock: &dyn Clock) -> Result<Row> {
    let objects = Objects::new(count);
    let store = catalog::open(kind, directory)?;
    let name = store.name();

    let started = clock.now();
    for batch in objects.batches() {
        store.apply(&batch)?;
    }
    let fill = clock.now() - started;
    let get_ns = measure_gets(&*store, &objects, clock)?;
    let scan = measure_scan(&*store, count, clock)?;
    // Last, because old versions of what they replace would slow a scan of few objects down.
    let commit_ms = measure_commits(&*store, &objects, clock)?;

    drop(store);
    let disk_bytes = disk_bytes(directory)?;
    let started = clock.now();
    let store = catalog::open(kind, directory)?;
    let reopen = clock.now() - started;
    drop(store);

    Ok(Row {
        catalog: name,
        objects: count,
        fill_seconds: fill.as_secs_f64(),
        fill_objects_per_second: per_second(count, fill),
        get_ns,
        scan_objects_per_second: per_second(count, scan),
        commit_ms,
        reopen_ms: reopen.as_secs_f64() * 1e3,
        disk_bytes,
    })
}

fn measure_commits(store: &dyn CatalogStore, objects: &Objects, clock: &dyn Clock) -> Result<Percentiles> {
    let mut random = Random::new(2);
    let mut taken = times();
    for _ in 0..COMMITS {
        let batch = objects.replacing(&mut random);
        let started = clock.now();
        store.apply(&batch)?;
        record(&mut taken, clock.now() - started);
    }
    Ok(percentiles(&taken, 1e6))
}

fn measure_gets(store: &dyn CatalogStore, objects: &Objects, clock: &dyn Clock) -> Result<Percentiles> {
    let mut random = Random::new(3);
    let mut taken = times();
    for _ in 0..GETS.min(objects.count()) {
        let key = objects.key(random.below(objects.count()));
        let started = clock.now();
        let value = store.get(Table::Blocks, &key)?;
        record(&mut taken, clock.now() - started);
        if value.is_none_or(|value| value.len() != workload::VALUE_BYTES) {
            return Err(lost(store, "an object that was put is not there"));
        }
    }
    Ok(percentiles(&taken, 1.0))
}

fn measure_scan(store: &dyn CatalogStore, count: u64, clock: &dyn Clock) -> Result<Duration> {
    let mut found = 0;
    let started = clock.now();
    store.scan(Table::Blocks, &[], None, &mut |_, _| {
        found += 1;
        ControlFlow::Continue(())
    })?;
    let taken = clock.now() - started;
    if found == count {
        Ok(taken)
    } else {
        Err(lost(store, &format!("found {found} objects, expected {count}")))
    }
}

fn lost(store: &dyn CatalogStore, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "measure catalogs", format!("{}: {why}", store.name()))
}

fn per_second(count: u64, taken: Duration) -> f64 {
    count as f64 / taken.as_secs_f64().max(1e-9)
}

/// Nanoseconds up to an hour, within 0.1 %.
fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds that the crate accepts")
}

fn record(times: &mut Histogram<u64>, taken: Duration) {
    times.saturating_record(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX));
}

fn percentiles(times: &Histogram<u64>, unit_nanos: f64) -> Percentiles {
    let of = |percent| times.value_at_percentile(percent) as f64 / unit_nanos;
    Percentiles { p50: of(50.0), p99: of(99.0), max: times.max() as f64 / unit_nanos, samples: times.len() }
}

/// Bytes that the files below `directory` take on the device.
fn disk_bytes(directory: &Path) -> Result<u64> {
    let failed = |error| Error::io("read directory", directory, error);
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(|error| Error::io("stat", &entry.path(), error))?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;

    use super::*;

    #[test]
    fn two_thousand_objects_give_plausible_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let bench = CatalogBench { objects: vec![2000], ..CatalogBench::new(dir.path()) };
        let report = run(&bench, &SystemClock::new()).unwrap();
        let expected: &[&str] = if cfg!(feature = "rocksdb") { &["redb", "rocksdb"] } else { &["redb"] };
        assert!(report.rows.iter().map(|row| row.catalog).eq(expected.iter().copied()), "{report:?}");
        assert_eq!(report.skipped.len(), 2 - expected.len());
        for row in &report.rows {
            assert_eq!(row.objects, 2000);
            assert_eq!((row.commit_ms.samples, row.get_ns.samples), (200, 2000));
            assert!(row.disk_bytes >= 2000 * 32, "{row:?}");
            assert!(row.fill_seconds > 0.0 && row.scan_objects_per_second > 1000.0, "{row:?}");
            for of in [row.commit_ms, row.get_ns] {
                assert!(0.0 < of.p50 && of.p50 <= of.p99 && of.p99 <= of.max, "{row:?}");
            }
            assert!(report.to_string().contains(row.catalog));
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["catalog"], "redb");
        assert_eq!(json["batch_changes"], 1024);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
    }

    #[test]
    fn senseless_wishes_and_leftovers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let none = CatalogBench { objects: vec![], ..CatalogBench::new(dir.path()) };
        assert_eq!(run(&none, &SystemClock::new()).unwrap_err().kind(), ErrorKind::Misuse);
        let nowhere = CatalogBench::new(&dir.path().join("nowhere"));
        assert_eq!(run(&nowhere, &SystemClock::new()).unwrap_err().kind(), ErrorKind::Missing);
        let left = dir.path().join("tierstream-bench-redb-10000");
        std::fs::create_dir(&left).unwrap();
        let error = run(&CatalogBench::new(dir.path()), &SystemClock::new()).unwrap_err();
        assert!(error.kind() == ErrorKind::Misuse && error.hint_text().is_some(), "{error}");
        assert!(left.exists(), "what this run did not make it does not remove");
    }
}
