//! What a training run reports: one struct for the JSON and the text.

use serde::Serialize;
use tierstream_loader::Dataset;
use tierstream_prefetch::PrefetchStats;
use tierstream_storage::metrics::{Snapshot, TierSnapshot};
use tierstream_storage::units::human_bytes;
use tierstream_train::Precision;
use tierstream_train::job::{JobConfig, JobReport};

use super::Placement;

/// Microseconds from asking for a batch until it was there.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BatchWait {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Tiers {
    l1: TierSnapshot,
    l2: TierSnapshot,
    l3: TierSnapshot,
}

/// Highest memory that training took beside program and weights, in MiB.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PeakMemory {
    pub(crate) fp32: Option<f64>,
    /// bf16 or fp16.
    pub(crate) mixed: Option<f64>,
    /// Why one of them is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) null_because: Option<String>,
}

impl PeakMemory {
    fn of_one_run(precision: Precision, peak: &Result<f64, String>) -> Self {
        let (known, reason) = match peak {
            Ok(peak) => (Some(*peak), format!("this run was {precision}")),
            Err(why) => (None, why.clone()),
        };
        match precision {
            Precision::Fp32 => Self { fp32: known, mixed: None, null_because: Some(reason) },
            Precision::Bf16 | Precision::Fp16 => {
                Self { fp32: None, mixed: known, null_because: Some(reason) }
            }
        }
    }

    fn text(&self) -> String {
        let mib = |peak: Option<f64>| peak.map_or("unknown".to_owned(), |peak| format!("{peak:.0} MiB"));
        let why = self.null_because.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        format!("{} in mixed precision, {} in fp32{why}", mib(self.mixed), mib(self.fp32))
    }
}

/// A run, measured. Field names are the JSON's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrainingReport {
    steps: u64,
    skipped_steps: u64,
    batch_size: u64,
    parameters: usize,
    loss_first: f64,
    loss_last: f64,
    samples_per_s: f64,
    stall_percent: f64,
    accelerator_utilisation_percent: f64,
    batch_wait_us: BatchWait,
    tiers: Tiers,
    demand_waits: u64,
    l2_admitted_bytes: u64,
    l2_dropped_blocks: u64,
    read_errors: u64,
    decrypt_gbps: f64,
    cipher: String,
    cipher_kernel: String,
    io_engine: String,
    precision: Precision,
    device: String,
    batches: String,
    pub(crate) l2_warm_bytes: u64,
    pub(crate) peak_memory_mib: PeakMemory,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefetch: Option<PrefetchStats>,
    pub(crate) interrupted: bool,
}

impl TrainingReport {
    pub(super) fn new(
        dataset: &Dataset,
        job: &JobReport,
        config: &JobConfig,
        placement: &Placement,
        io_engine: &str,
        prefetch: Option<PrefetchStats>,
        interrupted: bool,
    ) -> Self {
        let metrics: Snapshot = dataset.source().metrics();
        let info = dataset.info();
        let summary = &job.summary;
        Self {
            steps: summary.steps,
            skipped_steps: summary.skipped_steps,
            batch_size: u64::try_from(config.batch_size).unwrap_or(u64::MAX),
            parameters: config.model.parameter_count(),
            loss_first: summary.loss_first,
            loss_last: summary.loss_last,
            samples_per_s: summary.samples_per_second,
            stall_percent: summary.data_stall_percent,
            accelerator_utilisation_percent: summary.accelerator_utilisation_percent,
            batch_wait_us: BatchWait {
                p50: summary.batch_wait_us_p50,
                p99: summary.batch_wait_us_p99,
                p999: summary.batch_wait_us_p999,
                max: summary.batch_wait_us_max,
            },
            tiers: Tiers { l1: metrics.l1, l2: metrics.l2, l3: metrics.l3 },
            demand_waits: metrics.demand_waits,
            l2_admitted_bytes: metrics.l2_admitted_bytes,
            l2_dropped_blocks: metrics.l2_dropped_blocks,
            read_errors: metrics.read_errors,
            decrypt_gbps: metrics.open_gbps(),
            cipher: info.cipher.clone(),
            cipher_kernel: info.cipher_kernel.clone(),
            io_engine: io_engine.to_owned(),
            precision: config.precision,
            device: config.device.to_string(),
            batches: placement.batches.clone(),
            l2_warm_bytes: info.l2_warm_bytes,
            peak_memory_mib: PeakMemory::of_one_run(config.precision, &job.peak_memory_mib),
            prefetch,
            interrupted,
        }
    }

    /// The rows of the summary that people read.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let wait = self.batch_wait_us;
        let tier = |tier: TierSnapshot| format!("{} hits, {}", tier.hits, human_bytes(tier.bytes));
        let mut rows = vec![
            (
                "loss",
                format!(
                    "{:.2} before, {:.2} after {} steps of {} samples",
                    self.loss_first, self.loss_last, self.steps, self.batch_size
                ),
            ),
            (
                "model",
                format!(
                    "{} parameters, {} with FP32 master weights, on {}",
                    self.parameters, self.precision, self.device
                ),
            ),
            ("throughput", format!("{:.0} samples/s", self.samples_per_s)),
            ("batch wait", format!("p50 {} us, p99 {} us, p99.9 {} us", wait.p50, wait.p99, wait.p999)),
            ("data stall", format!("{:.2} % of the time", self.stall_percent)),
            ("L1 memory", tier(self.tiers.l1)),
            ("L2 NVMe", tier(self.tiers.l2)),
            ("L3 HDD", tier(self.tiers.l3)),
            (
                "decryption",
                format!(
                    "{:.2} GB/s of one core, {} by {}",
                    self.decrypt_gbps, self.cipher, self.cipher_kernel
                ),
            ),
            ("I/O engine", self.io_engine.clone()),
            ("batches", self.batches.clone()),
            ("memory peak", self.peak_memory_mib.text()),
        ];
        if self.skipped_steps > 0 {
            rows.push(("skipped steps", format!("{} with gradients that overflowed", self.skipped_steps)));
        }
        if self.l2_dropped_blocks > 0 {
            rows.push(("L2 damage", format!("{} blocks dropped and read from L3", self.l2_dropped_blocks)));
        }
        rows
    }
}
