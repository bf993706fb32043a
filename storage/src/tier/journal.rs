//! Writes what changed on L2 to the catalog, in batches and off the hot path.
//!
//! One row per segment, and for each batch one row per segment that says which blocks came and went, 8 bytes each: a
//! 100 GB L2 is some ten megabytes to read at start, in thousands of rows and not in millions. A crash loses at most the
//! last batch: the blocks it named are read from L3 again. What the catalog says of a block is never trusted: its bytes
//! are authenticated when they are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::place::{Place, SegmentRecord, UNIT};
use crate::catalog::{Batch, CatalogStore, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FileId;
use crate::host::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use crate::host::{JoinHandle, spawn};

/// A batch is committed when it has this many changes ...
const BATCH_CHANGES: usize = 4096;
/// ... or when its first change has waited this long.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Changes that may wait while a commit is on its way to disk.
const QUEUE: usize = 1 << 16;

/// One change of L2.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// A segment is there.
    NewSegment(u32, SegmentRecord),
    /// A segment is gone, and all its blocks.
    LostSegment(u32),
    /// A block is there, or is not there any more.
    Block { file: FileId, block: u32, place: Place, present: bool },
}

/// The key of a segment's `chunk`-th row of blocks: rows of a segment are neighbours, in the order they were written.
pub(super) fn chunk_key(segment: u32, chunk: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&segment.to_be_bytes());
    key[4..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The segment and chunk of [`chunk_key`].
pub(super) fn chunk_of(key: &[u8]) -> Option<(u32, u32)> {
    let (segment, chunk) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*segment), u32::from_be_bytes(chunk.try_into().ok()?)))
}

/// One block in a row: its number, and its offset and length in units of 4096. Length zero says that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) file: FileId,
    pub(super) block: u32,
    pub(super) offset_units: u16,
    pub(super) len_units: u16,
}

/// Blocks as runs of one file: the id, how many, then 8 bytes for each.
pub(super) fn encode_chunk(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * 8 + 20);
    for run in entries.chunk_by(|a, b| a.file == b.file) {
        bytes.extend_from_slice(&run[0].file.0);
        bytes.extend_from_slice(&u32::try_from(run.len()).expect("a batch is small").to_le_bytes());
        for entry in run {
            bytes.extend_from_slice(&entry.block.to_le_bytes());
            bytes.extend_from_slice(&entry.offset_units.to_le_bytes());
            bytes.extend_from_slice(&entry.len_units.to_le_bytes());
        }
    }
    bytes
}

/// Visits the entries of a row; a row that is cut short ends early.
pub(super) fn decode_chunk(mut bytes: &[u8], mut visit: impl FnMut(Entry)) {
    while let Some((head, rest)) = bytes.split_first_chunk::<20>() {
        let file = FileId(head[..16].try_into().expect("16 bytes"));
        let count = u32::from_le_bytes(head[16..].try_into().expect("4 bytes"));
        let run = rest.chunks_exact(8).take(crate::units::to_usize(u64::from(count)));
        let used = run.len() * 8;
        for entry in run {
            let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            let block = u32::from_le_bytes(entry[..4].try_into().expect("4 bytes"));
            visit(Entry { file, block, offset_units: half(4), len_units: half(6) });
        }
        bytes = &rest[used..];
    }
}

/// The handle to the journal's thread.
#[derive(Debug)]
pub(super) struct Journal {
    // None once closed.
    changes: Mutex<Option<Sender<Change>>>,
    thread: Mutex<Option<JoinHandle>>,
}

impl Journal {
    /// Starts the thread; `chunks` has the number of the next row of each segment that has some.
    pub(super) fn start(catalog: Arc<dyn CatalogStore>, chunks: HashMap<u32, u32>) -> Result<Self> {
        let (changes, queue) = bounded(QUEUE);
        let mut writer = Writer { chunks, ..Writer::default() };
        let thread = spawn("tier-journal", move || run(&*catalog, &queue, &mut writer))
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no journal thread: {error}")))?;
        Ok(Self { changes: Mutex::new(Some(changes)), thread: Mutex::new(Some(thread)) })
    }

