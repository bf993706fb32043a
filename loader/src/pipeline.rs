//! The thread that makes batches ahead of their use: order, read, collate, hand over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::Sender;
use tierstream_prefetch::{Announcement, Plan, PlannedRead};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{RangeRead, Result};

use crate::batch::{Batch, BufferPool};
use crate::dataset::Dataset;
use crate::sampler::{EpochOrder, Sampler};

/// Everything that decides which samples come in which batch.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) sampler: Sampler,
    pub(crate) batch_size: u64,
    pub(crate) drop_last: bool,
    pub(crate) num_epochs: u64,
    // Where to begin.
    pub(crate) epoch: u64,
    pub(crate) position: u64,
}

/// The samples of one batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchPlan {
    epoch: u64,
    number: u64,
    order: EpochOrder,
    positions: std::ops::Range<u64>,
}

impl Order {
    /// Positions of an epoch that are delivered.
    fn delivered(&self) -> u64 {
        let all = self.sampler.len();
        if self.drop_last { all - all % self.batch_size } else { all }
    }

    /// The batches, from where to begin to the end of the last epoch. Batches are cut from the position on, so that a
    /// resumed epoch has the batches it would have had.
    pub(crate) fn batches(self) -> impl Iterator<Item = BatchPlan> + Send {
        let (mut epoch, mut position) = (self.epoch, self.position);
        let delivered = self.delivered();
        let mut order = self.sampler.epoch(epoch);
        std::iter::from_fn(move || {
            if delivered == 0 {
                return None;
            }
            if position >= delivered {
                (epoch, position) = (epoch + 1, 0);
                order = self.sampler.epoch(epoch);
            }
            if epoch >= self.num_epochs {
                return None;
            }
            let end = delivered.min(position + self.batch_size);
            let number = position / self.batch_size;
            let batch = BatchPlan { epoch, number, order: order.clone(), positions: position..end };
            position = end;
            Some(batch)
        })
    }

    /// The same order as byte ranges, for the prefetcher. A sample that cannot be located is an empty read here; the
    /// pipeline meets the error itself.
    pub(crate) fn plan(self, dataset: &Dataset) -> Plan {
        let dataset = dataset.clone();
        Box::new(
            self.batches()
                .flat_map(|batch| batch.samples())
                .map(move |sample| dataset.locate(sample).unwrap_or(PlannedRead { shard: 0, range: 0..0 })),
        )
    }
}

impl BatchPlan {
    fn samples(self) -> impl Iterator<Item = u64> + Send {
        self.positions.map(move |position| self.order.sample(position))
    }

    /// Where the loader stands after this batch.
    fn after(&self) -> (u64, u64) {
        (self.epoch, self.positions.end)
    }
}

/// A batch with the position that follows it, or why it could not be made.
pub(crate) type Made = Result<(Batch, (u64, u64))>;

/// Makes batches until the order ends, an error is met, or nobody takes them any more.
pub(crate) fn run(
    dataset: &Dataset,
    order: Order,
    pool: &Arc<BufferPool>,
    announcement: Option<&Announcement>,
    stop: &AtomicBool,
    batches: &Sender<Made>,
) {
    let mut reads = 0;
    for plan in order.batches() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let after = plan.after();
        let made = make(dataset, plan, pool);
        if let (Ok(batch), Some(announcement)) = (&made, announcement) {
            // Its bytes are copied out of L1: the blocks may go.
            reads += to_u64(batch.len());
            announcement.progress(reads);
        }
        let failed = made.is_err();
        if batches.send(made.map(|batch| (batch, after))).is_err() || failed {
            return;
        }
    }
}

fn make(dataset: &Dataset, plan: BatchPlan, pool: &Arc<BufferPool>) -> Result<Batch> {
    let place = (plan.epoch, plan.number);
    let ids: Vec<u64> = plan.samples().collect();
    let located = ids.iter().map(|sample| dataset.locate(*sample)).collect::<Result<Vec<_>>>()?;
    let lens = located.iter().map(|read| to_usize(read.range.end - read.range.start));
    let mut batch = Batch::with_room(pool, dataset.schema(), ids, lens, place)?;
    let mut reads: Vec<RangeRead<'_>> = located
        .into_iter()
        .zip(batch.parts())
        .map(|(PlannedRead { shard, range }, to)| RangeRead { shard, range, to })
        .collect();
    dataset.read(&mut reads)?;
    Ok(batch)
}
