use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::io::PsyncEngine;
use tierstream_storage::testing::{self, FaultEngine, FaultPlan};
use tierstream_storage::units::{to_u64, to_usize};

use super::uring;
use crate::io::plan::Direction;
use crate::io::session::{Inspect, Io, Session};
use crate::io::target::Target;
use crate::io::{IoJob, Report, run_inspected};

const ENGINES: [&str; 4] = ["psync", "mmap", "io_uring", "tokio-uring"];
const FILE_BYTES: usize = 1 << 20;

fn tmp() -> tempfile::TempDir {
    // Not /tmp, which may be a tmpfs without O_DIRECT: the build directory lies on a disk.
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn has_uring() -> bool {
    match tierstream_storage::io::UringEngine::new(1, None) {
        Ok(_) => true,
        Err(error) => {
            testing::skip("io_uring", &error.to_string());
            false
        }
    }
}

fn engines() -> impl Iterator<Item = &'static str> {
    let has_uring = has_uring();
    ENGINES.into_iter().filter(move |name| has_uring || !name.ends_with("uring"))
}

fn job(file: &Path, more: &[(&str, &str)]) -> IoJob {
    let file = file.to_str().unwrap();
    IoJob::parse(&[&[("filename", file), ("size", "1m"), ("iodepth", "8")], more].concat()).unwrap()
}

/// What was seen of each offset: how often, and the bytes.
type Seen = Arc<Mutex<BTreeMap<u64, (u64, Vec<u8>)>>>;

fn inspector() -> (Seen, Inspect) {
    let seen = Seen::default();
    let of_inspect = Arc::clone(&seen);
    let inspect: Inspect = Arc::new(move |io: &Io, bytes: &[u8]| {
        let mut seen = of_inspect.lock().unwrap();
        let (times, last) = seen.entry(io.offset).or_default();
        *times += 1;
        *last = bytes.to_vec();
    });
    (seen, inspect)
}

fn run_seen(job: &IoJob) -> (Report, BTreeMap<u64, (u64, Vec<u8>)>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (seen, inspect) = inspector();
    let report = run_inspected(job, &clock, Some(&inspect)).unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (report, seen)
}

/// Every block was seen `times` times with the bytes that are in the file now.
fn assert_whole(file: &Path, block: usize, times: u64, seen: &BTreeMap<u64, (u64, Vec<u8>)>, what: &str) {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(seen.len(), FILE_BYTES / block, "{what}");
    for (offset, (found, last)) in seen {
        assert_eq!(*found, times, "{what}: offset {offset}");
        assert!(last[..] == bytes[to_usize(*offset)..][..block], "{what}: offset {offset} has other bytes");
    }
}

#[test]
fn every_engine_reads_what_was_laid_out() {
    let dir = tmp();
    for engine in engines() {
        for (rw, bs, direct, fixed) in
            [("randread", "4k", "1", "1"), ("read", "64k", "1", "0"), ("randread", "4k", "0", "0")]
        {
            let what = format!("{engine} {rw} bs={bs} direct={direct} fixedbufs={fixed}");
            let file = dir.path().join(format!("{engine}-{rw}-{direct}"));
            let options =
                [("ioengine", engine), ("rw", rw), ("bs", bs), ("direct", direct), ("fixedbufs", fixed)];
            let (report, seen) = run_seen(&job(&file, &options));
            let block = if bs == "4k" { 4096 } else { 65_536 };
            assert_whole(&file, block, 1, &seen, &what);
            let [of_job] = &report.jobs[..] else { panic!("{what}: one job") };
            assert_eq!(of_job.read.io_bytes, to_u64(FILE_BYTES), "{what}");
            assert_eq!(of_job.read.total_ios, to_u64(FILE_BYTES / block), "{what}");
            assert_eq!(of_job.read.lat_ns.count, of_job.read.total_ios, "{what}");
            assert_eq!(of_job.read.short_ios, 0, "{what}");
            assert_eq!(of_job.write.total_ios, 0, "{what}");
            assert_eq!(of_job.x_tiers.laid_out_bytes, to_u64(FILE_BYTES), "{what}");
            assert!(!of_job.x_tiers.engine.is_empty() && of_job.x_tiers.notes[0].starts_with("laid out"));
            let has = |text: &str| of_job.x_tiers.notes.iter().any(|note| note.contains(text));
            let synchronous = matches!(engine, "psync" | "mmap");
            assert_eq!(has("queue depth will be capped at 1"), synchronous, "{what}");
            assert_eq!(has("fixedbufs=1 is ignored"), fixed == "1" && engine != "io_uring", "{what}");
            assert_eq!(of_job.latency_depth, if synchronous { 1 } else { 8 }, "{what}");
        }
    }
}

