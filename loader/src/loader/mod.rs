//! The loader: an iterator of batches that threads of its own make ahead of their use.

mod builder;

pub use builder::{LoaderBuilder, Stage};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tierstream_storage::clock::Clock;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::Batch;
use crate::dataset::Dataset;
use crate::pipeline::{Next, Pipeline};
use crate::state::LoaderState;

/// An iterator of batches.
///
/// The order is a function of seed, epoch, rank and world size alone: not of threads, tiers or faults. After an error
/// the iterator ends, but for a timeout, after which it may be asked again.
pub struct Loader {
    pipeline: Arc<Pipeline>,
    threads: Vec<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    state: LoaderState,
    last_wait: Duration,
    stall_warning: Duration,
    timeout: Option<Duration>,
    over: bool,
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
        LoaderBuilder::new(vec![Stage { data_sets: vec![(dataset, 1.0)], samples: None }])
    }

    /// Begins to set up a loader that mixes data sets of one schema by weights, which need not sum to 1. In every 10,000
    /// samples each data set has its exact share; one that is used up begins again, in another order. An epoch has as
    /// many samples as all of them together, unless [`LoaderBuilder::epoch_size`] says otherwise.
    #[must_use]
    pub fn mix(data_sets: Vec<(Dataset, f64)>) -> LoaderBuilder {
        LoaderBuilder::new(vec![Stage { data_sets, samples: None }])
    }

    /// Begins to set up a loader whose mixture changes from stage to stage: a curriculum. The last stage goes on.
    #[must_use]
    pub fn curriculum(stages: Vec<Stage>) -> LoaderBuilder {
        LoaderBuilder::new(stages)
    }

    /// Where the loader stands: after the last batch it gave out. Batches that were made ahead do not count.
    #[must_use]
    pub fn state_dict(&self) -> LoaderState {
        self.state.clone()
    }

    /// Batches that this rank has left of the epoch it is in; 0 when the next one begins another epoch, or none.
    #[must_use]
    pub fn batches_left(&self) -> u64 {
        self.pipeline.share().batches_left(self.state.epoch, self.state.done)
    }

    /// Batches of a whole epoch for this rank.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.pipeline.share().batches_left(0, 0)
    }

    /// Whether the next batch, the end or an error is there to be taken without waiting.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.over || self.pipeline.is_ready()
    }

    /// How long the last call to `next` waited for its batch.
    #[must_use]
    pub fn last_wait(&self) -> Duration {
        self.last_wait
    }

    /// Samples that were left out because they are corrupt, of batches made so far.
    #[must_use]
    pub fn skipped_samples(&self) -> u64 {
        self.pipeline.collate().counts.skipped.load(Ordering::Relaxed)
    }

    /// Sequences that were cut to the length of a row, of batches made so far.
    #[must_use]
    pub fn truncated_samples(&self) -> u64 {
        self.pipeline.collate().counts.truncated.load(Ordering::Relaxed)
    }

    /// Waits for the next batch for at most `patience`. `Retry` when it did not come; it may be asked for again, and
    /// nothing is lost. None when there are no more.
    ///
    /// # Errors
    /// What kept the batch from being made.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Batch>> {
        let began = self.clock.now();
        let mut warn_at = self.stall_warning;
        loop {
            if self.over {
                return Ok(None);
            }
            let waited = self.clock.now().saturating_sub(began);
            let left = patience.saturating_sub(waited);
            match self.pipeline.take(left.min(warn_at.saturating_sub(waited))) {
                Next::Batch(batch, after) => {
                    (self.state.epoch, self.state.done, self.state.batches) = after;
                    return Ok(Some(*batch));
                }
                Next::Skipped(after) => (self.state.epoch, self.state.done, self.state.batches) = after,
                Next::Over => self.over = true,
                Next::Failed(error) => {
                    self.over = true;
                    return Err(error);
                }
                Next::Late => {
                    let waited = self.clock.now().saturating_sub(began);
                    if waited >= patience {
                        let what = self.pipeline.waits_for();
                        let why = format!("timeout after {waited:.1?} while waiting for {what}");
                        let hint =
                            "look at the device of the files named; `tierstream status` shows its latencies";
                        return Err(Error::new(ErrorKind::Retry, "load batch", why).hint(hint));
                    }
                    if waited >= warn_at {
                        let what = self.pipeline.waits_for();
                        tracing::warn!(waited_s = waited.as_secs_f64(), "still waiting for {what}");
                        warn_at = warn_at.saturating_mul(2);
                    }
                }
            }
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let asked = self.clock.now();
        let next = self.next_within(self.timeout.unwrap_or(Duration::MAX));
        self.last_wait = self.clock.now().saturating_sub(asked);
        next.transpose()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.pipeline.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a loader thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
