//! A report as fio prints it with `--output-format=normal`: its main lines, and one of ours.

use std::fmt;

use super::report::{DirectionReport, JobReport, LatencyReport, Report};

/// `value` in four digits or less of the largest unit, as fio prints sizes and rates.
fn short(value: f64, base: f64, units: &[&str]) -> String {
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 9_999.5 && unit + 1 < units.len() {
        scaled /= base;
        unit += 1;
    }
    let digits = match scaled {
        whole if whole.fract() == 0.0 || whole >= 99.95 => 0,
        tens if tens >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{}", units[unit])
}

fn binary(bytes: f64) -> String {
    short(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn decimal(bytes: f64) -> String {
    short(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

fn count(number: f64) -> String {
    short(number, 1000.0, &["", "k", "M", "G"])
}

/// The unit that fio would print `latency` in, and its nanoseconds.
fn unit_of(latency: &LatencyReport) -> (&'static str, f64) {
    let fits = |unit: f64| {
        latency.min as f64 > 2_000.0 * unit
            && latency.max as f64 > 99_999.0 * unit
            && latency.stddev > 1_000.0 * unit
    };
    if fits(1_000.0) {
        ("msec", 1e6)
    } else if fits(1.0) {
        ("usec", 1e3)
    } else {
        ("nsec", 1.0)
    }
}

fn latency_line(f: &mut fmt::Formatter<'_>, name: &str, latency: &LatencyReport) -> fmt::Result {
    if latency.count == 0 {
        return Ok(());
    }
    let (unit, nanos) = unit_of(latency);
    writeln!(
        f,
        "    {name:>4} ({unit}): min={}, max={}, avg={:5.2}, stdev={:5.2}",
        count((latency.min as f64 / nanos).trunc()),
        count((latency.max as f64 / nanos).trunc()),
        latency.mean / nanos,
        latency.stddev / nanos
    )
}

fn percentile_lines(f: &mut fmt::Formatter<'_>, latency: &LatencyReport) -> fmt::Result {
    const COLUMNS: usize = 4;
    let (unit, nanos) = unit_of(latency);
    writeln!(f, "    clat percentiles ({unit}):")?;
    let cells: Vec<String> = latency
        .percentile
        .0
        .iter()
        .map(|(percent, value)| {
            let percent: f64 = percent.parse().unwrap_or_default();
            format!("{percent:5.2}th=[{:5.0}]", *value as f64 / nanos)
        })
        .collect();
    let rows = cells.chunks(COLUMNS);
    let last = rows.len().saturating_sub(1);
    for (number, row) in rows.enumerate() {
        writeln!(f, "     | {}{}", row.join(", "), if number == last { "" } else { "," })?;
    }
    Ok(())
}

fn direction_lines(f: &mut fmt::Formatter<'_>, name: &str, of: &DirectionReport) -> fmt::Result {
    if of.total_ios == 0 {
        return Ok(());
    }
    let bw = of.bw_bytes as f64;
    writeln!(
        f,
        "  {name}: IOPS={}, BW={}/s ({}/s)({}/{}msec)",
        count(of.iops.round()),
        binary(bw),
        decimal(bw),
        binary(of.io_bytes as f64),
        of.runtime
    )?;
    latency_line(f, "slat", &of.slat_ns)?;
    latency_line(f, "clat", &of.clat_ns)?;
    latency_line(f, "lat", &of.lat_ns)?;
    percentile_lines(f, &of.clat_ns)?;
    if of.bw_samples > 0 {
        writeln!(
            f,
            "   bw (  KiB/s): min={}, max={}, per={:.2}%, avg={:.2}, stdev={:.2}, samples={}",
            of.bw_min, of.bw_max, of.bw_agg, of.bw_mean, of.bw_dev, of.bw_samples
        )?;
        writeln!(
            f,
            "   iops        : min={}, max={}, avg={:.2}, stdev={:.2}, samples={}",
            of.iops_min, of.iops_max, of.iops_mean, of.iops_stddev, of.iops_samples
        )?;
    }
    Ok(())
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: (groupid={}, jobs=1): err= {}", self.jobname, self.groupid, self.error)?;
        direction_lines(f, "read", &self.read)?;
        direction_lines(f, "write", &self.write)?;
        for (unit, shares) in
            [("nsec", &self.latency_ns), ("usec", &self.latency_us), ("msec", &self.latency_ms)]
        {
            // fio leaves out what rounds to nothing.
            let cells: Vec<String> = shares
                .0
                .iter()
                .filter(|(_, share)| *share >= 0.01)
                .map(|(bound, share)| format!("{bound}={share:.2}%"))
                .collect();
            if !cells.is_empty() {
                writeln!(f, "  lat ({unit})   : {}", cells.join(", "))?;
            }
        }
        writeln!(
            f,
            "  cpu          : usr={:.2}%, sys={:.2}%, ctx={}, majf={}, minf={}",
            self.usr_cpu, self.sys_cpu, self.ctx, self.majf, self.minf
        )?;
        writeln!(
            f,
            "     issued rw : total={},{} short={},{} dropped=0,0",
            self.read.total_ios, self.write.total_ios, self.read.short_ios, self.write.short_ios
        )?;
        let tiers = &self.x_tiers;
        write!(f, "  x_tiers      : {:.2} us CPU/IO, {}", tiers.cpu_us_per_io, tiers.engine)?;
        writeln!(f, ", {}", if tiers.direct { "past the page cache" } else { "through the page cache" })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.jobs.first() else { return Ok(()) };
        writeln!(
            f,
            "{}: (g=0): rw={}, bs={}, ioengine={}, iodepth={}",
            first.jobname,
            first.option("rw"),
            first.option("bs"),
            first.option("ioengine"),
            first.option("iodepth")
        )?;
        writeln!(f, "{}", self.version)?;
        let threads = self.jobs.len();
        writeln!(f, "{threads} thread{}", if threads == 1 { "" } else { "s" })?;
        let mut notes: Vec<&String> = Vec::new();
        for note in self.jobs.iter().flat_map(|job| &job.x_tiers.notes) {
            if !notes.contains(&note) {
                notes.push(note);
                writeln!(f, "note: {note}")?;
            }
        }
        for job in &self.jobs {
            write!(f, "\n{job}")?;
        }
        writeln!(f, "\nRun status group 0 (all jobs):")?;
        group_line(f, "READ", self.jobs.iter().map(|job| &job.read).collect())?;
        group_line(f, "WRITE", self.jobs.iter().map(|job| &job.write).collect())
    }
}

/// All jobs together: their bytes in the time of the longest.
fn group_line(f: &mut fmt::Formatter<'_>, name: &str, jobs: Vec<&DirectionReport>) -> fmt::Result {
    let bytes: u64 = jobs.iter().map(|job| job.io_bytes).sum();
    let least = jobs.iter().min_by_key(|job| job.bw_bytes);
    let most = jobs.iter().max_by_key(|job| job.bw_bytes);
    let (Some(least), Some(most), true) = (least, most, bytes > 0) else { return Ok(()) };
    let longest = jobs.iter().map(|job| job.runtime).max().unwrap_or_default();
    let shortest = jobs.iter().map(|job| job.runtime).min().unwrap_or_default();
    let all = if longest > 0 { bytes as f64 * 1000.0 / longest as f64 } else { most.bw_bytes as f64 };
    let (least, most, total) = (least.bw_bytes as f64, most.bw_bytes as f64, bytes as f64);
    writeln!(
        f,
        "{name:>7}: bw={}/s ({}/s), {}/s-{}/s ({}/s-{}/s), io={} ({}), run={shortest}-{longest}msec",
        binary(all),
        decimal(all),
        binary(least),
        binary(most),
        decimal(least),
        decimal(most),
        binary(total),
        decimal(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(count(20_700.0), "20.7k");
        assert_eq!(count(9_999.0), "9999");
        assert_eq!(binary(8_388_608.0), "8192KiB");
        assert_eq!(binary(84_700_000.0), "80.8MiB");
        assert_eq!(decimal(84_700_000.0), "84.7MB");
        assert_eq!(binary(9.5 * 1024.0 * 1024.0 * 1024.0), "9728MiB");
        assert_eq!(count(0.0), "0");
    }
}
