//! Batches of a loader into GPU memory, alone and beside a kernel that computes.
//!
//! The data set is packed into a directory of its own, read through L1 once before, and removed again: what is measured
//! is the way from L1 to the GPU.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tierstream_gpu_direct::measure::Meter;
use tierstream_gpu_direct::{DeviceConfig, DeviceLoader, Gpu, PinnedAllocator};
use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Dataset, Dtype, Field, Loader, Schema};
use tierstream_storage::clock::Clock;
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Store, StoreConfig};

use crate::{Error, Result, to_u64, to_usize};

/// Bytes of a sample, samples of a batch, and batches of the data set: 512 MiB in all.
const SAMPLE_BYTES: usize = 1 << 20;
const BATCH: u64 = 32;
const BATCHES: usize = 16;
/// Epochs that are measured, after one that fills L1.
const EPOCHS: u64 = 4;
/// Part of the link that the computing kernel leaves for batches: a step takes as long as its batch at this rate.
const LINK_PART: f64 = 0.8;

/// What batches of a loader did.
#[derive(Clone, Debug, Serialize)]
pub struct BatchesReport {
    /// From L1 into GPU memory, with nothing else to do, GB/s.
    pub l1_to_gpu_gbps: f64,
    /// That beside copies of pinned memory alone.
    pub to_h2d: f64,
    /// Part of the time that a job waits for data whose steps need 0.8 of the link.
    pub stall: f64,
}

impl fmt::Display for BatchesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, ratio) = (self.l1_to_gpu_gbps, self.to_h2d);
        writeln!(f, "  batches from L1                   {rate:8.2} GB/s, {ratio:.2} of copies alone")?;
        writeln!(f, "  stall beside a kernel, 0.8 of link{:8.2} %", self.stall * 100.0)
    }
}

/// Measures batches on `gpu`, whose link carries `link` GB/s.
///
/// # Errors
/// As of the loader and the driver.
pub(super) fn run(
    gpu: &Arc<Gpu>,
    meter: &Meter,
    link: f64,
    within: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<BatchesReport> {
    let directory = within.join(format!("tierstream-bench-gpu-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| Error::io("make", &directory, error))?;
    let measured = measure(gpu, meter, link, clock, &directory);
    let removed = std::fs::remove_dir_all(&directory);
    let report = measured?;
    removed.map_err(|error| Error::io("remove", &directory, error))?;
    Ok(report)
}

fn measure(
    gpu: &Arc<Gpu>,
    meter: &Meter,
    link: f64,
    clock: &Arc<dyn Clock>,
    directory: &Path,
) -> Result<BatchesReport> {
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("bench-gpu")?);
    let set = pack(directory, &keys)?;
    let config =
        StoreConfig { l1_bytes: (to_u64(BATCHES * SAMPLE_BYTES) * BATCH) * 3 / 2, ..StoreConfig::default() };
    let dataset = Dataset::open(Arc::new(Store::open(config, keys)?), &set)?;
    let loader = || {
        let allocator = Arc::new(PinnedAllocator::of(gpu));
        let loader =
            Loader::builder(dataset.clone()).batch_size(BATCH).num_epochs(EPOCHS + 1).allocator(allocator);
        let config = DeviceConfig::gpu(Arc::clone(gpu)).clock(Arc::clone(clock));
        DeviceLoader::new(loader.build()?, dataset.schema(), config)
    };
    let counted = BATCHES as f64 * EPOCHS as f64;
    let batch_gb = (to_usize(BATCH) * SAMPLE_BYTES) as f64 / 1e9;

    let mut alone = loader()?;
    let (mut began, mut last) = (clock.now(), None);
    for number in 0..BATCHES * (to_usize(EPOCHS) + 1) {
        if number == BATCHES {
            began = clock.now();
        }
        last = alone.next().transpose()?;
    }
    if let Some(last) = last {
        last.wait()?;
    }
    let l1_to_gpu_gbps = counted * batch_gb / clock.now().saturating_sub(began).as_secs_f64().max(1e-9);

    let step = Duration::from_secs_f64(batch_gb / (link * LINK_PART).max(1e-9));
    let compute = meter.compute(step)?;
    let mut beside = loader()?;
    let (mut waited, mut began, mut number) = (Duration::ZERO, clock.now(), 0);
    loop {
        if number == BATCHES {
            (waited, began) = (Duration::ZERO, clock.now());
        }
        let asked = clock.now();
        let Some(batch) = beside.next().transpose()? else { break };
        batch.wait()?;
        waited += clock.now().saturating_sub(asked);
        batch.use_on(Some(compute.stream()))?;
        compute.start()?;
        compute.finish()?;
        number += 1;
    }
    let stall = waited.as_secs_f64() / clock.now().saturating_sub(began).as_secs_f64().max(1e-9);
    Ok(BatchesReport { l1_to_gpu_gbps, to_h2d: l1_to_gpu_gbps / link, stall })
}

fn pack(directory: &Path, keys: &Arc<dyn KeyProvider>) -> Result<String> {
    let set = directory.join("set");
    let length = i64::try_from(SAMPLE_BYTES).unwrap_or(i64::MAX);
    let schema = Schema::new(Field::fixed("data", Dtype::U8, &[length]))?;
    let config = PackConfig {
        output: set.clone(),
        block_bytes: 64 << 10,
        shard_bytes: 256 << 20,
        threads: 1,
        ..PackConfig::default()
    };
    let mut writer = Writer::create(config, schema, Arc::clone(keys))?;
    let sample: Vec<u8> = (0..SAMPLE_BYTES).map(|at| at.to_le_bytes()[0]).collect();
    for _ in 0..BATCHES * to_usize(BATCH) {
        writer.write(&[&sample])?;
    }
    writer.finish()?;
    Ok(set.to_string_lossy().into_owned())
}
