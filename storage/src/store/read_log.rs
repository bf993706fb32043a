//! What was read, for somebody who predicts from it: a queue of fixed size that readers never wait for. When it is full
//! the newest reads are lost, and counted: prediction suffers, reading does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{Store, Urgency};
use crate::io::Priority;
use crate::tier::BlockKey;

/// Reads that wait to be looked at, at most: some milliseconds of hits at full speed.
const READS_MAX: usize = 1 << 14;

/// One block of a read, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEvent {
    /// L1 had the block.
    Hit(BlockKey),
    /// It did not, or not yet.
    Miss(BlockKey),
    /// All blocks since the last end were asked for at once.
    End,
}

/// See the module.
#[derive(Debug)]
pub struct ReadLog {
    queue: ArrayQueue<ReadEvent>,
    lost: AtomicU64,
}

impl ReadLog {
    pub(super) fn new() -> Self {
        Self { queue: ArrayQueue::new(READS_MAX), lost: AtomicU64::new(0) }
    }

    pub(super) fn push(&self, event: ReadEvent) {
        if self.queue.push(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The oldest that nobody has looked at.
    #[must_use]
    pub fn pop(&self) -> Option<ReadEvent> {
        self.queue.pop()
    }

    /// Reads that nobody will see.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Urgency {
    /// A guess says that it may be needed, the likeliest first: the fetch is refused rather than made to wait.
    #[must_use]
    pub fn predicted(order: u64) -> Self {
        Self { priority: Priority::Predicted, deadline: order }
    }
}

impl Store {
    /// What is read from now on. One log, whoever asks: its events go to whoever takes them first.
    #[must_use]
    pub fn read_log(&self) -> Arc<ReadLog> {
        Arc::clone(self.core().read_log.get_or_init(|| Arc::new(ReadLog::new())))
    }

    /// Whether L1 seems to have a block; nothing is counted as a read.
    #[must_use]
    pub fn has(&self, key: BlockKey) -> bool {
        self.core().l1.has(key)
    }

    /// Tells L1's eviction policy of reads that were hits: readers themselves tell nobody.
    pub fn tell_hits(&self, keys: &[BlockKey]) {
        self.core().l1.tell_hits(keys);
    }
}
