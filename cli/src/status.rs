//! `tierstream status`: what the tiers of a running store do, live; or what lies on an L2 that no store uses.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tierstream_storage::catalog::{self, CatalogKind};
use tierstream_storage::metrics::{Latency, TierSnapshot};
use tierstream_storage::store::object::{ObjectStatus, ObjectSummary, object_summary};
use tierstream_storage::store::{StatusReport, ask_status, known_data_sets};
use tierstream_storage::tier::{L2DeviceReport, L2Summary, l2_summary};
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::args::parse;
use crate::interrupt::Interrupt;
use crate::output;

/// How often the table is drawn.
const REFRESH: Duration = Duration::from_secs(1);

/// Show what the tiers of a running store do
///
/// DIR is the first --l2 directory of a train, serve or demo that runs: it answers at a socket there. On a terminal the
/// table is drawn anew each second until Ctrl-C. When none runs, what the catalog says of that L2 is shown.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// First L2 directory of the store
    dir: PathBuf,

    /// Show it once and end
    #[arg(long)]
    once: bool,

    /// Print one report as JSON and end
    #[arg(long)]
    json: bool,

    /// What remembers the contents of L2: redb, or rocksdb where it was built in
    #[arg(long, value_name = "NAME", default_value = "redb", value_parser = parse::<CatalogKind>)]
    catalog: CatalogKind,
}

#[derive(Serialize)]
struct Running<'a> {
    running: bool,
    #[serde(flatten)]
    report: &'a StatusReport,
}

#[derive(Serialize)]
struct Idle {
    running: bool,
    l2: L2Summary,
    objects: ObjectSummary,
    data_sets: Vec<IdleDataSet>,
}

#[derive(Serialize)]
struct IdleDataSet {
    id: String,
    generation: u64,
    location: String,
}

impl Status {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Some(mut report) = ask_status(&self.dir)? else { return self.idle() };
        if self.json {
            output::json(&Running { running: true, report: &report })?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.once || !std::io::stdout().is_terminal() {
            output::result(&table(&report, None))?;
            return Ok(ExitCode::SUCCESS);
        }
        let interrupt = Interrupt::catch(|| {})?;
        let mut before: Option<StatusReport> = None;
        loop {
            // Home, the table, and clear what an earlier, longer one left below.
            output::result(&format!("\x1b[H\x1b[2J{}", table(&report, before.as_ref())))?;
            let mut waited = Duration::ZERO;
            while waited < REFRESH {
                if interrupt.is_set() {
                    return Ok(ExitCode::SUCCESS);
                }
                std::thread::park_timeout(REFRESH / 20);
                waited += REFRESH / 20;
            }
            let Some(next) = ask_status(&self.dir)? else {
                output::say("the store has ended");
                return Ok(ExitCode::SUCCESS);
            };
            before = Some(std::mem::replace(&mut report, next));
        }
    }

