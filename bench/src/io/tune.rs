//! `--tune`: finds the store's best settings for a device within a time budget.
//!
//! Short random reads of one scratch file, first by engine, then by depth, batch and block; each step keeps what was
//! best of the one before. The score is throughput; of settings within 3 % of the best the one with less CPU time for
//! each byte counts, and of these the shallowest.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tierstream_storage::clock::Clock;

use super::options::Arguments;
use super::timer::{Timer, nanos};
use super::{Plan, Unwatched};
use crate::Result;

/// Throughputs this close are the same.
const SAME: f64 = 0.97;
const FILE_NAME: &str = "tierstream-tune.data";

/// One setting that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// fio's name of the engine.
    pub engine: &'static str,
    /// I/Os in flight.
    pub depth: u64,
    /// I/Os submitted and completed at once.
    pub batch: u64,
    /// Bytes of each.
    pub block_bytes: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Bytes per second.
    pub bw_bytes: f64,
    /// CPU time for each I/O.
    pub cpu_us_per_io: f64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct TuneReport {
    /// All that was tried, in order.
    pub trials: Vec<Trial>,
    /// The best.
    pub best: Trial,
    /// Whether the budget was up before all was tried.
    pub cut_short: bool,
}

/// Removes the scratch file.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_file(&self.0);
    }
}

