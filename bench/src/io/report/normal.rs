//! A report as fio prints it with `--output-format=normal`.

use std::fmt::{Result, Write};

use super::super::job::Unified;
use super::super::record::{DirectionRecord, Latency, Stat};
use super::units::{binary, count, decimal, latency_unit};
use super::{JobReport, Report, json};
use crate::number::ratio;

/// The text.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _infallible = write_report(&mut out, report);
    out
}

/// A moment as ctime(3) prints it, in UTC.
pub(super) fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400;
    let (hour, minute, second) = (unix_seconds / 3600 % 24, unix_seconds / 60 % 60, unix_seconds % 60);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][crate::to_usize(days % 7)];
    // Civil date from days since 1970 (Howard Hinnant, chrono-compatible date algorithms).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = (month_shifted + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        [crate::to_usize(month)];
    format!("{weekday} {name} {day:2} {hour:02}:{minute:02}:{second:02} {year}")
}

fn write_report(out: &mut String, report: &Report) -> Result {
    for job in &report.jobs {
        let bs = |way: usize| {
            let bs = &job.job.pattern.bs[way];
            format!("{}-{}", binary(bs.least() as f64), binary(bs.greatest() as f64))
        };
        writeln!(
            out,
            "{}: (g={}): rw={}, bs=(R) {}, (W) {}, ioengine={}, iodepth={}",
            job.job.name,
            job.group,
            job.job.option("rw").unwrap_or("read"),
            bs(0),
            bs(1),
            job.job.engine.word,
            job.job.engine.depth
        )?;
    }
    writeln!(out, concat!("tierstream-", env!("CARGO_PKG_VERSION")))?;
    let threads: usize = report.jobs.iter().map(|job| job.threads).sum();
    writeln!(out, "Starting {threads} thread{}", if threads == 1 { "" } else { "s" })?;
    let mut notes: Vec<&String> = Vec::new();
    for note in report.notes.iter().chain(report.jobs.iter().flat_map(|job| &job.notes)) {
        if !notes.contains(&note) {
            notes.push(note);
            writeln!(out, "note: {note}")?;
        }
    }
    for job in &report.jobs {
        write_job(out, job, report)?;
    }
    let groups = report.jobs.iter().map(|job| job.group).max().map_or(0, |last| last + 1);
    for group in 0..groups {
        writeln!(out, "\nRun status group {group} (all jobs):")?;
        for (way, name) in ["READ", "WRITE"].into_iter().enumerate() {
            write_group(out, name, way, report.jobs.iter().filter(|job| job.group == group))?;
        }
    }
    if !report.disks.is_empty() {
        writeln!(out, "\nDisk stats (read/write):")?;
        for disk in &report.disks {
            writeln!(
                out,
                "  {}: ios={}/{}, merge={}/{}, ticks={}/{}, in_queue={}, util={:.2}%",
                disk.name,
                disk.ios[0],
                disk.ios[1],
                disk.merges[0],
                disk.merges[1],
                disk.ticks[0],
                disk.ticks[1],
                disk.in_queue,
                disk.util
            )?;
        }
    }
    Ok(())
}

