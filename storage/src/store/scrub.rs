//! Walks L2 and L3, authenticates what is there, and heals L2 from L3.
//!
//! Every block of L2 is read as a reader would get it. One that is damaged or unreadable is forgotten, read from L3,
//! authenticated there and written to L2 again. What L3 cannot give is reported with shard, block and offset: that is
//! damage that only the data set's source can repair. Runs below all other work, at a rate that the caller sets.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::core::{Core, Store};
use super::data_set::Seen;
use super::error_list::ErrorList;
use super::sealed_file::SealedFile;
use super::verify::{VerifyProgress, VerifyReport, check};
use crate::buf::Slot;
use crate::catalog::{CatalogStore, Table};
use crate::codec::Scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, FileId};
use crate::home::read_at;
use crate::io::{Lane, Op, Priority};
use crate::tier::{BlockKey, L2Block, NvmeTier};
use crate::units::to_u64;

/// What a scrub of L2 found and did.
#[derive(Debug, Default)]
pub struct L2Scrub {
    /// Blocks looked at.
    pub blocks: u64,
    /// Of those, damaged or unreadable.
    pub damaged: u64,
    /// Of those, read from L3 and written to L2 again.
    pub healed: u64,
    /// Of those, whole on L3 and not written to L2 again, which had no room or whose device fails.
    pub dropped: u64,
    /// Blocks of data sets that are not open in this store: without their keys nothing can be said.
    pub unchecked: u64,
    /// Damage on L3 that was met while healing, at most a hundred entries.
    pub errors: Vec<Error>,
    /// How much of that there was in all.
    pub error_count: u64,
}

/// A data set that a catalog has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDataSet {
    /// Its id.
    pub id: FileId,
    /// The highest generation seen.
    pub generation: u64,
    /// Where it was when it was last opened.
    pub location: PathBuf,
}

/// The data sets that a catalog has seen, by id.
///
/// # Errors
/// As the catalog.
pub fn known_data_sets(catalog: &dyn CatalogStore) -> Result<Vec<KnownDataSet>> {
    let mut known = Vec::new();
    catalog.scan(Table::DataSets, &[], None, &mut |key, value| {
        if let (Ok(id), Some((seen, location))) = (key.try_into(), Seen::decode(value)) {
            known.push(KnownDataSet { id: FileId(id), generation: seen.generation, location });
        }
        ControlFlow::Continue(())
    })?;
    Ok(known)
}

#[derive(Debug, Default)]
struct Tally {
    blocks: AtomicU64,
    damaged: AtomicU64,
    healed: AtomicU64,
    dropped: AtomicU64,
    unchecked: AtomicU64,
    errors: ErrorList,
}

impl Store {
    /// Stored bytes and blocks on L2.
    #[must_use]
    pub fn l2_stored(&self) -> (u64, u64) {
        let blocks = self.core().l2.as_ref().map(NvmeTier::all_blocks).unwrap_or_default();
        (blocks.iter().map(|(_, block)| to_u64(block.place.len)).sum(), to_u64(blocks.len()))
    }

    /// Reads and authenticates every block of the data set in the directory `path` on L3, on `threads` threads.
    ///
    /// # Errors
    /// As [`super::verify`].
    pub fn verify(&self, path: &Path, threads: usize, progress: &VerifyProgress) -> Result<VerifyReport> {
        let mut reader = self.core().reader();
        reader.priority = Priority::Background;
        check(&reader, &*self.core().keys, path, threads, progress)
    }

    /// Reads and authenticates every block of L2 that belongs to a data set this store has open, on `threads` threads,
    /// and heals what is damaged from L3. Damage is reported, not returned as an error.
    ///
    /// # Errors
    /// `Interrupted` when it was stopped, `Full` without memory.
    pub fn scrub_l2(&self, threads: usize, progress: &VerifyProgress) -> Result<L2Scrub> {
        let core = self.core();
        let Some(l2) = &core.l2 else { return Ok(L2Scrub::default()) };
        let blocks = l2.all_blocks();
        let (tally, next) = (Tally::default(), AtomicUsize::new(0));
        let work = || -> Result<()> {
            let mut worker = Worker { core, l2, tally: &tally, scratch: Scratch::new()?, plain: Vec::new() };
            while let Some((key, block)) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                if progress.stop.load(Ordering::Relaxed) {
                    break;
                }
                worker.scrub(*key, block)?;
                progress.passed(block.place.len);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(64)).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let joined = |worker: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            others.into_iter().map(joined).fold(mine, Result::and)
        })?;
        if progress.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "scrub", "stopped before the end"));
        }
        let (errors, error_count) = tally.errors.into_parts();
        Ok(L2Scrub {
            blocks: tally.blocks.into_inner(),
            damaged: tally.damaged.into_inner(),
            healed: tally.healed.into_inner(),
            dropped: tally.dropped.into_inner(),
            unchecked: tally.unchecked.into_inner(),
            errors,
            error_count,
        })
    }
}