/// Tries settings on a scratch file of `file_bytes` in `directory`.
///
/// # Errors
/// `Full` when there is no room, else as the first read that failed.
pub fn tune(
    directory: &Path,
    file_bytes: u64,
    budget_nanos: u64,
    clock: &Arc<dyn Clock>,
) -> Result<TuneReport> {
    let timer = Timer::calibrated(clock);
    let scratch = Scratch(directory.join(FILE_NAME));
    let began = nanos(clock.now());
    // Some 20 trials, and the file.
    let window_ms = (budget_nanos / 1_000_000 / 24).clamp(100, 3_000);
    let spent = || nanos(clock.now()) - began;
    let mut trials: Vec<Trial> = Vec::new();
    let mut cut_short = false;
    let mut best: Option<Trial> = None;
    let sweeps: [&[(&'static str, u64, u64, u64)]; 4] = [
        &[("psync", 1, 1, 4096), ("libaio", 32, 1, 4096), ("io_uring", 32, 1, 4096)],
        &[("", 8, 1, 0), ("", 16, 1, 0), ("", 64, 1, 0), ("", 128, 1, 0)],
        &[("", 0, 4, 0), ("", 0, 8, 0), ("", 0, 16, 0)],
        &[("", 0, 0, 16 << 10), ("", 0, 0, 64 << 10), ("", 0, 0, 256 << 10), ("", 0, 0, 1 << 20)],
    ];
    for (number, sweep) in sweeps.iter().enumerate() {
        let base = best.clone();
        let mut candidates: Vec<Trial> = base.iter().cloned().collect();
        for (engine, depth, batch, block_bytes) in *sweep {
            if spent() > budget_nanos {
                cut_short = true;
                break;
            }
            let mut trial = base.clone().unwrap_or(Trial {
                engine,
                depth: 1,
                batch: 1,
                block_bytes: 4096,
                iops: 0.0,
                bw_bytes: 0.0,
                cpu_us_per_io: 0.0,
            });
            for (given, field) in
                [(depth, &mut trial.depth), (batch, &mut trial.batch), (block_bytes, &mut trial.block_bytes)]
            {
                if *given > 0 {
                    *field = *given;
                }
            }
            if !engine.is_empty() {
                trial.engine = engine;
            }
            if trial.batch > trial.depth || (trial.engine == "psync" && trial.depth > 1) {
                continue;
            }
            match measure(&mut trial, &scratch.0, file_bytes, window_ms, clock, &timer) {
                Ok(()) => {
                    trials.push(trial.clone());
                    candidates.push(trial);
                }
                // An engine that this machine does not give is no choice.
                Err(error) if error.kind() == crate::ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
        }
        // Blocks of other lengths compare by bytes, the rest by I/Os, which is the same for one length.
        let _blocks = number;
        best = choose(&candidates).cloned().or(base);
    }
    let best = best.ok_or_else(|| {
        crate::Error::new(crate::ErrorKind::Unsupported, "tune", "no engine works on this machine")
    })?;
    Ok(TuneReport { trials, best, cut_short })
}

fn choose(candidates: &[Trial]) -> Option<&Trial> {
    let most = candidates.iter().map(|trial| trial.bw_bytes).fold(0.0, f64::max);
    let close = candidates.iter().filter(|trial| trial.bw_bytes >= most * SAME);
    close.min_by(|one, other| {
        let cost = |trial: &Trial| trial.cpu_us_per_io / trial.block_bytes as f64;
        cost(one).total_cmp(&cost(other)).then(one.depth.cmp(&other.depth))
    })
}

fn measure(
    trial: &mut Trial,
    file: &Path,
    file_bytes: u64,
    window_ms: u64,
    clock: &Arc<dyn Clock>,
    timer: &Timer,
) -> Result<()> {
    let args = [
        "--name=tune".to_owned(),
        format!("--filename={}", file.display()),
        format!("--size={file_bytes}"),
        "--rw=randread".to_owned(),
        format!("--bs={}", trial.block_bytes),
        "--direct=1".to_owned(),
        format!("--ioengine={}", trial.engine),
        format!("--iodepth={}", trial.depth),
        format!("--iodepth_batch={}", trial.batch),
        format!("--iodepth_batch_complete_max={}", trial.batch),
        "--norandommap".to_owned(),
        "--mem=huge".to_owned(),
        format!("--fixedbufs={}", u8::from(trial.engine == "io_uring")),
        format!("--registerfiles={}", u8::from(trial.engine == "io_uring")),
        format!("--runtime={window_ms}ms"),
        "--time_based".to_owned(),
        "--ramp_time=50ms".to_owned(),
    ];
    let plan = Plan::new(&Arguments::read(&args, &|_| None)?)?;
    let report = plan.run_timed(clock, timer, &mut Unwatched)?;
    trial.iops = report.iops();
    trial.bw_bytes = report.bw_bytes();
    trial.cpu_us_per_io = report.cpu_us_per_io();
    Ok(())
}

impl TuneReport {
    /// The table, and the settings as flags and as fields of the store's configuration.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "{:10} {:>6} {:>6} {:>8} {:>12} {:>10} {:>12}\n",
            "engine", "depth", "batch", "block", "IOPS", "MB/s", "CPU us/IO"
        );
        // Writing to a string does not fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for trial in &self.trials {
            writeln!(
                out,
                "{:10} {:>6} {:>6} {:>7}K {:>12.0} {:>10.1} {:>12.2}",
                trial.engine,
                trial.depth,
                trial.batch,
                trial.block_bytes >> 10,
                trial.iops,
                trial.bw_bytes / 1e6,
                trial.cpu_us_per_io
            )?;
        }
        if self.cut_short {
            writeln!(out, "the time was up before all was tried: give more with --tune-budget")?;
        }
        let best = &self.best;
        let store = if best.engine == "io_uring" { "io_uring" } else { "psync" };
        writeln!(
            out,
            "\n# best: {:.0} MB/s with {} at depth {}, batches of {}\n\
             # for commands: --io-engine {store} --block-size {}K\n\
             StoreConfig {{\n    block_bytes: {},\n    io: ServiceConfig {{ engine: \"{store}\".parse()?, fast_depth: {}, \
             lane_bytes: {}, ..ServiceConfig::default() }},\n    ..StoreConfig::default()\n}}",
            best.bw_bytes / 1e6,
            best.engine,
            best.depth,
            best.batch,
            best.block_bytes >> 10,
            best.block_bytes,
            best.depth,
            best.depth * best.block_bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierstream_storage::clock::SystemClock;

    #[test]
    fn of_what_is_as_fast_the_cheapest_is_chosen() {
        let trial = |depth, bw_bytes, cpu_us_per_io| Trial {
            engine: "io_uring",
            depth,
            batch: 1,
            block_bytes: 4096,
            iops: 0.0,
            bw_bytes,
            cpu_us_per_io,
        };
        let all = [trial(8, 50.0, 1.0), trial(32, 99.0, 3.0), trial(64, 100.0, 4.0), trial(128, 98.0, 3.0)];
        assert_eq!(choose(&all).map(|trial| trial.depth), Some(32));
    }

    #[test]
    fn a_device_is_tuned_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let report = tune(dir.path(), 16 << 20, 1_000_000_000, &clock).unwrap();
        assert!(!report.trials.is_empty() && report.best.bw_bytes > 0.0);
        assert!(report.text().contains("StoreConfig {"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
