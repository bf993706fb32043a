//! The store and its I/O engine beside fio: raw reads, reads through lookup and cipher, hits in memory, and what the
//! memory tier wastes.
//!
//! Rounds alternate, so that a busy moment hits both sides alike; medians are reported and every round is kept. Reads
//! go through [`IoService`](tierstream_storage::io::IoService), the one the store reads through. What a number cannot
//! say is in the notes: fio that is missing, pages that are small, a machine that others used.

mod engine;
mod fio;
mod fragmentation;
pub(crate) mod read;
mod report;

pub use report::{HitReport, Report, Row};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::clock::Clock;
use tierstream_storage::device::{Access, DeviceFile, Directory};

use self::engine::Job;
use self::report::{Side, Sides};
use crate::Result;
use crate::io::target;

/// What to measure.
#[derive(Clone, Debug)]
pub struct StoreBench {
    /// An existing directory on the device to measure; what is made there is removed again.
    pub directory: PathBuf,
    /// One on a second device: reads are striped over both.
    pub stripe: Option<PathBuf>,
    /// Bytes of the file that is read.
    pub file_bytes: u64,
    /// How often each side is measured.
    pub rounds: usize,
    /// How long each time.
    pub window: Duration,
}

impl StoreBench {
    /// A file of 1 GiB in `directory`, five rounds of a second.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            stripe: None,
            file_bytes: 1 << 30,
            rounds: 5,
            window: Duration::from_secs(1),
        }
    }
}

const SEED: u64 = 4;
const FILE_NAME: &str = "tierstream-bench-store.data";

/// A file that is removed when the measurement ends.
struct Scratch {
    file: Arc<DeviceFile>,
}

impl Scratch {
    fn lay_out(directory: &Path, bytes: u64) -> Result<Self> {
        let directory = Directory::open(directory)?;
        // Left by a run that was killed.
        let _none = std::fs::remove_file(directory.path().join(FILE_NAME));
        target::lay_out(&directory, FILE_NAME, None, bytes, SEED)?;
        Ok(Self { file: DeviceFile::open(&directory, FILE_NAME, Access::Read)? })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_file(self.file.path());
    }
}

/// Measures everything. Takes about `rounds` times eight windows.
///
/// # Errors
/// `Full` when the device has no room for the file, else as the first read that failed.
pub fn run(bench: &StoreBench, clock: &Arc<dyn Clock>) -> Result<Report> {
    let mut report = Report::new(bench, fio::version());
    raw(bench, &**clock, &mut report)?;
    read::run(bench, clock, &mut report)?;
    fragmentation::run(bench, &mut report)?;
    report.finish();
    Ok(report)
}

/// The engine beside fio.
fn raw(bench: &StoreBench, clock: &dyn Clock, report: &mut Report) -> Result<()> {
    let scratch = Scratch::lay_out(&bench.directory, bench.file_bytes)?;
    let second =
        bench.stripe.as_ref().map(|stripe| Scratch::lay_out(stripe, bench.file_bytes)).transpose()?;
    if !scratch.file.is_direct() {
        report.note("the file system takes no O_DIRECT: reads go through the page cache");
    }
    let small = Job { block_bytes: 4 << 10, depth: 32, random: true, window: bench.window };
    let large = Job { block_bytes: 1 << 20, depth: 16, random: false, ..small.clone() };
    let huge = report.huge_pages;
    let (mut four, mut one, mut striped) = (Sides::default(), Sides::default(), Side::default());
    let file = std::slice::from_ref(&scratch.file);
    for round in 0..bench.rounds {
        for (job, sides) in [(&small, &mut four), (&large, &mut one)] {
            // Each side goes first as often as the other.
            for turn in 0..2 {
                if (round + turn) % 2 == 0 {
                    sides.engine.push(engine::run(file, job, clock)?);
                } else if report.fio_absent.is_none() {
                    sides.fio.push(fio::run(scratch.file.path(), job, huge)?);
                }
            }
        }
        if let Some(second) = &second {
            let both = [Arc::clone(&scratch.file), Arc::clone(&second.file)];
            striped.push(engine::run(&both, &small, clock)?);
        }
    }
    report.raw(four, one, striped);
    Ok(())
}