struct Worker<'a> {
    core: &'a Core,
    l2: &'a NvmeTier,
    tally: &'a Tally,
    scratch: Scratch,
    plain: Vec<u8>,
}

impl Worker<'_> {
    /// Looks at one block. Only what ends the whole scrub is an error.
    fn scrub(&mut self, key: BlockKey, block: &L2Block) -> Result<()> {
        let file = match self.core.known_shard(key.file) {
            None => {
                self.tally.unchecked.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(Ok(file)) => file,
            Some(Err(error)) if is_closed(&error) => return Err(error),
            Some(Err(error)) => {
                // The shard itself is damaged or gone: there is nothing to check this block against.
                self.tally.unchecked.fetch_add(1, Ordering::Relaxed);
                self.tally.errors.note(error);
                return Ok(());
            }
        };
        self.tally.blocks.fetch_add(1, Ordering::Relaxed);
        let op = Op::read(
            block.place.file.clone(),
            block.place.offset,
            block.place.len,
            self.core.io_arena.take(self.core.config.patience)?,
        );
        let read = self.read(op, Lane::fast(block.device));
        let Err(error) = read.and_then(|buf| self.open(&file, key, &buf[..block.place.len])) else {
            self.l2.read_succeeded(block.device);
            return Ok(());
        };
        if is_closed(&error) {
            return Err(error);
        }
        let error = error.at_offset(block.place.offset, to_u64(block.place.len)).at(block.place.file.path());
        tracing::warn!(%error, "a block of L2 is damaged: it is read from L3 and written again");
        self.tally.damaged.fetch_add(1, Ordering::Relaxed);
        self.core.metrics.dropped();
        self.l2.forget(key, block, &error);
        self.heal(key, &file)
    }

    fn heal(&mut self, key: BlockKey, file: &SealedFile) -> Result<()> {
        let place = file.place(BlockKind::Data, u64::from(key.block))?;
        let buf = self.core.io_arena.take(self.core.config.patience)?;
        let read = read_at(&*place.file, &self.core.io, (place.offset, place.len), buf, Priority::Background);
        let buf = match read.and_then(|buf| self.open(file, key, &buf[..place.len]).map(|()| buf)) {
            Ok(buf) => buf,
            Err(error) if is_closed(&error) => return Err(error),
            Err(error) => {
                let error = error.at_block("data", u64::from(key.block));
                self.tally.errors.note(error.at_offset(place.offset, to_u64(place.len)).at(file.path()));
                return Ok(());
            }
        };
        let data_set = file.header().params.data_set_id;
        let Some(reservation) = self.l2.admit(key, data_set, place.len) else {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let (to, lane) = (&reservation.place, Lane::fast(reservation.device));
        match self.core.io.run(Op::write(to.file.clone(), to.offset, to.len, buf), lane, Priority::Background)
        {
            Ok(_) => {
                self.l2.commit(&reservation);
                self.core.metrics.admitted(to_u64(place.len));
                self.core.metrics.healed();
                self.tally.healed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.l2.give_up(&reservation, &error);
                self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn read(&self, op: Op, lane: Lane) -> Result<Slot> {
        let op = self.core.io.run(op, lane, Priority::Background)?;
        op.buf.ok_or_else(|| Error::new(ErrorKind::Closed, "read", "the engine broke down"))
    }

    fn open(&mut self, file: &SealedFile, key: BlockKey, stored: &[u8]) -> Result<()> {
        let number = u64::from(key.block);
        self.plain.resize(file.header().block_slot_bytes().max(self.plain.len()), 0);
        let len = file.plain_bytes(number);
        file.codec().open(BlockKind::Data, number, len, stored, &mut self.plain, &mut self.scratch)
    }
}

fn is_closed(error: &Error) -> bool {
    error.kind() == ErrorKind::Closed
}

#[cfg(test)]
mod tests;
