//! Settings of a loader, in the words of PyTorch's DataLoader and DistributedSampler.

use std::sync::Arc;
use std::time::Duration;

use tierstream_prefetch::Prefetcher;
use tierstream_storage::buf::{HeapAllocator, HostAllocator};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::{Error, ErrorKind, Result};

use super::Loader;
use crate::collate::{Collate, Counts, OnCorrupt, Sequences};
use crate::dataset::Dataset;
use crate::order::{Order, Share, Shuffle};
use crate::pipeline::{self, Pipeline};
use crate::pool::BufferPool;
use crate::state::LoaderState;

/// Batches that the user may hold before buffers are made anew for each.
const HELD_BATCHES: usize = 4;

/// Bytes that are made ahead where nobody says how many batches.
const AHEAD_BYTES: u64 = 8 << 20;

/// Batches to make ahead, by what they are likely to take.
fn ahead(dataset: &Dataset, batch_size: u64) -> usize {
    let info = dataset.info();
    let batch_bytes = (info.payload_bytes / info.records.max(1)).saturating_mul(batch_size);
    usize::try_from(AHEAD_BYTES / batch_bytes.max(1)).unwrap_or(usize::MAX).clamp(4, 32)
}

/// A part of a curriculum: data sets that are mixed by weights for a number of samples.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Data sets and their weights.
    pub data_sets: Vec<(Dataset, f64)>,
    /// Samples after which the next stage begins; none: as many as the data sets have.
    pub samples: Option<u64>,
}

/// Settings of a loader.
#[derive(Debug)]
pub struct LoaderBuilder {
    stages: Vec<Stage>,
    batch_size: u64,
    shuffle: Shuffle,
    seed: u64,
    rank: u64,
    world_size: u64,
    drop_last: bool,
    num_epochs: u64,
    epoch_size: Option<u64>,
    sequences: Option<Sequences>,
    on_corrupt: OnCorrupt,
    num_workers: usize,
    prefetch_factor: Option<usize>,
    timeout: Option<Duration>,
    stall_warning: Duration,
    prefetcher: Option<Prefetcher>,
    allocator: Arc<dyn HostAllocator>,
    clock: Arc<dyn Clock>,
    state: Option<LoaderState>,
}

impl LoaderBuilder {
    pub(super) fn new(stages: Vec<Stage>) -> Self {
        Self {
            stages,
            batch_size: 1,
            shuffle: Shuffle::Off,
            seed: 0,
            rank: 0,
            world_size: 1,
            drop_last: false,
            num_epochs: 1,
            epoch_size: None,
            sequences: None,
            on_corrupt: OnCorrupt::Error,
            num_workers: 2,
            prefetch_factor: None,
            timeout: None,
            stall_warning: Duration::from_secs(10),
            prefetcher: None,
            allocator: Arc::new(HeapAllocator),
            clock: Arc::new(SystemClock::new()),
            state: None,
        }
    }

    /// Samples per batch. Default 1.
    #[must_use]
    pub fn batch_size(mut self, samples: u64) -> Self {
        self.batch_size = samples;
        self
    }

    /// Whether each epoch has an order of its own, shuffled over the whole data set. Default false.
    #[must_use]
    pub fn shuffle(self, shuffle: bool) -> Self {
        self.shuffle_by(if shuffle { Shuffle::Global } else { Shuffle::Off })
    }

    /// How each epoch is shuffled. Default: not at all.
    #[must_use]
    pub fn shuffle_by(mut self, shuffle: Shuffle) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Seed of the shuffle. Default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// This process among `world_size`: it gets its share of every epoch. Default 0 of 1.
    #[must_use]
    pub fn rank(mut self, rank: u64, world_size: u64) -> Self {
        (self.rank, self.world_size) = (rank, world_size);
        self
    }

    /// Whether an incomplete batch at the end of an epoch is left out; all ranks get equally many batches then. Default
    /// false.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// Epochs to deliver. Default 1.
    #[must_use]
    pub fn num_epochs(mut self, epochs: u64) -> Self {
        self.num_epochs = epochs;
        self
    }

    /// Epochs without end.
    #[must_use]
    pub fn infinite(self) -> Self {
        self.num_epochs(u64::MAX)
    }

    /// Samples of an epoch, over all ranks, instead of as many as there are: the stream of samples goes on where the last
    /// epoch ended, so that all of them come up in turn.
    #[must_use]
    pub fn epoch_size(mut self, samples: u64) -> Self {
        self.epoch_size = Some(samples);
        self
    }

    /// Pads or packs sequences of many lengths. Default: ragged fields have offsets.
    #[must_use]
    pub fn sequences(mut self, sequences: Sequences) -> Self {
        self.sequences = Some(sequences);
        self
    }

    /// What happens when a sample does not authenticate on any tier. Default: the loader ends with the error.
    #[must_use]
    pub fn on_corrupt(mut self, on_corrupt: OnCorrupt) -> Self {
        self.on_corrupt = on_corrupt;
        self
    }

    /// Threads that make batches. Default 2; the order is the same with any number.
    #[must_use]
    pub fn num_workers(mut self, threads: usize) -> Self {
        self.num_workers = threads;
        self
    }

    /// Batches made ahead of their use. Default: as many as 8 MiB hold, from 4 to 32; a small batch is used up sooner than
    /// a thread is woken.
    #[must_use]
    pub fn prefetch_factor(mut self, batches: usize) -> Self {
        self.prefetch_factor = Some(batches);
        self
    }

    /// How long `next` waits for a batch before it gives a `Retry` error that names what it waits for. Default: as long
    /// as the store is patient.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long `next` waits before it logs a warning that names what it waits for. Default 10 s, and again after twice
    /// as long.
    #[must_use]
    pub fn stall_warning(mut self, after: Duration) -> Self {
        self.stall_warning = after;
        self
    }

