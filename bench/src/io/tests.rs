use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tierstream_storage::clock::SystemClock;
use tierstream_storage::testing;

use super::*;
use crate::ErrorKind;

const MEBI: u64 = 1 << 20;

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
    ["psync", "mmap", "io_uring", "libaio", "tokio-uring"]
        .into_iter()
        .filter(move |name| has_uring || !name.ends_with("uring"))
}

fn plan(args: &[&str]) -> Plan {
    Plan::new(&Arguments::read(args, &|_| None).unwrap()).unwrap()
}

fn run(args: &[&str]) -> crate::Result<Report> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    plan(args).run(&clock, &mut Unwatched)
}

fn json(report: &Report) -> Value {
    serde_json::from_str(&serde_json::to_string(&report.json(true)).unwrap()).unwrap()
}

fn file(dir: &Path, name: &str) -> String {
    format!("--filename={}", dir.join(name).display())
}

#[test]
fn every_engine_reads_all_and_what_was_not_given_is_told() {
    let dir = tmp();
    for engine in engines() {
        for (rw, bs, direct, fixed) in
            [("randread", "4k", "1", "1"), ("read", "64k", "1", "0"), ("randread", "4k", "0", "0")]
        {
            let what = format!("{engine} {rw} bs={bs} direct={direct} fixedbufs={fixed}");
            let report = run(&[
                "--name=a",
                &file(dir.path(), &format!("{engine}-{rw}-{direct}")),
                "--size=1m",
                "--iodepth=8",
                &format!("--ioengine={engine}"),
                &format!("--rw={rw}"),
                &format!("--bs={bs}"),
                &format!("--direct={direct}"),
                &format!("--fixedbufs={fixed}"),
            ])
            .unwrap();
            let [job] = &report.jobs[..] else { panic!("{what}: one job") };
            let read = &job.record.directions[0];
            let ios = if bs == "4k" { 256 } else { 16 };
            assert_eq!((read.bytes, read.ios, read.short_ios), (MEBI, ios, 0), "{what}");
            assert_eq!(read.lat.stat.count, ios, "{what}");
            assert_eq!(job.record.directions[1].ios, 0, "{what}");
            assert_eq!(job.laid_out_bytes, MEBI, "{what}");
            let has = |text: &str| job.notes.iter().any(|note| note.contains(text));
            let synchronous = matches!(engine, "psync" | "mmap");
            assert!(has("laid out"), "{:?}", job.notes);
            assert_eq!(has("queue depth will be capped at 1"), synchronous, "{what}");
            assert_eq!(has("fixedbufs=1 is ignored"), fixed == "1" && engine != "io_uring", "{what}");
            assert_eq!(job.depth, if synchronous { 1 } else { 8 }, "{what}");
            assert_eq!(read.slat.stat.count, if synchronous { 0 } else { ios }, "{what}");
        }
    }
}

#[test]
fn every_writing_engine_writes_what_verifies() {
    let dir = tmp();
    for engine in engines().filter(|name| *name != "mmap") {
        for verify in ["crc32c", "xxh3", "sha256"] {
            let report = run(&[
                "--name=a",
                &file(dir.path(), engine),
                "--size=1m",
                "--iodepth=8",
                "--direct=1",
                "--rw=randwrite",
                "--bsrange=4k-16k",
                &format!("--ioengine={engine}"),
                &format!("--verify={verify}"),
            ])
            .unwrap();
            let record = &report.jobs[0].record;
            assert_eq!(record.directions[1].bytes, MEBI, "{engine}");
            assert_eq!((record.directions[0].bytes, record.verify_errors), (MEBI, 0), "{engine} {verify}");
            assert!(record.verified > 60);
        }
    }
}

#[test]
fn a_damaged_block_is_found_and_told() {
    let dir = tmp();
    let name = file(dir.path(), "f");
    let write = ["--name=a", &name, "--size=256k", "--rw=write", "--verify=crc32c", "--do_verify=0"];
    run(&write).unwrap();
    let only = ["--name=a", &name, "--size=256k", "--rw=write", "--verify=crc32c", "--verify_only"];
    assert_eq!(run(&only).unwrap().verify_errors(), 0);
    let path = dir.path().join("f");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * 4096 + 2000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = run(&only).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("offset 12288"), "{error}");
    let counted = run(&[&only[..], &["--continue_on_error=verify"]].concat()).unwrap();
    assert_eq!(counted.verify_errors(), 1);
    assert!(counted.jobs[0].notes.iter().any(|note| note.contains("checksum")));
    // What an earlier run wrote verifies while it is read, too.
    bytes[3 * 4096 + 2000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let read = run(&["--name=a", &name, "--rw=randread", "--verify=crc32c"]).unwrap();
    assert_eq!((read.jobs[0].record.verified, read.verify_errors()), (64, 0));
}

