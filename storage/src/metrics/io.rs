//! What the I/O threads count.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::units::to_u64;

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

    /// Adds what one thread counted since it last did.
    pub(crate) fn add(&self, counted: &mut IoCounted) {
        let IoCounted {
            reads,
            read_bytes,
            writes,
            write_bytes,
            buffered,
            merged_reads,
            merged_gap_bytes,
            short,
            retried,
        } = std::mem::take(counted);
        for (counter, value) in [
            (&self.reads, reads),
            (&self.read_bytes, read_bytes),
            (&self.writes, writes),
            (&self.write_bytes, write_bytes),
            (&self.buffered, buffered),
            (&self.merged_reads, merged_reads),
            (&self.merged_gap_bytes, merged_gap_bytes),
            (&self.short, short),
            (&self.retried, retried),
        ] {
            if value > 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
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

/// What one thread has counted and not yet added to the counters that others read: no atomic for each operation.
#[derive(Debug, Default)]
pub(crate) struct IoCounted {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    buffered: u64,
    merged_reads: u64,
    merged_gap_bytes: u64,
    pub(crate) short: u64,
    pub(crate) retried: u64,
}

impl IoCounted {
    /// An operation that was handed to the engine.
    pub(crate) fn started(&mut self, read: bool, bytes: usize, direct: bool) {
        let (ops, total) = if read {
            (&mut self.reads, &mut self.read_bytes)
        } else {
            (&mut self.writes, &mut self.write_bytes)
        };
        *ops += 1;
        *total += to_u64(bytes);
        self.buffered += u64::from(!direct);
    }

    /// A read that serves so many requests, and what lies between them.
    pub(crate) fn merged(&mut self, requests: usize, gap_bytes: usize) {
        self.merged_reads += to_u64(requests - 1);
        self.merged_gap_bytes += to_u64(gap_bytes);
    }
}
