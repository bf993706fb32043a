//! The loader: wires order, prefetcher and pipeline together, and is an iterator of batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use tierstream_prefetch::{Announcement, Prefetcher};
use tierstream_storage::buf::{HeapAllocator, HostAllocator};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::{Batch, BufferPool};
use crate::dataset::Dataset;
use crate::pipeline::{Made, Order, run};
use crate::sampler::Sampler;
use crate::state::LoaderState;

/// Settings of a loader, in the words of PyTorch's DataLoader and DistributedSampler.
#[derive(Debug)]
pub struct LoaderBuilder {
    dataset: Dataset,
    batch_size: u64,
    shuffle: bool,
    seed: u64,
    rank: u64,
    world_size: u64,
    drop_last: bool,
    num_epochs: u64,
    prefetch_factor: usize,
    prefetcher: Option<Prefetcher>,
    allocator: Arc<dyn HostAllocator>,
    clock: Arc<dyn Clock>,
    state: Option<LoaderState>,
}

impl LoaderBuilder {
    /// Samples per batch. Default 1.
    #[must_use]
    pub fn batch_size(mut self, samples: u64) -> Self {
        self.batch_size = samples;
        self
    }

    /// Whether each epoch has an order of its own, shuffled over the whole data set. Default false.
    #[must_use]
    pub fn shuffle(mut self, shuffle: bool) -> Self {
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

    /// Whether an incomplete batch at the end of an epoch is left out. Default false.
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

    /// Batches made ahead of their use. Default 4.
    #[must_use]
    pub fn prefetch_factor(mut self, batches: usize) -> Self {
        self.prefetch_factor = batches;
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

    /// Goes on where a loader with the same settings stood.
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
        if self.batch_size == 0 {
            return misuse("batch size 0", "use a batch size of 1 or more");
        }
        if self.prefetch_factor == 0 {
            return misuse("prefetch factor 0", "use a prefetch factor of 1 or more");
        }
        if self.dataset.is_empty() {
            return misuse("the data set has no samples", "pack some files first");
        }
        let sampler = Sampler::new(self.dataset.len(), self.shuffle, self.seed, self.rank, self.world_size)?;
        if self.drop_last && sampler.len() < self.batch_size {
            let why = format!("{} samples make no batch of {}", sampler.len(), self.batch_size);
            return misuse(&why, "use a smaller batch size, or keep the last batch");
        }
        let info = self.dataset.info();
        let mut state = LoaderState {
            data_set: info.id.clone(),
            generation: info.generation,
            shuffle: self.shuffle,
            seed: self.seed,
            rank: self.rank,
            world_size: self.world_size,
            epoch: 0,
            position: 0,
        };
        if let Some(saved) = self.state {
            saved.check_same_order(&state)?;
            state = saved;
        }
        let order = Order {
            sampler,
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            num_epochs: self.num_epochs,
            epoch: state.epoch,
            position: state.position,
        };
        let announcement = match &self.prefetcher {
            Some(prefetcher) => Some(prefetcher.announce(info, order.clone().plan(&self.dataset))?),
            None => None,
        };
        start(self.dataset, order, announcement, self.prefetch_factor, self.allocator, self.clock, state)
    }
}

fn start(
    dataset: Dataset,
    order: Order,
    announcement: Option<Announcement>,
    prefetch_factor: usize,
    allocator: Arc<dyn HostAllocator>,
    clock: Arc<dyn Clock>,
    state: LoaderState,
) -> Result<Loader> {
    // The channel's batches, the one in the making, and the one in the user's hands.
    let pool = BufferPool::new(allocator, prefetch_factor + 2);
    let (send, batches) = bounded(prefetch_factor);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("tier-loader".to_owned())
        .spawn(move || run(&dataset, order, &pool, announcement.as_ref(), &stopped, &send))
        .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no loader thread: {error}")))?;
    Ok(Loader { batches: Some(batches), stop, thread: Some(thread), clock, state, last_wait: Duration::ZERO })
}

/// An iterator of batches. Batches are made on a thread of its own, ahead of their use.
///
/// The order is a function of seed, epoch, rank and world size alone: not of threads, tiers or faults. After an error
/// the iterator ends.
pub struct Loader {
    // None only while dropping.
    batches: Option<Receiver<Made>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    state: LoaderState,
    last_wait: Duration,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader({:?})", self.state)
    }
}

impl Loader {
    /// Begins to set up a loader of `dataset`.
    #[must_use]
    pub fn builder(dataset: Dataset) -> LoaderBuilder {
        LoaderBuilder {
            dataset,
            batch_size: 1,
            shuffle: false,
            seed: 0,
            rank: 0,
            world_size: 1,
            drop_last: false,
            num_epochs: 1,
            prefetch_factor: 4,
            prefetcher: None,
            allocator: Arc::new(HeapAllocator),
            clock: Arc::new(SystemClock::new()),
            state: None,
        }
    }

    /// Where the loader stands: after the last batch it gave out. Batches that were made ahead do not count.
    #[must_use]
    pub fn state_dict(&self) -> LoaderState {
        self.state.clone()
    }

    /// How long the last call to `next` waited for its batch.
    #[must_use]
    pub fn last_wait(&self) -> Duration {
        self.last_wait
    }

    /// Why the thread that makes batches ended, when it was not because there were no more: a promise of our own was
    /// broken there, and an epoch cut short must not look like one that is complete.
    fn thread_failed(&mut self) -> Option<Error> {
        self.thread.take()?.join().err().map(|_| {
            Error::new(ErrorKind::Closed, "load batch", "the loader thread panicked")
                .hint("its message is on stderr; please report it")
        })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let asked = self.clock.now();
        let made = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        self.last_wait = self.clock.now().saturating_sub(asked);
        Some(made.or_else(|| self.thread_failed().map(Err))?.map(|(batch, (epoch, position))| {
            (self.state.epoch, self.state.position) = (epoch, position);
            batch
        }))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A pipeline that waits to hand over a batch finds nobody there.
        drop(self.batches.take());
        if let Some(error) = self.thread_failed() {
            tracing::error!(%error);
        }
    }
}

#[cfg(test)]
mod tests;
