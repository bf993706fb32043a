//! A thread per announced plan that keeps its window filled.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tierstream_storage::format::capacity;
use tierstream_storage::store::Urgency;
use tierstream_storage::tier::Ticket;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeSource, Result, Store};

use crate::budget::Budget;
use crate::plan::Plan;
use crate::prediction::{self, Prediction};
use crate::stats::{Counters, PrefetchStats};
use crate::window::{Fetched, Stop, Window};

/// Share of L1 that may be held ahead of need: the rest serves reads that nobody announced, and what is read again.
const L1_SHARE_PERCENT: u64 = 50;
/// The window begins at this part of the budget, and doubles whenever a block came too late.
const FIRST_WINDOW_PART: u64 = 8;
/// Buffers come free as reads complete, which the store does not announce: look again this soon.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// Keeps the blocks that jobs announced in L1 ahead of their need.
#[derive(Clone, Debug)]
pub struct Prefetcher {
    store: Store,
    slot_bytes: u64,
    budget: Budget,
    counters: Arc<Counters>,
}

impl Prefetcher {
    /// A prefetcher for `store`, with half of its L1 as budget.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        let slot_bytes = store.l1_block_bytes();
        let blocks = u64::try_from(store.l1_blocks()).unwrap_or(u64::MAX);
        let budget = Budget::new(blocks * L1_SHARE_PERCENT / 100 * slot_bytes);
        Self { store: store.clone(), slot_bytes, budget, counters: Arc::default() }
    }

    /// Begins to fetch what `plan` says the job will read of `set`.
    ///
    /// # Errors
    /// `Misuse` when the store does not have the data set open, `Full` without a thread.
    pub fn announce(&self, set: &DataSetInfo, plan: Plan) -> Result<Announcement> {
        let window = Window::new(plan, self.store.files(set)?, capacity(set.block_bytes), self.slot_bytes);
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            store: self.store.clone(),
            budget: self.budget.clone(),
            counters: Arc::clone(&self.counters),
            shared: Arc::clone(&shared),
            window,
            window_bytes: (self.budget.total() / FIRST_WINDOW_PART).max(self.slot_bytes),
            late_before: self.store.metrics().demand_waits,
        };
        let thread = std::thread::Builder::new()
            .name("tier-prefetch".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no prefetch thread: {error}")))?;
        Ok(Announcement { shared, thread: Some(thread) })
    }

    /// Begins to watch what is read, and to fetch what is likely to be read next, as long as the answer lives.
    ///
    /// # Errors
    /// `Full` without a thread.
    pub fn predict(&self) -> Result<Prediction> {
        prediction::start(&self.store, &self.budget, &self.counters)
    }

    /// What it did so far, over all plans.
    #[must_use]
    pub fn stats(&self) -> PrefetchStats {
        self.counters.snapshot(self.budget.total())
    }
}

#[derive(Debug, Default)]
struct Shared {
    consumed: AtomicU64,
    stop: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Shared {
    fn notify(&self) {
        // Taking the lock orders this after the worker's last look.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

/// A plan at work. Dropping it ends the plan.
pub struct Announcement {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announcement({} reads made)", self.shared.consumed.load(Ordering::Relaxed))
    }
}

impl Announcement {
    /// Tells that the job has made the first `reads` reads of its plan.
    pub fn progress(&self, reads: u64) {
        self.shared.consumed.store(reads, Ordering::Release);
        self.shared.notify();
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.notify();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a prefetch thread panicked");
        }
    }
}

struct Worker {
    store: Store,
    budget: Budget,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    window: Window<Ticket>,
    window_bytes: u64,
    late_before: u64,
}

impl Worker {
    fn run(mut self) {
        let mut counted = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            let consumed = self.shared.consumed.load(Ordering::Acquire);
            self.counters.consumed_reads.fetch_add(consumed.saturating_sub(counted), Ordering::Relaxed);
            counted = consumed;
            self.grow_if_late();
            self.window.release(consumed);
            let (store, counters) = (&self.store, &self.counters);
            let stop = self.window.extend(consumed, self.window_bytes, &self.budget, |key, position| {
                match store.fetch(key, Urgency::announced(position)) {
                    Ok(Some(ticket)) => {
                        counters.announced_blocks.fetch_add(1, Ordering::Relaxed);
                        Fetched::Coming(ticket)
                    }
                    Ok(None) => Fetched::NoRoom,
                    Err(error) => {
                        // The job meets the same error when it reads, and can tell its user.
                        tracing::debug!(%error, "a block cannot be fetched ahead of need");
                        Fetched::Absent
                    }
                }
            });
            let guard = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let nothing_new = |_: &mut ()| {
                self.shared.consumed.load(Ordering::Acquire) == consumed
                    && !self.shared.stop.load(Ordering::Acquire)
            };
            match stop {
                Stop::NoRoom => drop(self.shared.changed.wait_timeout_while(guard, LOOK_AGAIN, nothing_new)),
                Stop::Full | Stop::End => drop(self.shared.changed.wait_while(guard, nothing_new)),
            }
        }
    }

    /// A demand that had to wait means that the window was too short for the devices' latency.
    fn grow_if_late(&mut self) {
        let late = self.store.metrics().demand_waits;
        if late > self.late_before {
            self.counters.late_blocks.fetch_add(late - self.late_before, Ordering::Relaxed);
            self.late_before = late;
            self.window_bytes = (self.window_bytes * 2).min(self.budget.total());
        }
        self.counters.window_bytes.store(self.window_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