fn write_job(out: &mut String, job: &JobReport, report: &Report) -> Result {
    let record = &job.record;
    writeln!(
        out,
        "\n{}: (groupid={}, jobs={}): err= 0: {}",
        job.job.name,
        job.group,
        job.threads,
        date(report.started_unix_millis / 1000)
    )?;
    if let Some(description) = &job.job.description {
        writeln!(out, "  Description  : [{description}]")?;
    }
    let mixed = job.job.stats.unified == Unified::Mixed;
    write_direction(out, if mixed { "mixed" } else { " read" }, job, 0, report)?;
    write_direction(out, "write", job, 1, report)?;
    write_latency_table(out, record)?;
    if record.syncs.stat.count > 0 {
        writeln!(out, "  fsync/fdatasync/sync_file_range:")?;
        write_latency(out, "sync", &record.syncs.stat)?;
        write_percentiles(out, "sync", &record.syncs, &job.job.stats.percentiles)?;
    }
    writeln!(
        out,
        "  cpu          : usr={:.2}%, sys={:.2}%, ctx={}, majf={}, minf={}",
        job.percent_of_runtime(job.usage.user),
        job.percent_of_runtime(job.usage.system),
        job.usage.switches,
        job.usage.major_faults,
        job.usage.minor_faults
    )?;
    if job.tiers.is_none() {
        write_counts(out, "  IO depths    :", &record.depths, ["1", "2", "4", "8", "16", "32", ">=64"])?;
        let steps = ["0", "4", "8", "16", "32", "64", ">=64"];
        write_counts(out, "     submit    :", &record.submits, steps)?;
        write_counts(out, "     complete  :", &record.completes, steps)?;
    }
    let [reads, writes] = &record.directions;
    writeln!(
        out,
        "     issued rwts: total={},{},0,{} short={},{},0,0 dropped={},{},0,0",
        reads.ios,
        writes.ios,
        record.syncs.stat.count,
        reads.short_ios,
        writes.short_ios,
        reads.failed_ios,
        writes.failed_ios
    )?;
    let target = job.job.latency_target;
    writeln!(
        out,
        "     latency   : target={}, window={}, percentile={:.2}%, depth={}",
        target.map_or(0, |target| target.nanos / 1_000),
        target.map_or(0, |target| target.window_nanos / 1_000),
        target.map_or(100.0, |target| target.percentile),
        job.depth
    )?;
    if record.verified > 0 {
        writeln!(out, "     verify    : blocks={}, errors={}", record.verified, record.verify_errors)?;
    }
    if let Some(watch) = &job.steady {
        let attained = if watch.attained { "yes" } else { "no" };
        writeln!(
            out,
            "  steadystate  : attained={attained}, criterion={:.3}, slope={:.3}",
            watch.criterion, watch.slope
        )?;
    }
    let path = if job.direct { "past the page cache" } else { "through the page cache" };
    match &job.tiers {
        Some(tiers) => write!(out, "{}", tiers.text())?,
        None => {
            writeln!(out, "  x_tiers      : {:.2} us CPU/IO, {}, {path}", job.cpu_us_per_io(), job.engine)?
        }
    }
    Ok(())
}

fn write_direction(out: &mut String, name: &str, job: &JobReport, way: usize, report: &Report) -> Result {
    let of: &DirectionRecord = &job.record.directions[way];
    if of.ios == 0 {
        return Ok(());
    }
    let rate = ratio(of.bytes as f64, job.seconds());
    writeln!(
        out,
        " {name}: IOPS={}, BW={}/s ({}/s)({}/{}msec)",
        count(ratio(of.ios as f64, job.seconds()).round()),
        binary(rate),
        decimal(rate),
        binary(of.bytes as f64),
        job.elapsed_nanos / 1_000_000
    )?;
    let options = &job.job.stats;
    write_latency(out, "slat", &of.slat.stat)?;
    write_latency(out, "clat", &of.clat.stat)?;
    write_latency(out, "lat", &of.lat.stat)?;
    for (name, latency, listed) in [
        ("slat", &of.slat, options.slat_percentiles),
        ("clat", &of.clat, options.clat_percentiles),
        ("lat", &of.lat, options.lat_percentiles),
    ] {
        if listed && latency.stat.count > 0 {
            write_percentiles(out, name, latency, &options.percentiles)?;
        }
    }
    if of.bw.count > 0 {
        let group: f64 = report
            .jobs
            .iter()
            .filter(|other| other.group == job.group)
            .map(|other| other.record.directions[way].bw.mean())
            .sum();
        writeln!(
            out,
            "   bw (  KiB/s): min={}, max={}, per={:.2}%, avg={:.2}, stdev={:.2}, samples={}",
            of.bw.min,
            of.bw.max,
            100.0 * ratio(of.bw.mean(), group),
            of.bw.mean(),
            of.bw.stddev(),
            of.bw.count
        )?;
        writeln!(
            out,
            "   iops        : min={}, max={}, avg={:.2}, stdev={:.2}, samples={}",
            of.iops.min,
            of.iops.max,
            of.iops.mean(),
            of.iops.stddev(),
            of.iops.count
        )?;
    }
    Ok(())
}

fn write_latency(out: &mut String, name: &str, stat: &Stat) -> Result {
    if stat.count == 0 {
        return Ok(());
    }
    let (unit, nanos) = latency_unit(stat.min, stat.max, stat.stddev());
    writeln!(
        out,
        "    {name:>4} ({unit}): min={}, max={}, avg={:5.2}, stdev={:5.2}",
        count((stat.min as f64 / nanos).trunc()),
        count((stat.max as f64 / nanos).trunc()),
        stat.mean() / nanos,
        stat.stddev() / nanos
    )
}