    /// Announces the order to `prefetcher`, so that blocks are in memory before they are needed.
    #[must_use]
    pub fn prefetcher(mut self, prefetcher: Prefetcher) -> Self {
        self.prefetcher = Some(prefetcher);
        self
    }

    /// Where batch buffers come from: pinned memory, say. Default: plain memory.
    #[must_use]
    pub fn allocator(mut self, allocator: Arc<dyn HostAllocator>) -> Self {
        self.allocator = allocator;
        self
    }

    /// The clock that batch waits are measured with.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Goes on where a loader of the same order stood; the number of ranks, the batch size and what is not of the order
    /// may differ.
    #[must_use]
    pub fn load_state_dict(mut self, state: LoaderState) -> Self {
        self.state = Some(state);
        self
    }

    /// Starts the loader.
    ///
    /// # Errors
    /// `Misuse` for settings that make no sense or a state of another order; `Full` without a thread.
    pub fn build(self) -> Result<Loader> {
        let misuse =
            |why: &str, hint: &str| Err(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint));
        if self.prefetch_factor == Some(0) || self.num_workers == 0 {
            return misuse("prefetch factor or workers 0", "use 1 or more");
        }
        let datasets: Vec<Dataset> = self
            .stages
            .iter()
            .flat_map(|stage| &stage.data_sets)
            .map(|(dataset, _)| dataset.clone())
            .collect();
        let Some(first) = datasets.first().cloned() else {
            return misuse("no data sets", "give one or more");
        };
        if datasets.iter().any(Dataset::is_empty) {
            return misuse("the data set has no samples", "pack some files first, or filter less");
        }
        if let Some(other) = datasets.iter().find(|dataset| dataset.schema() != first.schema()) {
            let (one, two) = (&first.info().name, &other.info().name);
            return misuse(
                &format!("data sets `{one}` and `{two}` have different fields"),
                "mix data sets of one schema",
            );
        }
        if let Some(sequences) = &self.sequences {
            sequences.check(first.schema())?;
        }
        let share = self.share()?;
        let state = self.state(&first, &share)?;
        let share = Share { epoch: state.epoch, done: state.done, batches: state.batches, ..share };
        let mut announcements = Vec::new();
        for (number, dataset) in (0..).zip(&datasets) {
            announcements.push(match &self.prefetcher {
                Some(prefetcher) => {
                    Some(prefetcher.announce(dataset.info(), pipeline::plan(&share, number, dataset))?)
                }
                None => None,
            });
        }
        let depth = self.prefetch_factor.unwrap_or(ahead(&first, self.batch_size)).max(self.num_workers);
        let pool = BufferPool::new(self.allocator, depth + HELD_BATCHES);
        let schema = Arc::clone(first.shared_schema());
        let (sequences, on_corrupt, counts) = (self.sequences, self.on_corrupt, Counts::default());
        let collate = Collate { datasets, sequences, on_corrupt, pool, schema, counts };
        let pipeline = Pipeline::new(collate, share, announcements, depth);
        let mut loader = Loader {
            pipeline,
            threads: Vec::new(),
            clock: self.clock,
            state,
            last_wait: Duration::ZERO,
            stall_warning: self.stall_warning,
            timeout: self.timeout,
            over: false,
        };
        for number in 0..self.num_workers {
            let pipeline = Arc::clone(&loader.pipeline);
            let thread = std::thread::Builder::new()
                .name(format!("tier-loader-{number}"))
                .spawn(move || pipeline.work())
                .map_err(|error| {
                    Error::new(ErrorKind::Full, "start", format!("no loader thread: {error}"))
                })?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The share of this rank, from the start.
    fn share(&self) -> Result<Share> {
        let mut number = 0;
        let stages = self.stages.iter().map(|stage| {
            let parts = stage.data_sets.iter().map(|(dataset, weight)| {
                number += 1;
                (number - 1, dataset.selection().clone(), *weight)
            });
            (parts.collect(), stage.samples)
        });
        let order = Order::new(stages.collect(), self.shuffle, self.seed, self.epoch_size)?;
        let share = Share {
            order,
            rank: self.rank,
            world_size: self.world_size,
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            num_epochs: self.num_epochs,
            epoch: 0,
            done: 0,
            batches: 0,
        };
        share.check()?;
        Ok(share)
    }

    /// Where to begin.
    fn state(&self, first: &Dataset, share: &Share) -> Result<LoaderState> {
        let mut identity = xxhash_rust::xxh3::Xxh3::new();
        identity.update(&share.order.fingerprint().to_le_bytes());
        for (dataset, _) in self.stages.iter().flat_map(|stage| &stage.data_sets).skip(1) {
            identity.update(dataset.info().id.as_bytes());
            identity.update(&dataset.info().generation.to_le_bytes());
        }
        let now = LoaderState {
            data_set: first.info().id.clone(),
            generation: first.info().generation,
            order: format!("{:016x}", identity.digest()),
            seed: self.seed,
            rank: self.rank,
            world_size: self.world_size,
            epoch: 0,
            done: 0,
            batches: 0,
        };
        let Some(saved) = &self.state else { return Ok(now) };
        saved.check_same_order(&now)?;
        if saved.done > share.order.epoch_len() {
            let why = format!("{} samples of an epoch of {} are done", saved.done, share.order.epoch_len());
            return Err(Error::new(ErrorKind::Misuse, "load state", why)
                .hint("the state is damaged: take an older one"));
        }
        Ok(LoaderState { epoch: saved.epoch, done: saved.done, batches: saved.batches, ..now })
    }
}
