//! Programs that read fio's files read ours: fio our job files, its own scripts and fio-plot our JSON, a browser our page.
//!
//! Each is skipped with its reason where it is not installed: fio and fio_jsonplus_clat2csv come with Debian's fio,
//! fio-plot from PyPI (`pip install fio-plot`, found in PATH or in /tmp/fioplot/bin), chromium from Debian.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tierstream_bench::io::{Arguments, Plan, Report, Unwatched};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::testing;

/// The program `name`, where it is installed.
fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/usr/local/bin", "/tmp/fioplot/bin", "/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    if found.is_none() {
        testing::skip(name, "not installed");
    }
    found
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn assert_ran(command: &mut Command) -> String {
    let ran = output(command);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command:?}:\n{text}");
    text
}

fn job_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

fn run(args: &[String]) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let plan = Plan::new(&Arguments::read(args, &|_| None).unwrap()).unwrap();
    plan.run(&clock, &mut Unwatched).unwrap()
}

fn sample(directory: &Path, rw: &str, depth: u32) -> Report {
    run(&[
        format!("--name={rw}"),
        format!("--filename={}", directory.join("data").display()),
        "--size=4m".to_owned(),
        "--bs=4k".to_owned(),
        format!("--rw={rw}"),
        "--rwmixread=50".to_owned(),
        "--ioengine=libaio".to_owned(),
        format!("--iodepth={depth}"),
        "--numjobs=1".to_owned(),
        "--slat_percentiles=1".to_owned(),
        "--lat_percentiles=1".to_owned(),
        "--runtime=700ms".to_owned(),
        "--time_based".to_owned(),
        "--report_window=20".to_owned(),
    ])
}

fn write_json(report: &Report, path: &Path) {
    std::fs::write(path, serde_json::to_string_pretty(&report.json(true)).unwrap()).unwrap();
}

#[test]
fn both_parse_the_job_files() {
    let environment = |name: &str| (name == "BENCH_FILE").then(|| "/tmp/bench-file".to_owned());
    let fio = program("fio");
    for file in job_files("jobs") {
        let read = Arguments::read(&[file.to_str().unwrap()], &environment).unwrap();
        Plan::new(&read).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Some(fio) = &fio {
            let mut command = Command::new(fio);
            assert_ran(command.arg("--parse-only").arg(&file).env("BENCH_FILE", "/tmp/bench-file"));
        }
    }
}

#[test]
fn workloads_parse_and_stay_out_of_fios_directory() {
    let environment = |name: &str| ["L2", "L3"].contains(&name).then(|| "/tmp".to_owned());
    for file in job_files("workloads") {
        let read = Arguments::read(&[file.to_str().unwrap()], &environment).unwrap();
        Plan::new(&read).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[test]
fn the_options_of_fios_examples_are_accepted() {
    // The twenty that fio's examples/*.fio use most, with values of theirs.
    let examples = [
        "--rw=randread",
        "--ioengine=libaio",
        "--size=64m",
        "--iodepth=4",
        "--bs=4k",
        "--direct=1",
        "--filename=f",
        "--directory=.",
        "--runtime=10",
        "--time_based",
        "--numjobs=2",
        "--stonewall",
        "--thread",
        "--group_reporting",
        "--fsync=32",
        "--verify=crc32c",
        "--rwmixread=70",
        "--nrfiles=4",
        "--norandommap",
        "--loops=2",
        "--random_distribution=zipf:1.1",
        "--ramp_time=1",
        "--invalidate=1",
        "--bssplit=4k/50:64k/50",
    ];
    let all: Vec<String> = std::iter::once("--name=a").chain(examples).map(str::to_owned).collect();
    Plan::new(&Arguments::read(&all, &|_| None).unwrap()).unwrap();
}

#[test]
fn fios_own_script_reads_our_bins() {
    let Some(script) = program("fio_jsonplus_clat2csv") else { return };
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("run.json");
    write_json(&sample(dir.path(), "randrw", 4), &json);
    let mut command = Command::new("python3");
    let probe = output(Command::new("python3").args(["-c", "import six"]));
    if !probe.status.success() {
        return testing::skip("fio_jsonplus_clat2csv", "python3-six is not installed");
    }
    let csv_path = dir.path().join("out.csv");
    assert_ran(command.arg(&script).arg(&json).arg(&csv_path));
    let mut validate = Command::new("python3");
    let text = assert_ran(validate.arg(&script).arg(&json).arg(&csv_path).arg("--validate"));
    assert!(text.contains("validated"), "{text}");
    let csv = std::fs::read_to_string(dir.path().join("out_job0.csv")).unwrap();
    assert!(csv.starts_with("nsec, read_slat_ns_count") && csv.lines().count() > 20, "{csv}");
}

#[test]
fn fio_plot_draws_our_reports() {
    let Some(plot) = program("fio-plot") else { return };
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    std::fs::create_dir(&results).unwrap();
    for depth in [1, 2] {
        write_json(&sample(dir.path(), "randread", depth), &results.join(format!("randread-{depth}-1.json")));
    }
    let picture = dir.path().join("plot.png");
    let mut command = Command::new(plot);
    command
        .arg("-i")
        .arg(&results)
        .args(["-T", "ours", "-l", "-r", "randread", "-n", "1", "-d", "1", "2", "-o"]);
    let text = assert_ran(command.arg(&picture).env("MPLCONFIGDIR", dir.path()).current_dir(dir.path()));
    let bytes = std::fs::read(&picture).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000);
}

#[test]
fn a_browser_shows_the_page_without_complaint() {
    let Some(chromium) = program("chromium") else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    std::fs::write(&page, sample(dir.path(), "randrw", 4).html()).unwrap();
    let picture = dir.path().join("report.png");
    let mut command = Command::new(chromium);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .args(["--hide-scrollbars", "--window-size=860,1500"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()));
    let text = assert_ran(&mut command);
    // What a page writes to the console is logged with this mark.
    assert!(!text.contains("CONSOLE"), "{text}");
    let bytes = std::fs::read(&picture).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());
    let keep = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-report.png");
    // For whoever wants to look at it; the tests do not need it.
    let _no_target_directory = std::fs::copy(&picture, keep);
}
