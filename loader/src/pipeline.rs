//! The threads that make batches ahead of their use, and the ring in which the job finds them in order.
//!
//! ```text
//! order ─ ticket 7 ─▶ thread A: locate, read, collate ─┐
//!       └ ticket 8 ─▶ thread B ────────────────────────┴▶ ring [5 made | 6 made | 7 .. | 8 .. ] ─▶ job takes 5, then 6
//! ```
//!
//! A thread takes the next ticket only while the ring has room, so that what is made ahead is bounded. Which thread made
//! a batch changes nothing in it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tierstream_prefetch::{Announcement, Plan, PlannedRead};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::Batch;
use crate::collate::Collate;
use crate::order::{BatchPlan, Share};

/// What became of a ticket.
enum Slot {
    Under(BatchPlan),
    /// None when all samples of the batch were left out.
    Made(Result<Option<Batch>>, BatchPlan),
}

struct Ring {
    plans: Box<dyn Iterator<Item = BatchPlan> + Send>,
    // The first is the one the job takes next.
    slots: VecDeque<Slot>,
    // Number of the first.
    first: u64,
    // Batches before this one are made.
    made: u64,
    // No more tickets: the order is over, or a batch failed.
    over: bool,
    stop: bool,
    // Reads that are made, of each data set, and batches of them that the prefetchers were not told of.
    reads: Vec<u64>,
    untold: u64,
}

impl Ring {
    /// The first batch that is made and not counted as read yet.
    fn next_made(&self) -> Option<BatchPlan> {
        match self.slots.get(to_usize(self.made - self.first)) {
            Some(Slot::Made(_, plan)) => Some(*plan),
            _ => None,
        }
    }
}

/// The ring and who waits for it.
pub(crate) struct Pipeline {
    ring: Mutex<Ring>,
    made: Condvar,
    room: Condvar,
    depth: usize,
    collate: Collate,
    share: Share,
    announcements: Vec<Option<Announcement>>,
}

/// What the job finds.
pub(crate) enum Next {
    /// A batch, and where the loader stands after it.
    Batch(Box<Batch>, (u64, u64, u64)),
    /// The samples of a batch were all left out.
    Skipped((u64, u64, u64)),
    /// The loader ends with this error.
    Failed(Error),
    /// There are no more.
    Over,
    /// Not made within the time given.
    Late,
}

impl Pipeline {
    pub(crate) fn new(
        collate: Collate,
        share: Share,
        announcements: Vec<Option<Announcement>>,
        depth: usize,
    ) -> Arc<Self> {
        let ring = Ring {
            plans: Box::new(share.batches()),
            slots: VecDeque::with_capacity(depth),
            first: 0,
            made: 0,
            over: false,
            stop: false,
            reads: vec![0; announcements.len()],
            untold: 0,
        };
        let (made, room) = (Condvar::new(), Condvar::new());
        Arc::new(Self { ring: Mutex::new(ring), made, room, depth, collate, share, announcements })
    }

