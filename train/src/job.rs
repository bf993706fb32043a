//! A run: batches from a loader into a model, step by step, with what each step took.
//!
//! Guarantees that a run ends between steps when it is asked to, and that what it reports was measured: the wait for
//! data is the loader's own, the rest of a step is compute. Knows the GPT and the two backends; neither flags nor
//! progress bars, which belong to whoever calls.

use std::time::Duration;

use tierstream_loader::{Batch, Dataset, Dtype, Loader};
use tierstream_storage as storage;
use tierstream_storage::clock::Clock;

use crate::backend::{Cpu, Cuda, TrainBackend, cpu_device, cuda_device};
use crate::device::Device;
use crate::gpt::{Gpt, GptConfig};
use crate::memory::MemoryMeter;
use crate::precision::Precision;
use crate::record::StepRecord;
use crate::report::Summary;
use crate::schedule::Schedule;
use crate::step::Trainer;

/// What to train, and how.
#[derive(Clone, Copy, Debug)]
pub struct JobConfig {
    /// Shape of the model.
    pub model: GptConfig,
    /// Sequences per step.
    pub batch_size: usize,
    /// Steps to make.
    pub steps: u64,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Steps until the peak.
    pub warmup_steps: u64,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Dtype of matrix products and activations.
    pub precision: Precision,
    /// Where to train.
    pub device: Device,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// One record per step.
    pub records: Vec<StepRecord>,
    /// The run in numbers.
    pub summary: Summary,
    /// Highest memory that training took in this process beside the weights, in MiB, or why it is not known.
    pub peak_memory_mib: Result<f64, String>,
}

/// The sequence length that a model for `dataset` must have: its samples are one token longer.
///
/// # Errors
/// `Misuse` when the samples are no byte tokens of one length.
pub fn context_of(dataset: &Dataset) -> storage::Result<usize> {
    let field = dataset.schema().field();
    let tokens = dataset.schema().sample_bytes().filter(|bytes| *bytes >= 2 && field.dtype == Dtype::U8);
    tokens.map(|bytes| bytes - 1).ok_or_else(|| {
        let why = format!("samples of {} {:?}, expected byte tokens of one length", field.dtype, field.shape);
        storage::Error::new(storage::ErrorKind::Misuse, "train", why)
            .hint("pack the text with --sample-bytes 129, for a context of 128 bytes")
    })
}

/// Trains on the batches of `loader` until the steps are made, the loader ends, or `stop` says so; tells `watch` of
/// each step.
///
/// # Errors
/// What the loader meets; what the model or the device says; `Interrupted` when it was stopped before its first step.
pub fn run(
    loader: &mut Loader,
    config: &JobConfig,
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(&StepRecord),
) -> storage::Result<JobReport> {
    match config.device {
        Device::Cpu => run_on::<Cpu>(&cpu_device(), loader, config, clock, stop, watch),
        Device::Cuda(present) => run_on::<Cuda>(&cuda_device(present), loader, config, clock, stop, watch),
    }
}

fn run_on<B: TrainBackend>(
    device: &B::Device,
    loader: &mut Loader,
    config: &JobConfig,
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(&StepRecord),
) -> storage::Result<JobReport> {
    let schedule = Schedule::new(config.learning_rate, config.warmup_steps, config.steps)?;
    let model = Gpt::<B>::new(config.model, config.seed, device)?;
    // The weights are there; what comes now is what training costs.
    let meter = MemoryMeter::start();
    let mut trainer = Trainer::new(model, config.precision, schedule)?;
    let mut records = Vec::new();
    for step in 1..=config.steps {
        if stop() {
            break;
        }
        let Some(batch) = loader.next() else { break };
        let wait = loader.last_wait();
        let record = one_step(&mut trainer, &batch?, step, wait, clock)?;
        tracing::debug!(
            step,
            wait_us = record.data_wait_us,
            compute_us = record.compute_us,
            loss = record.loss,
            "step"
        );
        watch(&record);
        records.push(record);
    }
    if records.is_empty() {
        let (kind, why) = if stop() {
            (storage::ErrorKind::Interrupted, "stopped before the first step")
        } else {
            (storage::ErrorKind::Misuse, "the loader gave no batch")
        };
        return Err(storage::Error::new(kind, "train", why));
    }
    let peak_memory_mib = meter.and_then(|meter| meter.peak_mib()).map_err(|error| error.to_string());
    let summary = Summary::new(&records, config.batch_size)?;
    Ok(JobReport { records, summary, peak_memory_mib })
}

fn one_step<B: TrainBackend>(
    trainer: &mut Trainer<B, Gpt<B>>,
    batch: &Batch,
    step: u64,
    wait: Duration,
    clock: &dyn Clock,
) -> storage::Result<StepRecord> {
    let began = clock.now();
    let tokens = batch.schema().sample_bytes().unwrap_or(0);
    let outcome = trainer.step(batch.bytes(), batch.len(), tokens)?;
    Ok(StepRecord::new(step, wait, clock.now().saturating_sub(began), outcome))
}