#[test]
fn every_writing_engine_writes_each_block_once() {
    let dir = tmp();
    for engine in engines().filter(|name| *name != "mmap") {
        for (rw, direct) in [("randwrite", "1"), ("write", "0")] {
            let what = format!("{engine} {rw} direct={direct}");
            let file = dir.path().join(format!("{engine}-{rw}"));
            let options = [("ioengine", engine), ("rw", rw), ("direct", direct), ("fixedbufs", "1")];
            let (report, seen) = run_seen(&job(&file, &options));
            assert_whole(&file, 4096, 1, &seen, &what);
            let blocks: std::collections::BTreeSet<&Vec<u8>> =
                seen.values().map(|(_, bytes)| bytes).collect();
            assert_eq!(blocks.len(), seen.len(), "{what}: two blocks are alike");
            assert_eq!(report.jobs[0].write.io_bytes, to_u64(FILE_BYTES), "{what}");
            assert_eq!(report.jobs[0].read.total_ios, 0, "{what}");
        }
    }
}

#[test]
fn jobs_run_side_by_side_and_mixed_ones_do_both() {
    let dir = tmp();
    let options = [("rw", "randrw"), ("rwmixread", "50"), ("numjobs", "3"), ("direct", "1")];
    let (report, seen) = run_seen(&job(&dir.path().join("shared"), &options));
    assert_eq!(report.jobs.len(), 3);
    assert!(seen.values().all(|(times, _)| *times == 3) && seen.len() == 256);
    for of_job in &report.jobs {
        let (reads, writes) = (of_job.read.total_ios, of_job.write.total_ios);
        assert!(reads + writes == 256 && (90..166).contains(&reads), "{reads} reads, {writes} writes");
    }
    assert_eq!(report.jobs.iter().map(|job| job.x_tiers.laid_out_bytes).sum::<u64>(), to_u64(FILE_BYTES));
}

/// Each look at this clock takes a millisecond.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[test]
fn a_time_based_job_starts_over_and_ends_on_time() {
    let dir = tmp();
    let clock: Arc<dyn Clock> = Arc::new(Ticking::default());
    let options = [("rw", "randread"), ("time_based", "1"), ("runtime", "2s"), ("bs", "8k")];
    let report = run_inspected(&job(&dir.path().join("f"), &options), &clock, None).unwrap();
    let read = &report.jobs[0].read;
    // Two looks at the clock for each I/O: 1000 of 8 KiB, in a file that has 128.
    assert!((998..=1000).contains(&read.total_ios), "{} I/Os", read.total_ios);
    assert!((2000..=2003).contains(&read.runtime), "{} ms", read.runtime);
    assert!(read.lat_ns.min.abs_diff(1_000_000) <= 1000 && read.slat_ns.count == 0, "{read:?}");
    assert!(read.iops_samples == 4 && (249..=251).contains(&(read.iops_max / 2)), "{read:?}");

    // Without `time_based` the end of the file comes first, or the runtime, whichever is earlier.
    let once = run_inspected(&job(&dir.path().join("f"), &options[..1]), &clock, None).unwrap();
    assert_eq!(once.jobs[0].read.total_ios, 256);
}

#[test]
fn short_transfers_are_continued_and_counted() {
    let dir = tmp();
    let file = dir.path().join("f");
    let job = job(&file, &[("ioengine", "io_uring"), ("rw", "randread"), ("bs", "64k")]);
    let target = Target::open(&job, 0).unwrap();
    for seed in 0..5 {
        let (seen, inspect) = inspector();
        let mut session = Session::new(&job, 0, &target, Arc::new(SystemClock::new()), Some(inspect));
        let plan = FaultPlan { seed, short: 3, ..FaultPlan::default() };
        let mut engine = FaultEngine::new(Box::new(PsyncEngine::new(8).unwrap()), plan);
        let slots = uring::slots(&session).unwrap();
        uring::drive(&mut engine, slots, &mut session).unwrap();
        assert_whole(&file, 65_536, 1, &seen.lock().unwrap(), &format!("seed {seed}"));
        let read = session.record.of(Direction::Read);
        assert!(read.ios == 16 && read.short_ios > 0, "seed {seed}: {} short", read.short_ios);
    }
}

