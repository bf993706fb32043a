//! The numbers of each workload, as published, and what the job overrides.

use crate::io::job::{Job, Workload};

/// What a job reads.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) kind: Workload,
    pub(super) samples: u64,
    pub(super) sample_bytes: u64,
    pub(super) sample_stdev: u64,
    pub(super) batch_size: u64,
    pub(super) compute_nanos: u64,
    pub(super) au_target: f64,
    /// Reads are skewed as a cache's are, not an epoch of samples.
    pub(super) skewed: bool,
}

const MILLI: u64 = 1_000_000;

impl Profile {
    pub(super) fn new(job: &Job) -> Self {
        let kind = job.tiers.workload.unwrap_or(Workload::Images);
        let (samples, sample_bytes, sample_stdev, batch_size, compute_nanos, au_target) = match kind {
            // 2048 tokens of 4 bytes, a batch of 64, 100 ms a step.
            Workload::Tokens => (65_536, 8 << 10, 0, 64, 100 * MILLI, 90.0),
            // ImageNet's JPEGs: 110 KiB on average and as spread.
            Workload::Images => (10_000, 110 << 10, 60 << 10, 256, 200 * MILLI, 90.0),
            // MLPerf Storage v1.0, H100: 140 MiB with a deviation of 65 MiB, batch 7, 0.323 s; AU of 90 %.
            Workload::Unet3d => (28, 146_600_628, 68_341_808, 7, 323 * MILLI, 90.0),
            // MLPerf Storage v1.0, H100: 114660 bytes, batch 400, 0.224 s; AU of 90 %.
            Workload::Resnet50 => (12_510, 114_660, 0, 400, 224 * MILLI, 90.0),
            // Blocks of 512 tokens of keys and values, a few for each request.
            Workload::KvCache => (1024, 512 << 10, 0, 8, 5 * MILLI, 70.0),
            Workload::Checkpoint => (4, 256 << 20, 0, 1, 1_000 * MILLI, 90.0),
        };
        let given = &job.tiers;
        let bytes = given.sample_bytes.unwrap_or(sample_bytes);
        // A smaller sample keeps the workload's relative spread.
        let scaled = sample_stdev as f64 * bytes as f64 / sample_bytes as f64;
        Self {
            kind,
            samples: given.samples.unwrap_or(samples),
            sample_bytes: bytes,
            sample_stdev: given.sample_stdev.unwrap_or(crate::number::whole(scaled)),
            batch_size: given.batch_size.unwrap_or(batch_size),
            compute_nanos: given.compute_nanos.unwrap_or(compute_nanos),
            au_target: given.au_target.unwrap_or(au_target),
            skewed: kind == Workload::KvCache,
        }
    }
}