#[test]
fn the_json_has_the_fields_of_fio_in_its_order() {
    let dir = tmp();
    let report =
        run(&["--name=a", &file(dir.path(), "f"), "--size=1m", "--rw=randrw", "--fsync=64"]).unwrap();
    let value = json(&report);
    let job = &value["jobs"][0];
    // Of fio-3.33 --output-format=json+, but for `job_start`, which later versions have.
    for (at, fields) in [
        (&value, "fio version,timestamp,timestamp_ms,time,global options,jobs,disk_util"),
        (
            job,
            "jobname,groupid,error,eta,elapsed,job options,read,write,trim,sync,job_runtime,usr_cpu,sys_cpu,ctx,majf,\
             minf,iodepth_level,iodepth_submit,iodepth_complete,latency_ns,latency_us,latency_ms,latency_depth,\
             latency_target,latency_percentile,latency_window",
        ),
        (
            &job["read"],
            "io_bytes,io_kbytes,bw_bytes,bw,iops,runtime,total_ios,short_ios,drop_ios,slat_ns,clat_ns,lat_ns,bw_min,\
             bw_max,bw_agg,bw_mean,bw_dev,bw_samples,iops_min,iops_max,iops_mean,iops_stddev,iops_samples",
        ),
        (&job["read"]["clat_ns"], "min,max,mean,stddev,N,percentile,bins"),
        (&job["sync"], "total_ios,lat_ns"),
    ] {
        for field in fields.split(',') {
            assert!(at.get(field.trim()).is_some(), "no `{field}`");
        }
    }
    assert_eq!(value["fio version"].as_str().map(|version| version.starts_with("fio-3.")), Some(true));
    assert!(job["job options"].as_object().unwrap().values().all(Value::is_string));
    let bins: u64 =
        job["read"]["clat_ns"]["bins"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(bins, job["read"]["total_ios"].as_u64().unwrap());
    let shares =
        |table: &str| job[table].as_object().unwrap().values().map(|n| n.as_f64().unwrap()).sum::<f64>();
    let sum = shares("latency_ns") + shares("latency_us") + shares("latency_ms");
    assert!((sum - 100.0).abs() < 1e-3, "{sum}");
    assert_eq!(job["sync"]["total_ios"].as_u64(), Some(job["write"]["total_ios"].as_u64().unwrap() / 64));
}

#[test]
fn groups_and_stages_are_reported_as_fio_does() {
    let dir = tmp();
    let name = file(dir.path(), "f");
    let args = [
        "--group_reporting",
        "--size=256k",
        &name,
        "--numjobs=2",
        "--name=a",
        "--name=b",
        "--stonewall",
        "--name=c",
        "--new_group",
    ];
    let report = run(&args).unwrap();
    let groups: Vec<(usize, usize)> = report.jobs.iter().map(|job| (job.group, job.threads)).collect();
    assert_eq!(groups, [(0, 2), (1, 2), (2, 2)]);
    let text = report.normal();
    for expected in [
        "a: (groupid=0, jobs=2): err= 0",
        "Run status group 2 (all jobs):",
        "   READ: bw=",
        "clat percentiles (",
        "  cpu          : usr=",
        "  IO depths    : 1=100.0%",
        "     issued rwts: total=128,0,0,0",
        "     latency   : target=0, window=0, percentile=100.00%, depth=1",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let apart = run(&["--size=256k", &name, "--numjobs=2", "--name=a"]).unwrap();
    assert_eq!(apart.jobs.len(), 2);
}

#[test]
fn an_open_loop_counts_the_time_that_an_io_waited() {
    // Nothing is slower than 2000 pauses of a millisecond at 20000 arrivals a second: all latency is waiting.
    let report = run(&[
        "--name=a",
        "--ioengine=null",
        "--size=1m",
        "--rate_iops=20000",
        "--rate_process=poisson",
        "--thinktime=1000",
        "--number_ios=100",
    ])
    .unwrap();
    let read = &report.jobs[0].record.directions[0];
    assert_eq!(read.ios, 100);
    // The last one arrived about 5 ms after the start and was issued after 99 pauses.
    assert!(read.lat.stat.max > 60_000_000, "{}", read.lat.stat.max);
    let closed =
        run(&["--name=a", "--ioengine=null", "--size=1m", "--thinktime=1000", "--number_ios=100"]).unwrap();
    assert!(closed.jobs[0].record.directions[0].lat.stat.mean() < 1_000_000.0);
}

#[test]
fn limits_hold() {
    let rate = run(&[
        "--name=a",
        "--ioengine=null",
        "--size=1m",
        "--rate_iops=1000",
        "--runtime=300ms",
        "--time_based",
    ]);
    let ios = rate.unwrap().jobs[0].record.ios();
    assert!((100..=302).contains(&ios), "{ios} in 300 ms");
    let timed = run(&["--name=a", "--ioengine=null", "--size=1m", "--runtime=50ms", "--time_based"]).unwrap();
    assert!(timed.jobs[0].elapsed_nanos >= 50_000_000);
    let few = run(&["--name=a", "--ioengine=null", "--size=1m", "--number_ios=7"]).unwrap();
    assert_eq!(few.jobs[0].record.ios(), 7);
    let slow = run(&[
        "--name=a",
        "--ioengine=null",
        "--size=1m",
        "--rate_iops=100",
        "--rate_iops_min=10000",
        "--rate_cycle=50",
        "--runtime=5",
        "--time_based",
    ]);
    assert!(slow.unwrap_err().to_string().contains("rate_iops_min=10000 is missed"));
}

#[test]
fn logs_replay_what_was_done() {
    let dir = tmp();
    let log = dir.path().join("log");
    let write_log = format!("--write_iolog={}", log.display());
    let first = run(&["--name=a", &file(dir.path(), "f"), "--size=256k", "--rw=randrw", &write_log]).unwrap();
    let replayed = run(&["--name=b", &format!("--read_iolog={}", log.display())]).unwrap();
    let counts = |report: &Report| {
        let of = &report.jobs[0].record.directions;
        [of[0].ios, of[1].ios, of[0].bytes, of[1].bytes]
    };
    assert_eq!(counts(&first), counts(&replayed));
}

#[test]
fn csv_logs_have_the_columns_of_fio() {
    let dir = tmp();
    let prefix = dir.path().join("log");
    let flag = |kind: &str| format!("--write_{kind}_log={}", prefix.display());
    run(&[
        "--name=a",
        &file(dir.path(), "f"),
        "--size=4m",
        "--rw=randread",
        &flag("lat"),
        &flag("bw"),
        &flag("iops"),
        &flag("hist"),
        "--log_avg_msec=10",
        "--log_hist_msec=10",
        "--rate_iops=8000",
    ])
    .unwrap();
    let lines = |kind: &str| -> Vec<Vec<u64>> {
        let path = dir.path().join(format!("log_{kind}.1.log"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.lines().map(|line| line.split(", ").map(|field| field.parse().unwrap()).collect()).collect()
    };
    for kind in ["bw", "iops", "slat", "clat", "lat"] {
        let lines = lines(kind);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() == 5), "{kind}: {lines:?}");
        assert!(lines.windows(2).all(|pair| pair[0][0] <= pair[1][0]), "{kind}");
    }
    let hist = lines("clat_hist");
    assert!(hist.iter().all(|line| line.len() == 3 + 1856));
    let counted: u64 = hist.iter().map(|line| line[3..].iter().sum::<u64>()).sum();
    assert!(counted <= 1024 && counted > 500, "{counted}");
}

#[test]
fn a_steady_job_ends_early_and_a_target_finds_its_depth() {
    let steady = run(&[
        "--name=a",
        "--ioengine=null",
        "--size=1m",
        "--runtime=20",
        "--time_based",
        "--rate_iops=2000",
        "--steadystate=iops:50%",
        "--ss_dur=600ms",
        "--ss_interval=100ms",
    ])
    .unwrap();
    let job = &steady.jobs[0];
    assert!(job.steady.as_ref().is_some_and(|watch| watch.attained), "{:?}", job.steady);
    assert!(job.elapsed_nanos < 10_000_000_000);
    assert_eq!(json(&steady)["jobs"][0]["steadystate"]["attained"].as_u64(), Some(1));
    let dir = tmp();
    let target = run(&[
        "--name=a",
        &file(dir.path(), "f"),
        "--size=4m",
        "--rw=randread",
        "--ioengine=libaio",
        "--iodepth=4",
        "--latency_target=10s",
        "--latency_window=30ms",
        "--time_based",
        "--runtime=20",
    ])
    .unwrap();
    assert_eq!(target.jobs[0].depth, 4, "nothing takes ten seconds");
}

#[test]
fn errors_name_the_place() {
    let dir = tmp();
    let path = dir.path().join("f");
    std::fs::write(&path, vec![1; 65_536]).unwrap();
    let file = file(dir.path(), "f");
    // O_DIRECT of odd lengths.
    match run(&["--name=a", &file, "--direct=1", "--bs=1000", "--rw=read"]) {
        Ok(report) => assert!(!report.jobs[0].direct, "only a file system without O_DIRECT takes that"),
        Err(error) => {
            assert!(
                error.to_string().contains("read failed on") && error.to_string().contains("1000 bytes"),
                "{error}"
            );
            assert!(error.hint_text().is_some_and(|hint| hint.contains("whole sectors")));
        }
    }
    assert_eq!(run(&["--name=a", &file, "--cpus_allowed=1000"]).unwrap_err().kind(), ErrorKind::Misuse);
    let read_only = Arguments::read(&["--name=a", &file, "--rw=write", "--readonly"], &|_| None).unwrap();
    assert!(Plan::new(&read_only).unwrap_err().to_string().contains("--readonly"));
}

#[test]
fn a_page_stands_for_itself() {
    let dir = tmp();
    let report = run(&[
        "--name=a<b>",
        &file(dir.path(), "f"),
        "--size=1m",
        "--rw=randrw",
        "--runtime=120ms",
        "--time_based",
        "--report_window=10",
    ])
    .unwrap();
    let page = report.html();
    for expected in
        ["<!doctype html>", "prefers-color-scheme:dark", "a&lt;b&gt;", "<polyline", "CPU per I/O", "p99.99"]
    {
        assert!(page.contains(expected), "{expected}");
    }
    // Nothing is loaded from elsewhere.
    assert!(!page.contains("http") && !page.contains("<script"), "{page}");
}

#[test]
fn workloads_report_utilisation_and_tiers() {
    let dir = tmp();
    let l2 = dir.path().join("l2");
    std::fs::create_dir(&l2).unwrap();
    for (engine, workload) in
        [("loader", "unet3d"), ("tier", "kvcache"), ("loader", "tokens"), ("tier", "checkpoint")]
    {
        let report = run(&[
            "--name=w",
            &format!("--ioengine={engine}"),
            &format!("--workload={workload}"),
            &format!("--l3={}", dir.path().display()),
            &format!("--l2={}", l2.display()),
            "--l1_size=4m",
            "--l2_size=64m",
            "--samples=32",
            "--sample_size=64k",
            "--batch_size=4",
            "--compute_time=1",
            "--epochs=2",
            &format!("--rw={}", if workload == "checkpoint" { "write" } else { "read" }),
            "--numjobs=2",
            "--group_reporting",
        ])
        .unwrap();
        let value = json(&report);
        let ours = &value["jobs"][0]["x_tiers"]["workload"];
        assert_eq!(ours["name"].as_str(), Some(workload));
        let epochs = ours["epochs"].as_array().unwrap();
        assert!(!epochs.is_empty(), "{ours}");
        let au = epochs[0]["au_percent"].as_f64().unwrap();
        assert!(au > 0.0 && au < 100.0, "{au}");
        let fairness = ours["fairness"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&fairness), "{fairness}");
        if workload == "unet3d" {
            let samples: Vec<u64> = epochs.iter().map(|epoch| epoch["samples"].as_u64().unwrap()).collect();
            assert_eq!(samples, [32, 32]);
            assert!(epochs[0]["tiers"]["l3"]["bytes"].as_u64().unwrap() > 0);
        }
        if workload == "checkpoint" {
            assert!(ours["drained"]["bytes"].as_u64().unwrap() > 0, "{ours}");
        }
        assert!(report.normal().contains("AU="), "{}", report.normal());
        let left: BTreeMap<_, _> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| (e.unwrap().file_name(), ())).collect();
        assert_eq!(left.len(), 1, "only l2 is left: {left:?}");
    }
}
