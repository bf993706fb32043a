//! A job that saves its state: puts on L2, acknowledged when durable, drained to L3 while it computes.

use std::sync::Arc;

use tierstream_crypto::{KeyProvider, RootKey};
use tierstream_storage::clock::Clock;
use tierstream_storage::store::object::DrainMode;
use tierstream_storage::tier::L2Config;
use tierstream_storage::{ObjectConfig, PutOptions, RangeSource, Store, StoreConfig};

use super::outcome::{Epoch, Outcome};
use super::profile::Profile;
use super::steps::compute;
use crate::io::job::Job;
use crate::io::record::{Record, Times};
use crate::io::run::Done;
use crate::io::run::progress::{Progress, Shared};
use crate::io::timer::Timer;
use crate::os::Usage;
use crate::random::Random;
use crate::{Error, Result, to_u64, to_usize};

/// Removes what was written when the job ends.
struct Scratch(Vec<std::path::PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in &self.0 {
            let _already_gone = std::fs::remove_dir_all(path);
        }
    }
}

pub(super) fn run(
    job: &Job,
    number: usize,
    profile: &Profile,
    clock: &Arc<dyn Clock>,
    timer: &Timer,
    shared: &Shared,
    progress: &Progress,
) -> Result<(Done, Outcome)> {
    let tiers = &job.tiers;
    let name = format!("tierstream-bench-checkpoint-{}-{number}", job.name);
    let l3 = super::place_of(job)?.join(&name);
    let l2 = tiers.l2.as_ref().map(|l2| l2.join(&name));
    let scratch = Scratch(l2.iter().chain([&l3]).cloned().collect());
    for path in &scratch.0 {
        let _none = std::fs::remove_dir_all(path);
        std::fs::create_dir_all(path).map_err(|error| Error::io("make directory", path, error))?;
    }
    let mut objects = ObjectConfig::new(l3, tiers.l2_bytes / 2);
    objects.drain = if l2.is_some() { DrainMode::Background } else { DrainMode::Manual };
    let key = RootKey::random("bench").map_err(Error::from)?;
    let keys: Arc<dyn KeyProvider> = Arc::new(key);
    let config = StoreConfig {
        l1_bytes: tiers.l1_bytes,
        block_bytes: u32::try_from(tiers.block_bytes).unwrap_or(u32::MAX),
        l2: l2.iter().map(|path| L2Config { path: path.clone(), bytes: tiers.l2_bytes / 2 }).collect(),
        objects: Some(objects),
        clock: Arc::clone(clock),
        ..StoreConfig::default()
    };
    let store = Store::open(config, keys)?;
    let mut payload = vec![0; to_usize(profile.sample_bytes)];
    Random::new(job.pattern.seed).fill(&mut payload);
    let usage = Usage::of_process();
    let began = timer.now();
    let mut record = Record::new(&job.stats, began);
    let mut epoch = Epoch::default();
    for at in 0..profile.samples * tiers.epochs {
        if shared.is_stopped() || job.runtime_nanos.is_some_and(|runtime| timer.now() - began >= runtime) {
            break;
        }
        let start = timer.now();
        // A job keeps its last two checkpoints.
        store.put(&format!("checkpoint/{}", at % 2), &payload, &PutOptions::default())?;
        let end = timer.now();
        record.done(crate::io::run::WRITE, profile.sample_bytes, Times { start, issue: None, end });
        compute(end + profile.compute_nanos, timer, shared);
        epoch.add(&1, profile.sample_bytes, end - start, profile.compute_nanos, timer.now() - start);
        progress.tell(&record, 0);
    }
    let elapsed_nanos = timer.now() - began;
    let drain_began = timer.now();
    while store.metrics().dirty_bytes > 0 && !shared.is_stopped() {
        if tiers.l2.is_none() {
            store.drain_one()?;
        } else {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
    let metrics = store.metrics();
    let drained = (metrics.drained_bytes, (timer.now() - drain_began) as f64 / 1e9);
    epoch.tiers = Some(metrics);
    record.close_samples(began + elapsed_nanos);
    let outcome = Outcome {
        workload: profile.kind.word(),
        engine: job.engine.word,
        prefetch: false,
        cipher: tiers.cipher.to_owned(),
        kernel: String::new(),
        compute_nanos: profile.compute_nanos,
        batch_size: 1,
        au_target: profile.au_target,
        epochs: vec![epoch],
        samples_per_s: Vec::new(),
        prefetched: None,
        drained: Some(drained),
    };
    let notes = vec![format!("{} checkpoints of {} bytes", record.ios(), to_u64(payload.len()))];
    let done = Done {
        record,
        usage: Usage::of_process().since(usage),
        elapsed_nanos,
        engine: super::engine_word(job),
        direct: true,
        depth: 1,
        laid_out_bytes: 0,
        notes,
    };
    drop(store);
    drop(scratch);
    Ok((done, outcome.of_one_job(elapsed_nanos)))
}
