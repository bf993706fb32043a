//! Two reports side by side: ours or fio's.

use std::path::Path;

use serde_json::Value;

use crate::number::ratio;
use crate::{Error, ErrorKind, Result};

/// A report is read whole.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// A table of the jobs of two JSON reports with the ratios of the second to the first.
///
/// # Errors
/// `Misuse` when a file is no report, else as the file system says.
pub fn compare(first: &Path, second: &Path) -> Result<String> {
    let (one, other) = (jobs_of(first)?, jobs_of(second)?);
    let mut table = format!(
        "{:24} {:6} {:12} {:>14} {:>14} {:>8}\n",
        "job",
        "",
        "",
        file_name(first),
        file_name(second),
        "ratio"
    );
    for (at, job) in one.iter().enumerate() {
        let name = job["jobname"].as_str().unwrap_or("?");
        let same_name = other.iter().find(|found| found["jobname"] == job["jobname"]);
        let Some(found) = same_name.or_else(|| other.get(at)) else {
            table.push_str(&format!("{name:24} only in {}\n", file_name(first)));
            continue;
        };
        for way in ["read", "write", "mixed"] {
            for (label, path, unit) in ROWS {
                let value = |job: &Value| path.iter().fold(&job[way], |value, key| &value[*key]).as_f64();
                let (Some(before), Some(after)) = (value(job), value(found)) else { continue };
                if before == 0.0 && after == 0.0 {
                    continue;
                }
                let quotient = ratio(after, before);
                table.push_str(&format!(
                    "{name:24} {way:6} {label:12} {:>14.3} {:>14.3} {quotient:>8.3}\n",
                    before / unit,
                    after / unit
                ));
            }
        }
        let cpu = |job: &Value| {
            let ios = job["read"]["total_ios"].as_f64()? + job["write"]["total_ios"].as_f64()?;
            let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
            Some(ratio(percent / 100.0 * job["job_runtime"].as_f64()? * 1e3, ios))
        };
        if let (Some(before), Some(after)) = (cpu(job), cpu(found)) {
            let quotient = ratio(after, before);
            table.push_str(&format!(
                "{name:24} {:6} {:12} {before:>14.3} {after:>14.3} {quotient:>8.3}\n",
                "", "CPU us/IO"
            ));
        }
    }
    Ok(table)
}

/// Label, place below the direction, and what the value is divided by.
const ROWS: [(&str, &[&str], f64); 5] = [
    ("IOPS", &["iops"], 1.0),
    ("MB/s", &["bw_bytes"], 1e6),
    ("clat mean us", &["clat_ns", "mean"], 1e3),
    ("clat p50 us", &["clat_ns", "percentile", "50.000000"], 1e3),
    ("clat p99 us", &["clat_ns", "percentile", "99.000000"], 1e3),
];

fn file_name(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.chars().take(14).collect()
}

fn jobs_of(path: &Path) -> Result<Vec<Value>> {
    let failed = |error| Error::io("read report", path, error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    let wrong = |why: String| {
        Error::new(ErrorKind::Misuse, "read report", why).at(path).hint("make one with --output-format=json")
    };
    if length > REPORT_BYTES_MAX {
        return Err(wrong(format!("{length} bytes are no report")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    // fio prints notes of its own before the JSON.
    let json = text.find('{').map_or("", |start| &text[start..]);
    let value: Value = serde_json::Deserializer::from_str(json)
        .into_iter()
        .next()
        .unwrap_or(Ok(Value::Null))
        .map_err(|error| wrong(format!("no JSON: {error}")))?;
    match &value["jobs"] {
        Value::Array(jobs) if !jobs.is_empty() => Ok(jobs.clone()),
        _ => Err(wrong("it has no `jobs`".to_owned())),
    }
}