    /// Queues a change; never waits. A change that finds the queue full is forgotten, which costs a read from L3 after
    /// the next restart.
    pub(super) fn note(&self, change: Change) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(TrySendError::Full(_))) = changes.as_ref().map(|changes| changes.try_send(change)) {
            tracing::debug!("the catalog lags behind: a block will be cold after a restart");
        }
    }

    /// Queues a change, waiting for room.
    #[cfg(test)]
    pub(super) fn note_surely(&self, change: Change) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.as_ref().expect("open").send(change).expect("the thread runs");
    }

    /// Commits what is queued and ends the thread.
    pub(super) fn close(&self) {
        drop(self.changes.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal thread panicked");
        }
    }
}

#[derive(Default)]
struct Writer {
    // The next row of each segment.
    chunks: HashMap<u32, u32>,
    batch: Batch,
    blocks: BTreeMap<u32, Vec<Entry>>,
    changes: usize,
}

impl Writer {
    fn take(&mut self, change: Change) {
        self.changes += 1;
        match change {
            Change::NewSegment(number, record) => {
                self.batch.put(Table::Segments, &number.to_be_bytes(), &record.encode());
            }
            Change::LostSegment(number) => {
                self.blocks.remove(&number);
                for chunk in 0..self.chunks.remove(&number).unwrap_or(0) {
                    self.batch.delete(Table::Blocks, &chunk_key(number, chunk));
                }
                self.batch.delete(Table::Segments, &number.to_be_bytes());
            }
            Change::Block { file, block, place, present } => {
                let units = |bytes: u64| u16::try_from(bytes / UNIT).expect("within a segment");
                let len_units = if present { units(place.len()) } else { 0 };
                let entry = Entry { file, block, offset_units: units(place.offset()), len_units };
                self.blocks.entry(place.segment()).or_default().push(entry);
            }
        }
    }

    fn commit(&mut self, catalog: &dyn CatalogStore) {
        for (segment, entries) in std::mem::take(&mut self.blocks) {
            let chunk = self.chunks.entry(segment).or_default();
            self.batch.put(Table::Blocks, &chunk_key(segment, *chunk), &encode_chunk(&entries));
            *chunk += 1;
        }
        self.changes = 0;
        if let Err(error) = catalog.apply(&std::mem::take(&mut self.batch)) {
            tracing::warn!(%error, "the L2 catalog was not written: its blocks will be cold after a restart");
        }
    }
}

fn run(catalog: &dyn CatalogStore, queue: &Receiver<Change>, writer: &mut Writer) {
    loop {
        // With an empty batch there is nothing to be late for: sleep until something happens.
        let next = if writer.changes == 0 {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(BATCH_AGE)
        };
        let closed = matches!(next, Err(RecvTimeoutError::Disconnected));
        let late = next.is_err();
        if let Ok(change) = next {
            writer.take(change);
        }
        if writer.changes > 0 && (late || writer.changes >= BATCH_CHANGES) {
            writer.commit(catalog);
        }
        if closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_written_and_cut_rows_end_early() {
        let entry = |file: u8, block: u32| Entry {
            file: FileId([file; 16]),
            block,
            offset_units: u16::MAX,
            len_units: 4096,
        };
        let entries: Vec<Entry> =
            (0..50).map(|block| entry(u8::try_from(block / 20).unwrap(), block)).collect();
        let encoded = encode_chunk(&entries);
        let decode = |bytes: &[u8]| {
            let mut decoded = Vec::new();
            decode_chunk(bytes, |entry| decoded.push(entry));
            decoded
        };
        assert_eq!(decode(&encoded), entries);
        for cut in 0..encoded.len() {
            assert!(entries.starts_with(&decode(&encoded[..cut])), "cut at {cut}");
        }
        assert_eq!(chunk_of(&chunk_key(7, u32::MAX)), Some((7, u32::MAX)));
        assert_eq!(chunk_of(&[0; 20]), None);
    }
}
