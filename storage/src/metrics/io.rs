//! What the I/O threads count.

use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// Which engine moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineName {
    /// One of the tests' own, or none.
    #[default]
    Other,
    /// io_uring(7).
    IoUring,
    /// preadv2(2) on threads.
    Psync,
    /// Copies from a mapping.
    Mmap,
}

impl EngineName {
    const ALL: [(&str, Self); 3] =
        [("io_uring", Self::IoUring), ("psync", Self::Psync), ("mmap", Self::Mmap)];
}

/// Counters of I/O threads, each a relaxed atomic.
#[derive(Debug, Default)]
pub struct IoCounters {
    engine: AtomicU8,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    buffered: AtomicU64,
    merged_reads: AtomicU64,
    merged_gap_bytes: AtomicU64,
    short: AtomicU64,
    retried: AtomicU64,
}

/// The counters of I/O at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoSnapshot {
    /// Which engine runs.
    pub engine: EngineName,
    /// Reads that devices were asked for, a merged one once.
    pub reads: u64,
    /// Bytes they asked for.
    pub read_bytes: u64,
    /// Writes and syncs that devices were asked for.
    pub writes: u64,
    /// Bytes of those writes.
    pub write_bytes: u64,
    /// Of all of them, those that went through the page cache because the file system takes no O_DIRECT.
    pub buffered: u64,
    /// Reads that rode along with another's operation.
    pub merged_reads: u64,
    /// Bytes that were read between merged reads and thrown away.
    pub merged_gap_bytes: u64,
    /// Transfers that ended early and were resumed.
    pub short: u64,
    /// Operations that the system interrupted or put off, and that were tried again.
    pub retried: u64,
}

impl IoCounters {
    pub(crate) fn engine(&self, name: &str) {
        let place = EngineName::ALL.iter().position(|(known, _)| *known == name);
        let code = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0);
        self.engine.store(code, Ordering::Relaxed);
    }

    pub(crate) fn started(&self, read: bool, bytes: usize, direct: bool) {
        let (ops, total) = if read { (&self.reads, &self.read_bytes) } else { (&self.writes, &self.write_bytes) };
        add(ops, 1);
        add(total, bytes);
        if !direct {
            add(&self.buffered, 1);
        }
    }

    pub(crate) fn merged(&self, requests: usize, gap_bytes: usize) {
        add(&self.merged_reads, requests - 1);
        add(&self.merged_gap_bytes, gap_bytes);
    }

    pub(crate) fn short(&self) {
        add(&self.short, 1);
    }

    pub(crate) fn retried(&self) {
        add(&self.retried, 1);
    }

    /// All counters now.
    #[must_use]
    pub fn snapshot(&self) -> IoSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let code = usize::from(self.engine.load(Ordering::Relaxed));
        IoSnapshot {
            engine: code.checked_sub(1).map_or(EngineName::Other, |place| EngineName::ALL[place].1),
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            write_bytes: get(&self.write_bytes),
            buffered: get(&self.buffered),
            merged_reads: get(&self.merged_reads),
            merged_gap_bytes: get(&self.merged_gap_bytes),
            short: get(&self.short),
            retried: get(&self.retried),
        }
    }
}

fn add(counter: &AtomicU64, value: usize) {
    counter.fetch_add(crate::units::to_u64(value), Ordering::Relaxed);
}