    /// What the catalog of an L2 says that no store uses.
    fn idle(&self) -> Result<ExitCode> {
        let found = std::fs::read_dir(&self.dir).map_err(|error| Error::io("open", &self.dir, error))?;
        let has_catalog =
            found.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("catalog."));
        if !has_catalog {
            return Err(Error::new(ErrorKind::Missing, "look", "there is no L2 in this directory")
                .at(&self.dir)
                .hint("give the first --l2 directory of a store"));
        }
        let catalog = catalog::open(self.catalog, &self.dir)?;
        let (l2, known) = (l2_summary(&*catalog)?, known_data_sets(&*catalog)?);
        let objects = object_summary(&*catalog)?;
        if self.json {
            let data_sets = known
                .iter()
                .map(|set| IdleDataSet {
                    id: set.id.to_string(),
                    generation: set.generation,
                    location: set.location.display().to_string(),
                })
                .collect();
            output::json(&Idle { running: false, l2, objects, data_sets })?;
            return Ok(ExitCode::SUCCESS);
        }
        let (dir, taken) = (self.dir.display(), human_bytes(l2.allocated_bytes));
        let mut text = format!("{dir}: no store is running\n");
        text += &format!("L2  {} blocks in {} segments, which take {taken}\n", l2.blocks, l2.segments);
        if objects != ObjectSummary::default() {
            text += &format!(
                "    {} objects, {} of them on L2; {} dirty, {} that L2 alone has\n",
                objects.objects,
                human_bytes(objects.l2_bytes),
                objects.dirty_objects,
                human_bytes(objects.dirty_bytes)
            );
        }
        for set in &known {
            text += &format!("    generation {} of {}\n", set.generation, set.location.display());
        }
        output::result(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The table; with an earlier report also what happened since, per second.
fn table(report: &StatusReport, before: Option<&StatusReport>) -> String {
    let metrics = &report.metrics;
    let mut text = format!("process {}, up {:.0} s, {}\n\n", report.pid, report.uptime_s, report.io_engine);
    text += &format!(
        "{:4} {:>12} {:>11} {:>11} {:>10} {:>10} {:>10}\n",
        "tier", "hits", "bytes", "per second", "p50", "p99", "p99.9"
    );
    let then = before.map(|before| (&before.metrics, report.uptime_s - before.uptime_s));
    for (name, tier, earlier) in [
        ("L1", metrics.l1, then.map(|(then, seconds)| (then.l1, seconds))),
        ("L2", metrics.l2, then.map(|(then, seconds)| (then.l2, seconds))),
        ("L3", metrics.l3, then.map(|(then, seconds)| (then.l3, seconds))),
    ] {
        text += &tier_line(name, tier, earlier);
    }
    text += &format!(
        "\nL1   {} of {} blocks, {} of {} used, {} evicted\n",
        metrics.l1_blocks,
        report.l1_capacity_blocks,
        human_bytes(metrics.l1_used_bytes),
        human_bytes(report.l1_capacity_bytes),
        metrics.l1_evictions
    );
    text += &format!(
        "L2   {} blocks; {} written, {} held back by the write rate; {} dropped, {} healed\n",
        metrics.l2_blocks,
        human_bytes(metrics.l2_admitted_bytes),
        human_bytes(metrics.l2_throttled_bytes),
        metrics.l2_dropped_blocks,
        metrics.l2_healed_blocks
    );
    for device in &report.l2 {
        text += &device_line(device);
    }
    text += &format!(
        "dirty {}; {} objects, {} drained to L3\n",
        human_bytes(metrics.dirty_bytes),
        metrics.drained_objects,
        human_bytes(metrics.drained_bytes)
    );
    text += &format!(
        "waits {} (p50 {}, p99 {}); {} operations queued or under way; {} read errors; opened at {:.2} GB/s a core\n",
        metrics.demand_waits,
        time(metrics.demand_wait.p50_ns),
        time(metrics.demand_wait.p99_ns),
        metrics.io_queue_depth,
        metrics.read_errors,
        metrics.open_gbps()
    );
    if let Some(objects) = &report.objects {
        text += &object_line(objects);
    }
    for set in &report.data_sets {
        text += &format!("open  {set}\n");
    }
    text
}

fn tier_line(name: &str, tier: TierSnapshot, earlier: Option<(TierSnapshot, f64)>) -> String {
    let rate = match earlier {
        Some((then, seconds)) if seconds > 0.0 => {
            let bytes = tier.bytes.saturating_sub(then.bytes) as f64 / seconds;
            format!("{:.1} MB", bytes / 1e6)
        }
        _ => "-".to_owned(),
    };
    let Latency { p50_ns, p99_ns, p999_ns, .. } = tier.latency;
    format!(
        "{name:4} {:>12} {:>11} {rate:>11} {:>10} {:>10} {:>10}\n",
        tier.hits,
        human_bytes(tier.bytes),
        time(p50_ns),
        time(p99_ns),
        time(p999_ns)
    )
}

fn object_line(objects: &ObjectStatus) -> String {
    let mut text = format!(
        "objects {}, {} of {} on L2; {} dirty, {} of them damaged on L2\n",
        objects.objects,
        human_bytes(objects.l2_bytes),
        human_bytes(objects.l2_limit_bytes),
        objects.dirty_objects,
        objects.stuck_objects
    );
    let troubles = [("L2 takes no more", &objects.l2_refused), ("the drain fails", &objects.drain_error)];
    for (what, why) in troubles.into_iter().filter_map(|(what, why)| Some((what, why.as_ref()?))) {
        text += &format!("     {what}: {why}\n");
    }
    text
}

fn device_line(device: &L2DeviceReport) -> String {
    let state = match (device.retired, device.read_only) {
        (true, _) => "  RETIRED: it failed too often",
        (false, true) => "  takes no more blocks",
        (false, false) => "",
    };
    format!(
        "     {}: {} of {}, {} errors{state}\n",
        device.path,
        human_bytes(device.allocated_bytes),
        human_bytes(device.capacity_bytes),
        device.errors
    )
}

/// A time for people.
fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_rates_latencies_and_retired_devices() {
        let device = L2DeviceReport {
            path: "/mnt/nvme".to_owned(),
            capacity_bytes: 8 << 30,
            allocated_bytes: 1 << 30,
            errors: 9,
            retired: true,
            read_only: false,
        };
        let mut report = StatusReport {
            pid: 1,
            uptime_s: 10.0,
            io_engine: "io_uring".to_owned(),
            l1_capacity_blocks: 16,
            l1_capacity_bytes: 1 << 20,
            l2: vec![device],
            data_sets: vec!["/data/set".to_owned()],
            objects: Some(ObjectStatus { dirty_objects: 3, ..ObjectStatus::default() }),
            metrics: tierstream_storage::metrics::Snapshot::default(),
        };
        let before = report.clone();
        report.uptime_s = 12.0;
        report.metrics.l2.bytes = 50_000_000;
        report.metrics.l2.latency.p99_ns = 1_234_567;
        let text = table(&report, Some(&before));
        for part in ["25.0 MB", "1.2 ms", "RETIRED", "/data/set", "1.0 GiB of 8.0 GiB", "3 dirty"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert_eq!([time(999), time(1_500), time(2_000_000_000)], ["999 ns", "1.5 us", "2.00 s"]);
    }
}