    pub(crate) fn collate(&self) -> &Collate {
        &self.collate
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Whether [`Pipeline::take`] would not wait.
    pub(crate) fn is_ready(&self) -> bool {
        let ring = self.lock();
        match ring.slots.front() {
            Some(Slot::Made(..)) => true,
            Some(Slot::Under(_)) => false,
            None => ring.over || ring.stop,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes batches until there are no more or nobody wants them: the body of each thread.
    pub(crate) fn work(&self) {
        let mut cursor = self.share.order.cursor();
        while let Some((ticket, plan)) = self.ticket() {
            let make = AssertUnwindSafe(|| self.collate.batch(plan, &mut cursor));
            let made = catch_unwind(make).unwrap_or_else(|_| {
                // A promise of our own was broken: an epoch cut short must not look like one that is complete.
                let why = "a loader thread panicked";
                Err(Error::new(ErrorKind::Closed, "load batch", why)
                    .hint("its message is on stderr; please report it"))
            });
            self.hand_over(ticket, made, plan);
        }
    }

    fn ticket(&self) -> Option<(u64, BatchPlan)> {
        let mut ring = self.lock();
        loop {
            if ring.stop || ring.over {
                return None;
            }
            if ring.slots.len() < self.depth {
                break;
            }
            ring = self.room.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(plan) = ring.plans.next() else {
            ring.over = true;
            self.made.notify_all();
            self.room.notify_all();
            return None;
        };
        let ticket = ring.first + to_u64(ring.slots.len());
        ring.slots.push_back(Slot::Under(plan));
        Some((ticket, plan))
    }

    fn hand_over(&self, ticket: u64, made: Result<Option<Batch>>, plan: BatchPlan) {
        let mut ring = self.lock();
        // The job takes no batch before this one is there: its slot is.
        let index = to_usize(ticket - ring.first);
        if made.is_err() {
            ring.over = true;
            self.room.notify_all();
        }
        if let Some(slot) = ring.slots.get_mut(index) {
            *slot = Slot::Made(made, plan);
        }
        if index == 0 {
            self.made.notify_one();
        }
        self.tell_progress(ring);
    }

    /// Tells the prefetchers what is copied out of L1: its blocks may go.
    fn tell_progress(&self, mut ring: MutexGuard<'_, Ring>) {
        if self.announcements.iter().all(Option::is_none) {
            return;
        }
        let before = ring.made;
        while let Some(plan) = ring.next_made() {
            if ring.reads.len() == 1 {
                ring.reads[0] += plan.len();
            } else {
                for element in plan.elements(&mut self.share.order.cursor()) {
                    ring.reads[to_usize(u64::from(element.source))] += 1;
                }
            }
            ring.made += 1;
        }
        // Told for several batches at once, unless the job waits: telling wakes a thread.
        ring.untold += ring.made - before;
        if ring.untold == 0 || (ring.untold < to_u64(self.depth / 4) && ring.slots.len() > self.depth / 2) {
            return;
        }
        ring.untold = 0;
        let reads = ring.reads.clone();
        drop(ring);
        for (announcement, reads) in self.announcements.iter().zip(reads) {
            announcement.iter().for_each(|announcement| announcement.progress(reads));
        }
    }

    /// Takes the next batch, or gives up after `patience`.
    pub(crate) fn take(&self, patience: Duration) -> Next {
        let mut ring = self.lock();
        loop {
            match ring.slots.pop_front() {
                Some(Slot::Made(made, plan)) => {
                    ring.first += 1;
                    ring.made = ring.made.max(ring.first);
                    // Threads that wait are woken for several batches at once: a wake costs more than a batch of small
                    // samples, and what is ahead lasts until they are there.
                    let wake = ring.slots.len() <= self.depth * 3 / 4;
                    drop(ring);
                    if wake {
                        self.room.notify_all();
                    }
                    return match made {
                        Ok(Some(batch)) => Next::Batch(Box::new(batch), plan.after()),
                        Ok(None) => Next::Skipped(plan.after()),
                        Err(error) => Next::Failed(error),
                    };
                }
                Some(under) => ring.slots.push_front(under),
                None if ring.over || ring.stop => return Next::Over,
                None => {}
            }
            let waited = self.made.wait_timeout(ring, patience).unwrap_or_else(PoisonError::into_inner);
            ring = waited.0;
            if waited.1.timed_out() && !matches!(ring.slots.front(), Some(Slot::Made(..))) && !ring.over {
                return Next::Late;
            }
        }
    }

    /// What the batch that comes next waits for, for people: its samples and the files they lie in.
    pub(crate) fn waits_for(&self) -> String {
        let plan = match self.lock().slots.front() {
            Some(Slot::Under(plan) | Slot::Made(_, plan)) => *plan,
            None => return "a free loader thread".to_owned(),
        };
        let mut files: Vec<String> = Vec::new();
        for element in plan.elements(&mut self.share.order.cursor()) {
            let at = usize::try_from(element.source).ok();
            let Some(dataset) = at.and_then(|at| self.collate.datasets.get(at)) else { continue };
            // Not its place in the file: the index may be what the device does not give.
            let (shard, _) = dataset.shard_of(element.sample);
            files.push(format!("{}/{}", dataset.info().name, dataset.info().shards[shard].file));
        }
        files.sort_unstable();
        files.dedup();
        let more = files.len().saturating_sub(3);
        files.truncate(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (epoch, number, samples) = (plan.epoch, plan.number, plan.len());
        format!("batch {number} of epoch {epoch}: {samples} samples of {}{more}", files.join(", "))
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.room.notify_all();
    }
}

/// The order of `share` as byte ranges of data set `source`, for the prefetcher. A sample that cannot be located is an
/// empty read here; the pipeline meets the error itself.
pub(crate) fn plan(share: &Share, source: u32, dataset: &crate::Dataset) -> Plan {
    let dataset = dataset.clone();
    let mut cursor = share.order.cursor();
    let elements = share.batches().flat_map(move |batch| batch.elements(&mut cursor).collect::<Vec<_>>());
    Box::new(
        elements.filter(move |element| element.source == source).map(move |element| {
            dataset.locate(element.sample).unwrap_or(PlannedRead { shard: 0, range: 0..0 })
        }),
    )
}
