//! The loop of a training job: take a batch, compute, take the next.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tierstream_loader::{Batch, Dataset, Loader, Permutation};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::clock::Clock;
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::tier::L2Config;
use tierstream_storage::{RangeRead, RangeSource, Store, StoreConfig};

use super::data::{self, Data};
use super::outcome::{Epoch, Outcome};
use super::profile::Profile;
use crate::io::job::{EngineName, Job};
use crate::io::record::{Record, Times};
use crate::io::run::Done;
use crate::io::run::progress::{Progress, Shared};
use crate::io::timer::Timer;
use crate::os::Usage;
use crate::random::Random;
use crate::{Error, Result, to_u64, to_usize};

/// What the threads of one job share: the data set and the store with its tiers.
#[derive(Debug)]
pub(crate) struct Prepared {
    store: Store,
    dataset: Dataset,
    prefetcher: Option<Prefetcher>,
    l2: Option<PathBuf>,
    // Dropped last: the store reads it.
    _data: Data,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(l2) = &self.l2 {
            let _already_gone = std::fs::remove_dir_all(l2);
        }
    }
}

/// What was prepared, by job.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<(String, Arc<Prepared>)>>);

impl Registry {
    /// What was prepared for `job`; the first thread that asks prepares it and the others wait.
    pub(super) fn of_job(
        &self,
        job: &Job,
        prepare: impl FnOnce() -> Result<Prepared>,
    ) -> Result<Arc<Prepared>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prepared)) = jobs.iter().find(|(name, _)| *name == job.name) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(prepare()?);
        jobs.push((job.name.clone(), Arc::clone(&prepared)));
        Ok(prepared)
    }
}

/// Makes the data set and opens a store with empty tiers.
pub(super) fn prepare(job: &Job, profile: &Profile, clock: &Arc<dyn Clock>) -> Result<Prepared> {
    let place = super::place_of(job)?;
    let data = data::make(job, profile, &place)?;
    let tiers = &job.tiers;
    let mut l2 = None;
    if let Some(path) = &tiers.l2 {
        let own = path.join(format!("tierstream-bench-l2-{}", job.name));
        if tiers.cold {
            let _none = std::fs::remove_dir_all(&own);
        }
        std::fs::create_dir_all(&own).map_err(|error| {
            Error::io("make directory", &own, error).hint("l2 is an existing directory on fast storage")
        })?;
        l2 = Some(own);
    }
    if tiers.cold {
        crate::pages::forget_in(&data.directory)?;
    }
    let config = StoreConfig {
        l1_bytes: tiers.l1_bytes,
        block_bytes: u32::try_from(tiers.block_bytes).unwrap_or(u32::MAX),
        l2: l2.iter().map(|path| L2Config { path: path.clone(), bytes: tiers.l2_bytes }).collect(),
        clock: Arc::clone(clock),
        ..StoreConfig::default()
    };
    let store = Store::open(config, Arc::clone(&data.keys))?;
    let location = data.directory.to_string_lossy().into_owned();
    let dataset = Dataset::open(Arc::new(store.clone()), &location)?;
    let prefetcher =
        (tiers.prefetch && job.engine.name == EngineName::Loader).then(|| Prefetcher::new(&store));
    let l2 = l2.filter(|_| !tiers.keep);
    Ok(Prepared { store, dataset, prefetcher, l2, _data: data })
}

/// What one batch was.
struct Taken {
    epoch: u64,
    samples: u64,
    bytes: u64,
}

/// Where batches come from.
enum Batches<'a> {
    Loader(Box<Loader>),
    Demand(Demand<'a>),
}

/// Reads of the store without a loader: each batch is asked for when its turn comes.
struct Demand<'a> {
    dataset: &'a Dataset,
    profile: &'a Profile,
    random: Random,
    order: Permutation,
    seed: u64,
    shuffle: bool,
    epochs: u64,
    epoch: u64,
    at: u64,
    buffer: Vec<u8>,
}

impl Demand<'_> {
    fn next(&mut self) -> Result<Option<Taken>> {
        let samples = self.dataset.len();
        if self.at >= samples {
            self.epoch += 1;
            self.at = 0;
            self.order = Permutation::new(samples, self.seed, self.epoch);
        }
        if self.epoch >= self.epochs || samples == 0 {
            return Ok(None);
        }
        let count = self.profile.batch_size.min(samples - self.at);
        let mut reads = Vec::with_capacity(to_usize(count));
        for number in self.at..self.at + count {
            let sample = if self.profile.skewed {
                // As requests meet a cache of prefixes: the square of a uniform number prefers low ranks.
                let unit = self.random.unit();
                self.order.get(crate::number::whole(unit * unit * samples as f64).min(samples - 1))
            } else if self.shuffle {
                self.order.get(number)
            } else {
                number
            };
            reads.push(self.dataset.locate(sample)?);
        }
        self.at += count;
        let bytes: u64 = reads.iter().map(|read| read.range.end - read.range.start).sum();
        self.buffer.resize(to_usize(bytes), 0);
        let mut rest = &mut self.buffer[..];
        let mut ranges = Vec::with_capacity(reads.len());
        for read in &reads {
            let (to, after) = rest.split_at_mut(to_usize(read.range.end - read.range.start));
            rest = after;
            ranges.push(RangeRead { shard: read.shard, range: read.range.clone(), to });
        }
        self.dataset.read(&mut ranges)?;
        Ok(Some(Taken { epoch: self.epoch, samples: count, bytes }))
    }
}

