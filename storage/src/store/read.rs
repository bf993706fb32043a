//! Byte ranges out of blocks: what has its blocks in L1 is copied at once, for the rest several are awaited together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::{Core, Urgency, l1_full};
use super::{DataSetInfo, RangeRead, ReadEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::format::capacity;
use crate::metrics::TierName;
use crate::tier::{BlockKey, BlockRef, FileNo, Ticket};
use crate::units::{ByteRange, to_u64, to_usize};

/// Blocks that one call to `read` has asked for at most: twice what a fast lane has in flight, so that its next reads are
/// queued when the first end, whoever the processor runs then. (Some devices complete all that they have at once; then
/// every core opens blocks for a millisecond, and the reader, who would ask for more, is not among them.)
const READ_WINDOW: usize = 128;
/// Reads of several blocks into which that is cut at least, so that devices have work while blocks are opened.
const WINDOW_RUNS: usize = 4;

/// A part of a read: what `block` has of read number `read`.
#[derive(Clone, Copy)]
struct Part {
    read: usize,
    file: FileNo,
    block: u32,
}

/// Parts that wait for their blocks, in order.
type Waiting = VecDeque<(Part, Ticket)>;

impl Core {
    /// Fills `reads` from the shards `files` of `set`.
    pub(super) fn read(
        self: &Arc<Self>,
        set: &DataSetInfo,
        files: &[FileNo],
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let capacity = capacity(set.block_bytes);
        let (window, run_blocks) = self.read_window();
        let mut waiting = Waiting::new();
        // Parts not asked for yet, in adjacent blocks of one file.
        let mut missing: Vec<Part> = Vec::new();
        for read in 0..reads.len() {
            let RangeRead { shard, range, to } = &reads[read];
            check_range(set, *shard, range, to.len())?;
            let (file, range) = (files[*shard], range.clone());
            for number in range.start / capacity..range.end.div_ceil(capacity) {
                let block = u32::try_from(number).expect("fewer than 2^32 blocks in a file");
                let bytes = overlap(number, capacity, &range);
                let key = BlockKey { file, block };
                if let Some(found) = self.view_in_l1(key, bytes) {
                    self.note(ReadEvent::Hit(key));
                    copy(number, &found, capacity, &range, reads[read].to);
                    continue;
                }
                let adjoins = missing.last().zip(missing.first()).is_some_and(|(last, first)| {
                    let next = last.block == block || last.block + 1 == block;
                    last.file == file && next && block - first.block < run_blocks
                });
                self.note(ReadEvent::Miss(key));
                if !adjoins {
                    self.ask(&mut missing, &mut waiting, window, capacity, reads)?;
                }
                missing.push(Part { read, file, block });
            }
        }
        self.ask(&mut missing, &mut waiting, window, capacity, reads)?;
        self.note(ReadEvent::End);
        while !waiting.is_empty() {
            self.finish_one(&mut waiting, capacity, reads)?;
        }
        Ok(())
    }

    /// Says what was read to who predicts, if anybody does.
    fn note(&self, event: ReadEvent) {
        if let Some(log) = self.read_log.get() {
            log.push(event);
        }
    }

    /// Blocks that one reader has in flight at most, and in one read of a device.
    pub(super) fn read_window(&self) -> (usize, u32) {
        let window = READ_WINDOW.min(self.l1.slots() / 4).max(1);
        let run = self.run_blocks().min(window / WINDOW_RUNS).max(1);
        (window, u32::try_from(run).unwrap_or(u32::MAX))
    }

    /// Asks for the blocks of `missing`, and has what it must wait for join `waiting`.
    fn ask(
        self: &Arc<Self>,
        missing: &mut Vec<Part>,
        waiting: &mut Waiting,
        window: usize,
        capacity: u64,
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let mut asked = 0;
        while let (Some(first), Some(last)) = (missing.get(asked).copied(), missing.last()) {
            let blocks = first.block..last.block + 1;
            // Before more is asked for: a range may have more blocks than L1.
            while !waiting.is_empty() && waiting.len() + blocks.len() > window {
                self.finish_one(waiting, capacity, reads)?;
            }
            let before = asked;
            self.fetch_run(first.file, blocks, Urgency::DEMAND, |block, ticket| {
                let here = matches!(ticket.try_get(), Some(Ok(_)));
                while let Some(part) = missing.get(asked).filter(|part| part.block == block) {
                    if here {
                        let bytes = overlap(u64::from(block), capacity, &reads[part.read].range);
                        self.metrics.hit(TierName::L1, bytes);
                    } else {
                        self.metrics.demand_wait();
                    }
                    waiting.push_back((*part, ticket.clone()));
                    asked += 1;
                }
            })?;
            if asked == before {
                return Err(l1_full(self.l1.slots()));
            }
        }
        missing.clear();
        Ok(())
    }

    /// The block, if L1 has it: counted as a hit of `bytes`, and timed once in a while.
    fn view_in_l1(&self, key: BlockKey, bytes: u64) -> Option<BlockRef> {
        let began = self.metrics.times_l1().then(|| self.config.clock.now());
        let block = self.l1.view(key)?;
        if let Some(began) = began {
            self.metrics.took(TierName::L1, self.config.clock.now().saturating_sub(began));
        }
        self.metrics.hit(TierName::L1, bytes);
        Some(block)
    }

    fn finish_one(&self, waiting: &mut Waiting, capacity: u64, reads: &mut [RangeRead<'_>]) -> Result<()> {
        let Some((part, ticket)) = waiting.pop_front() else { return Ok(()) };
        let RangeRead { range, to, .. } = &mut reads[part.read];
        let number = u64::from(part.block);
        let block: BlockRef = match ticket.try_get() {
            // It came while another was waited for.
            Some(block) => block?,
            None => {
                let began = self.config.clock.now();
                let block = self.wait_for(&ticket)?;
                self.metrics.waited(self.config.clock.now().saturating_sub(began));
                block
            }
        };
        copy(number, &block, capacity, range, to);
        Ok(())
    }
}

/// Copies what `block` has of `range` to its place in `to`.
fn copy(block_number: u64, block: &[u8], capacity: u64, range: &ByteRange, to: &mut [u8]) {
    let block_start = block_number * capacity;
    let start = range.start.max(block_start);
    let end = range.end.min(block_start + to_u64(block.len()));
    let from = &block[to_usize(start - block_start)..to_usize(end - block_start)];
    to[to_usize(start - range.start)..to_usize(end - range.start)].copy_from_slice(from);
}

fn overlap(number: u64, capacity: u64, range: &ByteRange) -> u64 {
    range.end.min((number + 1) * capacity) - range.start.max(number * capacity)
}

pub(super) fn check_range(set: &DataSetInfo, shard: usize, range: &ByteRange, len: usize) -> Result<()> {
    let payload = set.shards.get(shard).map_or(0, |shard| shard.payload_bytes);
    if range.start > range.end || range.end > payload || range.end - range.start != to_u64(len) {
        let why = format!("bytes {range:?} of shard {shard}, which has {payload}, into {len}");
        return Err(Error::new(ErrorKind::Misuse, "read", why));
    }
    Ok(())
}
