//! The way into GPU memory: copies from pageable and pinned memory, the cipher's kernel by share of the GPU, sealed blocks
//! copied and opened while the next are copied, and batches of a loader beside a kernel that computes.
//!
//! On a machine without a GPU the report says why it has no numbers; it never makes one up. What is to be compared is
//! measured in the same run, on the same GPU.

mod batches;
mod report;

pub use batches::BatchesReport;
pub use report::{CardReport, CipherRow, Report, Share};

use std::path::PathBuf;
use std::sync::Arc;

use tierstream_crypto::{Cipher, Nonce, aead};
use tierstream_gpu_direct::measure::{HostKind, Meter};
use tierstream_gpu_direct::{Gpu, GpuReport, probe};
use tierstream_storage::clock::Clock;

use crate::Result;

/// Bytes of one copy: long beside the microseconds that a copy takes to start.
const COPY_BYTES: usize = 64 << 20;
/// Copies of each measurement.
const COPIES: u64 = 40;
/// Stored bytes of a block, by default and at most.
const BLOCKS: [usize; 2] = [64 << 10, 1 << 20];
/// Sealed bytes that the kernel opens at once.
const OPEN_BYTES: usize = 256 << 20;
/// Launches of each measurement.
const OPENS: u64 = 10;
/// Shares of the GPU that the kernel is given.
const PARTS: [f64; 3] = [1.0, 0.5, 0.2];
/// Bytes that the CPU opens to say what one core does.
const CPU_BYTES: usize = 64 << 20;

/// What to measure.
#[derive(Clone, Debug)]
pub struct GpuBench {
    /// Number of one GPU; all of them without.
    pub gpu: Option<u32>,
    /// Where compiled kernels are kept.
    pub cache: Option<PathBuf>,
    /// Existing directory for a data set of 512 MiB, which is removed again.
    pub directory: PathBuf,
}

/// Measures the GPUs of this machine, one after the other.
///
/// # Errors
/// `Corrupt` when a kernel gives wrong bytes; `Device` and `Full` from the driver; `Missing` for a GPU that is not there.
pub fn run(bench: &GpuBench, clock: &Arc<dyn Clock>) -> Result<Report> {
    let probe = probe();
    let core = core_gbps(&**clock)?;
    let mut cards = Vec::new();
    let wanted = probe.devices.iter().filter(|device| bench.gpu.is_none_or(|gpu| gpu == device.ordinal));
    for device in wanted {
        cards.push(card(&probe, device.ordinal, bench, core, clock)?);
    }
    if let (Some(gpu), true, true) = (bench.gpu, cards.is_empty(), probe.is_present()) {
        let why = format!("no GPU {gpu}, there are {}", probe.devices.len());
        return Err(crate::Error::new(crate::ErrorKind::Missing, "measure GPU", why));
    }
    Ok(Report { not_measured_because: probe.absent_because.clone(), probe, core_open_gbps: core, cards })
}

fn card(
    probe: &GpuReport,
    ordinal: u32,
    bench: &GpuBench,
    core: f64,
    clock: &Arc<dyn Clock>,
) -> Result<CardReport> {
    let gpu = Gpu::open(probe, ordinal, bench.cache.as_deref())?;
    let meter = Meter::new(Arc::clone(&gpu), Arc::clone(clock));
    let gb = |rate: f64| rate / 1e9;
    let pageable = gb(meter.copy(HostKind::Pageable, COPY_BYTES, COPIES / 4)?);
    let pinned = gb(meter.copy(HostKind::Pinned, COPY_BYTES, COPIES)?);
    let mut cipher = Vec::new();
    for block_bytes in BLOCKS {
        for part in PARTS {
            let rate = meter.open(block_bytes, OPEN_BYTES / block_bytes, part, OPENS)?;
            cipher.push(CipherRow { block_bytes, part, gbps: gb(rate) });
        }
    }
    let staged = gb(meter.copy_and_open(BLOCKS[0], COPY_BYTES / BLOCKS[0], COPIES)?);
    let kernel = cipher.iter().map(|row| row.gbps).fold(0.0, f64::max);
    let (registers, spill_bytes) = gpu.cipher_registers_and_spills()?;
    let batches = batches::run(&gpu, &meter, pinned, &bench.directory, clock)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(CardReport {
        gpu: gpu.report().clone(),
        kernels: gpu.kernels().clone(),
        cipher_registers: registers,
        cipher_spill_bytes: spill_bytes,
        h2d_pageable_gbps: pageable,
        h2d_pinned_gbps: pinned,
        cipher,
        sealed_to_gpu_gbps: staged,
        sealed_to_h2d: staged / pinned,
        share: Share::of(pinned, kernel, core, cores),
        batches,
    })
}

/// What one core opens, GB/s: the best of a few passes.
fn core_gbps(clock: &dyn Clock) -> Result<f64> {
    let misuse = |error: tierstream_crypto::Error| {
        crate::Error::new(crate::ErrorKind::Misuse, "measure cipher", error.to_string())
    };
    let cipher = aead(Cipher::Sm4Gcm, &[7; 16]).map_err(misuse)?;
    let (mut body, nonce) = (vec![1; BLOCKS[0]], Nonce::block(1, 1));
    let tag = cipher.seal_in_place(&nonce, b"", &mut body);
    let mut plain = vec![0; body.len()];
    let mut best: f64 = 0.0;
    for _ in 0..5 {
        let began = clock.now();
        for _ in 0..CPU_BYTES / body.len() / 5 {
            cipher.open_into(&nonce, b"", &body, &mut plain, &tag).map_err(misuse)?;
        }
        let took = clock.now().saturating_sub(began).as_secs_f64();
        best = best.max((CPU_BYTES / body.len() / 5 * body.len()) as f64 / took.max(1e-9) / 1e9);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;

    use super::*;

    #[test]
    fn a_machine_without_gpu_gets_a_report_that_says_so() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let directory = tempfile::tempdir().unwrap();
        let bench = GpuBench { gpu: None, cache: None, directory: directory.path().to_owned() };
        let report = run(&bench, &clock).unwrap();
        assert!(report.core_open_gbps > 0.0);
        assert_eq!(report.cards.is_empty(), report.not_measured_because.is_some());
        let text = report.to_string();
        match &report.not_measured_because {
            Some(why) => {
                assert!(text.contains(&format!("not measured: {why}")), "{text}");
                tierstream_storage::testing::skip("gpu", why);
            }
            None => assert!(report.cards[0].h2d_pinned_gbps > 0.0),
        }
    }

    #[test]
    fn the_cpu_takes_what_it_can_and_the_gpu_the_rest() {
        let share = Share::of(55.0, 200.0, 11.0, 2);
        assert!((share.wanted_gbps - 55.0).abs() < 1e-9 && (share.cpu - 0.4).abs() < 1e-9);
        let enough = Share::of(55.0, 200.0, 11.0, 16);
        assert!((enough.cpu - 1.0).abs() < 1e-9, "sixteen cores open all of it");
        let slow = Share::of(55.0, 20.0, 1.0, 2);
        assert!((slow.wanted_gbps - 22.0).abs() < 1e-9, "no more than both together");
    }
}
