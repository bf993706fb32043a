//! fio with its best options for this job, where it is installed: the yardstick.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Row;
use super::engine::Job;
use crate::{Error, ErrorKind, Result};

/// What of fio's JSON is read.
#[derive(Deserialize)]
struct Output {
    jobs: Vec<FioJob>,
}

#[derive(Deserialize)]
struct FioJob {
    read: Read,
    /// Milliseconds, over all threads.
    job_runtime: f64,
    /// Percent of the run time.
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Read {
    total_ios: f64,
    iops: f64,
    bw_bytes: f64,
}

/// fio's version, or why it cannot be compared with.
pub(super) fn version() -> std::result::Result<String, String> {
    let output = Command::new("fio")
        .arg("--version")
        .output()
        .map_err(|error| format!("fio is not installed: {error} (apt-get install fio)"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs `job` on `file` with io_uring, registered buffers and files, batches of half the depth up to 16, no clock reads
/// for each I/O, and huge pages where `huge`.
///
/// # Errors
/// `Device` with fio's own words when it fails.
pub(super) fn run(file: &Path, job: &Job, huge: bool) -> Result<Row> {
    let batch = (job.depth / 2).clamp(1, 16);
    let mut options = vec![
        "--name=yardstick".to_owned(),
        format!("--filename={}", file.display()),
        format!("--rw={}", if job.random { "randread" } else { "read" }),
        format!("--bs={}", job.block_bytes),
        format!("--iodepth={}", job.depth),
        format!("--iodepth_batch_submit={batch}"),
        format!("--iodepth_batch_complete_max={batch}"),
        format!("--runtime={}ms", job.window.as_millis()),
    ];
    options.extend(
        [
            "--direct=1",
            "--ioengine=io_uring",
            "--fixedbufs",
            "--registerfiles",
            "--time_based",
            "--ramp_time=100ms",
            "--norandommap",
            "--randrepeat=0",
            "--gtod_reduce=1",
            "--invalidate=0",
            "--output-format=json",
        ]
        .map(str::to_owned),
    );
    if huge {
        options.push("--iomem=mmaphuge".to_owned());
    }
    let failed = |why: String| Error::new(ErrorKind::Device, "run fio", why).at(file);
    let output = Command::new("fio").args(&options).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // fio prints notes of its own before the JSON.
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text.find('{').map_or("", |start| &text[start..]);
    let parsed: Output = serde_json::from_str(json).map_err(|error| failed(format!("its JSON: {error}")))?;
    let first = parsed.jobs.first().filter(|first| first.read.total_ios > 0.0);
    let FioJob { read, job_runtime, usr_cpu, sys_cpu } =
        first.ok_or_else(|| failed("no reads".to_owned()))?;
    Ok(Row {
        iops: read.iops,
        gbps: read.bw_bytes / 1e9,
        cpu_us_per_io: (usr_cpu + sys_cpu) / 100.0 * job_runtime * 1e3 / read.total_ios,
    })
}