fn write_percentiles(out: &mut String, name: &str, latency: &Latency, percents: &[f64]) -> Result {
    let values = latency.histogram.percentiles(percents);
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else { return Ok(()) };
    // As fio: the unit in which the least still has digits.
    let (unit, nanos) = match (least, most) {
        (least, most) if *least > 2_000_000 && *most > 99_999_999 => ("msec", 1_000_000),
        (least, most) if *least > 2_000 && *most > 99_999 => ("usec", 1_000),
        _ => ("nsec", 1),
    };
    let width = (most / nanos).to_string().len().max(4);
    let columns = if width > 6 { 3 } else { 4 };
    writeln!(out, "    {name} percentiles ({unit}):")?;
    let cells: Vec<String> = percents
        .iter()
        .zip(&values)
        .map(|(percent, value)| format!("{percent:5.2}th=[{:width$}]", (value + nanos / 2) / nanos))
        .collect();
    let rows = cells.chunks(columns);
    let last = rows.len().saturating_sub(1);
    for (number, row) in rows.enumerate() {
        writeln!(out, "     | {}{}", row.join(", "), if number == last { "" } else { "," })?;
    }
    Ok(())
}

fn write_latency_table(out: &mut String, record: &super::super::record::Record) -> Result {
    let mut all = record.directions[0].clat.histogram.clone();
    all.merge(&record.directions[1].clat.histogram);
    if all.count() == 0 {
        return Ok(());
    }
    let (ns, us, ms) = json::latency_tables();
    let names = |bounds: &[u64]| bounds.iter().map(u64::to_string).collect::<Vec<_>>();
    let mut tables = [("nsec", names(&ns)), ("usec", names(&us)), ("msec", names(&ms))];
    let mut bounds: Vec<u64> = ns.to_vec();
    bounds.extend(us.iter().map(|bound| bound * 1_000));
    bounds.extend(ms.iter().map(|bound| bound * 1_000_000));
    let shares = all.shares(&bounds);
    tables[2].1.push(">=2000".to_owned());
    let mut at = 0;
    for (unit, names) in &tables {
        let cells: Vec<String> = names
            .iter()
            .zip(&shares[at..])
            // fio leaves out what rounds to nothing.
            .filter(|(_, share)| **share >= 0.01)
            .map(|(name, share)| format!("{name}={share:.2}%"))
            .collect();
        at += names.len();
        for row in cells.chunks(5) {
            writeln!(out, "  lat ({unit})   : {}", row.join(", "))?;
        }
    }
    Ok(())
}

fn write_counts(out: &mut String, head: &str, counts: &[u64; 7], names: [&str; 7]) -> Result {
    let all: u64 = counts.iter().sum();
    let cells: Vec<String> = names
        .iter()
        .zip(counts)
        .map(|(name, count)| {
            let share = 100.0 * ratio(*count as f64, all as f64);
            // As fio: what is there at all is not printed as nothing.
            let share = if *count > 0 && share < 0.1 { 0.1 } else { share };
            format!("{name}={share:.1}%")
        })
        .collect();
    writeln!(out, "{head} {}", cells.join(", "))
}

/// All jobs of a group together: their bytes in the time of the longest.
fn write_group<'a>(
    out: &mut String,
    name: &str,
    way: usize,
    jobs: impl Iterator<Item = &'a JobReport>,
) -> Result {
    let jobs: Vec<&JobReport> = jobs.filter(|job| job.record.directions[way].ios > 0).collect();
    let bytes: u64 = jobs.iter().map(|job| job.record.directions[way].bytes).sum();
    if jobs.is_empty() || bytes == 0 {
        return Ok(());
    }
    let longest = jobs.iter().map(|job| job.run_range.1).max().unwrap_or(0);
    let shortest = jobs.iter().map(|job| job.run_range.0).min().unwrap_or(0);
    let least = jobs.iter().map(|job| job.bw_range[way].0).fold(f64::INFINITY, f64::min);
    let most = jobs.iter().map(|job| job.bw_range[way].1).fold(0.0, f64::max);
    let longest_nanos = jobs.iter().map(|job| job.elapsed_nanos).max().unwrap_or(0);
    let all = ratio(bytes as f64 * 1e9, longest_nanos as f64);
    writeln!(
        out,
        "{name:>7}: bw={}/s ({}/s), {}/s-{}/s ({}/s-{}/s), io={} ({}), run={shortest}-{longest}msec",
        binary(all),
        decimal(all),
        binary(least),
        binary(most),
        decimal(least),
        decimal(most),
        binary(bytes as f64),
        decimal(bytes as f64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_ctime() {
        // date -u -d @SECONDS
        assert_eq!(date(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(date(951_782_399), "Mon Feb 28 23:59:59 2000");
        assert_eq!(date(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(date(1_795_623_550), "Wed Nov 25 16:19:10 2026");
    }
}