impl Batches<'_> {
    fn next(&mut self) -> Result<Option<Taken>> {
        match self {
            Self::Demand(demand) => demand.next(),
            Self::Loader(loader) => match loader.next().transpose()? {
                Some(batch) => {
                    let batch: Batch = batch;
                    let (samples, bytes) = (to_u64(batch.len()), to_u64(batch.bytes().len()));
                    Ok(Some(Taken { epoch: batch.epoch(), samples, bytes }))
                }
                None => Ok(None),
            },
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what a thread of a job is given")]
pub(super) fn run(
    job: &Job,
    number: usize,
    profile: &Profile,
    prepared: &Prepared,
    clock: &Arc<dyn Clock>,
    timer: &Timer,
    shared: &Shared,
    progress: &Progress,
) -> Result<(Done, Outcome)> {
    let seed = job.pattern.seed;
    let mut batches = if job.engine.name == EngineName::Loader {
        let mut builder = Loader::builder(prepared.dataset.clone())
            .batch_size(profile.batch_size)
            .shuffle(job.tiers.shuffle)
            .seed(seed)
            .rank(to_u64(number), to_u64(job.numjobs))
            .num_epochs(if job.time_based { u64::MAX } else { job.tiers.epochs })
            .clock(Arc::clone(clock));
        if let Some(prefetcher) = &prepared.prefetcher {
            builder = builder.prefetcher(prefetcher.clone());
        }
        if let Some(factor) = job.tiers.prefetch_factor {
            builder = builder.prefetch_factor(factor);
        }
        Batches::Loader(Box::new(builder.build()?))
    } else {
        let seed = seed ^ to_u64(number) << 32;
        Batches::Demand(Demand {
            dataset: &prepared.dataset,
            profile,
            random: Random::new(seed),
            order: Permutation::new(prepared.dataset.len().max(1), seed, 0),
            seed,
            shuffle: job.tiers.shuffle,
            epochs: if job.time_based { u64::MAX } else { job.tiers.epochs },
            epoch: 0,
            at: 0,
            buffer: Vec::new(),
        })
    };
    let (cpu_thread, cpu_process) = (Usage::of_thread(), Usage::of_process());
    let began = timer.now();
    let mut record = Record::new(&job.stats, began);
    let mut epochs: Vec<Epoch> = Vec::new();
    // The store is a fresh one: what another thread made it read already belongs to the first epoch.
    let mut before = Snapshot::default();
    let mut last = began;
    let end = job.runtime_nanos.map(|runtime| began + runtime);
    while !shared.is_stopped() && end.is_none_or(|end| last < end) {
        let asked = timer.now();
        let Some(taken) = batches.next()? else { break };
        let ready = timer.now();
        let epoch = to_usize(taken.epoch).min(63);
        while epochs.len() <= epoch {
            let now: Snapshot = prepared.store.metrics();
            if let Some(ended) = epochs.last_mut() {
                ended.tiers = (number == 0).then(|| super::outcome::between(&before, &now));
            }
            before = now;
            epochs.push(Epoch::default());
        }
        record.done(crate::io::run::READ, taken.bytes, Times { start: asked, issue: None, end: ready });
        compute(ready + profile.compute_nanos, timer, shared);
        last = timer.now();
        if let Some(of_epoch) = epochs.last_mut() {
            of_epoch.add(&taken.samples, taken.bytes, ready - asked, profile.compute_nanos, last - asked);
        }
        progress.tell(&record, 0);
    }
    let elapsed_nanos = timer.now() - began;
    if let Some(ended) = epochs.last_mut() {
        ended.tiers = (number == 0).then(|| super::outcome::between(&before, &prepared.store.metrics()));
    }
    record.close_samples(began + elapsed_nanos);
    let usage = if number == 0 && job.numjobs == 1 {
        // The store's threads work for this job alone.
        Usage::of_process().since(cpu_process)
    } else {
        Usage::of_thread().since(cpu_thread)
    };
    let info = prepared.dataset.info();
    let outcome = Outcome {
        workload: profile.kind.word(),
        engine: job.engine.word,
        prefetch: prepared.prefetcher.is_some(),
        cipher: info.cipher.clone(),
        kernel: info.cipher_kernel.clone(),
        compute_nanos: profile.compute_nanos,
        batch_size: profile.batch_size,
        au_target: profile.au_target,
        epochs,
        samples_per_s: Vec::new(),
        prefetched: prepared.prefetcher.as_ref().map(Prefetcher::stats),
        drained: None,
    };
    let outcome = outcome.of_one_job(elapsed_nanos);
    let done = Done {
        record,
        usage,
        elapsed_nanos,
        engine: super::engine_word(job),
        direct: prepared.store.io_report().name != "mmap",
        depth: 1,
        laid_out_bytes: 0,
        notes: vec![format!("the I/O engine of the store: {}", prepared.store.io_report())],
    };
    Ok((done, outcome))
}

/// Sleeps until `until`, as an accelerator computes.
pub(super) fn compute(until: u64, timer: &Timer, shared: &Shared) {
    loop {
        let now = timer.now();
        if now >= until || shared.is_stopped() {
            return;
        }
        std::thread::park_timeout(Duration::from_nanos((until - now).min(50_000_000)));
    }
}