#[test]
fn a_failing_device_ends_the_job_with_its_error() {
    let dir = tmp();
    let job = job(&dir.path().join("f"), &[("ioengine", "io_uring"), ("rw", "randread")]);
    let target = Target::open(&job, 0).unwrap();
    let mut session = Session::new(&job, 0, &target, Arc::new(SystemClock::new()), None);
    let plan = FaultPlan { read_error: 20, ..FaultPlan::default() };
    let mut engine = FaultEngine::new(Box::new(PsyncEngine::new(8).unwrap()), plan);
    let slots = uring::slots(&session).unwrap();
    let error = uring::drive(&mut engine, slots, &mut session).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Device);
    assert!(
        error.to_string().contains("/f` (offset ") && error.to_string().contains("4096 bytes"),
        "{error}"
    );

    // The file loses its end between layout and run: io_uring and psync say so.
    for engine in engines().filter(|name| *name != "mmap") {
        let path = dir.path().join(engine);
        let job = self::job(&path, &[("ioengine", engine)]);
        let target = Target::open(&job, 0).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(500_000).unwrap();
        let session = Session::new(&job, 0, &target, Arc::new(SystemClock::new()), None);
        let error = super::run(job.ioengine, session).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{engine}: {error}");
    }
}

#[test]
fn json_has_the_fields_that_readers_of_fio_use() {
    let dir = tmp();
    let options = [("rw", "randrw"), ("name", "mixed"), ("ioengine", "psync")];
    let (report, _) = run_seen(&job(&dir.path().join("f"), &options));
    let json = serde_json::to_value(&report).unwrap();
    // As fio-plot (fiolib/jsonparsing_support.py) and stas00/ml-engineering read it.
    assert!(json["fio version"].as_str().unwrap().starts_with("tierstream-"));
    assert_eq!(json["global options"]["numjobs"], "1");
    let of_job = &json["jobs"][0];
    assert_eq!(of_job["jobname"], "mixed");
    for (name, value) in [("rw", "randrw"), ("bs", "4k"), ("iodepth", "8"), ("numjobs", "1")] {
        assert_eq!(of_job["job options"][name], value, "values are strings");
    }
    for name in ["usr_cpu", "sys_cpu"] {
        assert!(of_job[name].is_f64(), "{name}");
    }
    let bounds = ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000"];
    let mut share = 0.0;
    for (name, more) in [("latency_ns", None), ("latency_us", None), ("latency_ms", Some(["2000", ">=2000"]))]
    {
        let buckets = of_job[name].as_object().unwrap();
        assert_eq!(buckets.len(), bounds.len() + more.map_or(0, |more| more.len()), "{name}");
        for bound in bounds.iter().chain(more.iter().flatten()) {
            share += buckets[*bound].as_f64().unwrap();
        }
    }
    assert!((share - 100.0).abs() < 1e-6, "latency buckets sum to {share} %");
    for direction in ["read", "write"] {
        let of = &of_job[direction];
        for name in
            ["io_bytes", "io_kbytes", "bw_bytes", "bw", "runtime", "total_ios", "bw_samples", "iops_max"]
        {
            assert!(of[name].is_u64(), "{direction} {name}");
        }
        for name in ["iops", "iops_stddev", "iops_mean", "bw_mean", "bw_dev", "bw_agg"] {
            assert!(of[name].is_f64(), "{direction} {name}");
        }
        let latency = &of["lat_ns"];
        assert!(latency["mean"].as_f64().unwrap() > 0.0 && latency["stddev"].is_f64(), "{direction}");
        assert_eq!(latency["N"], of["total_ios"]);
        assert!(of["clat_ns"]["percentile"]["99.000000"].is_u64());
        assert_eq!(of["slat_ns"]["N"], 0, "psync cannot tell submission from completion");
        assert!(of["slat_ns"].get("percentile").is_none());
    }
    assert!(of_job["x_tiers"]["cpu_us_per_io"].is_f64());
    assert_eq!(json.as_object().unwrap().len(), 3);
}

#[test]
fn percentiles_rise_and_the_text_has_fios_lines() {
    let dir = tmp();
    for engine in engines() {
        let options = [("rw", "randread"), ("ioengine", engine), ("name", engine)];
        let (report, _) = run_seen(&job(&dir.path().join("f"), &options));
        let read = &report.jobs[0].read;
        for latency in [&read.clat_ns, &read.lat_ns] {
            let values: Vec<u64> = [1.0, 50.0, 90.0, 99.0, 99.9, 99.99]
                .iter()
                .map(|p| latency.percentile(*p).unwrap())
                .collect();
            assert!(values.is_sorted() && values[0] >= latency.min, "{engine}: {values:?}");
            assert!(*values.last().unwrap() <= latency.max && latency.mean <= latency.max as f64);
        }
        assert!(read.lat_ns.max >= read.clat_ns.max);
        let text = report.to_string();
        for expected in [
            &format!("{engine}: (g=0): rw=randread, bs=4k, ioengine={engine}, iodepth=8"),
            "err= 0",
            "  read: IOPS=",
            "1024KiB/",
            "clat percentiles (",
            "99.99th=[",
            "  cpu          : usr=",
            "issued rw : total=256,0 short=0,0",
            "us CPU/IO, ",
            "   READ: bw=",
        ] {
            assert!(text.contains(expected), "{engine}: no `{expected}` in\n{text}");
        }
    }
}
