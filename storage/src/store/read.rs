//! Byte ranges out of blocks: what has its blocks in L1 is copied at once, for the rest several are awaited together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::{Core, Urgency, l1_full};
use super::{DataSetInfo, RangeRead};
use crate::error::{Error, ErrorKind, Result};
use crate::format::capacity;
use crate::metrics::TierName;
use crate::tier::{BlockKey, BlockRef, FileNo, Ticket};
use crate::units::{ByteRange, to_u64, to_usize};

/// Blocks that one call to `read` has in flight at most.
const READ_WINDOW: usize = 32;

impl Core {
    /// Fills `reads` from the shards `files` of `set`.
    pub(super) fn read(
        self: &Arc<Self>,
        set: &DataSetInfo,
        files: &[FileNo],
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let capacity = capacity(set.block_bytes);
        let mut waiting: VecDeque<(usize, u64, Ticket)> = VecDeque::new();
        let window = READ_WINDOW.min(self.l1.slots() / 4).max(1);
        for index in 0..reads.len() {
            let RangeRead { shard, range, to } = &reads[index];
            check_range(set, *shard, range, to.len())?;
            let (file, range) = (files[*shard], range.clone());
            for number in range.start / capacity..range.end.div_ceil(capacity) {
                let block = u32::try_from(number).expect("fewer than 2^32 blocks in a file");
                let key = BlockKey { file, block };
                let bytes = overlap(number, capacity, &range);
                if let Some(block) = self.view_in_l1(key, bytes) {
                    copy(number, &block, capacity, &range, reads[index].to);
                    continue;
                }
                // Before the next one is asked for: a range may have more blocks than L1.
                while waiting.len() > window {
                    self.finish_one(&mut waiting, capacity, reads)?;
                }
                let ticket = self.fetch(key, Urgency::DEMAND)?.ok_or_else(|| l1_full(self.l1.slots()))?;
                match ticket.try_get() {
                    Some(block) => {
                        let block = block?;
                        self.metrics.hit(TierName::L1, bytes);
                        copy(number, &block, capacity, &range, reads[index].to);
                    }
                    None => {
                        self.metrics.demand_wait();
                        waiting.push_back((index, number, ticket));
                    }
                }
            }
        }
        while !waiting.is_empty() {
            self.finish_one(&mut waiting, capacity, reads)?;
        }
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

    fn finish_one(
        &self,
        waiting: &mut VecDeque<(usize, u64, Ticket)>,
        capacity: u64,
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let Some((index, number, ticket)) = waiting.pop_front() else { return Ok(()) };
        let began = self.config.clock.now();
        let block: BlockRef = ticket.wait(self.config.patience)?;
        self.metrics.waited(self.config.clock.now().saturating_sub(began));
        let RangeRead { range, to, .. } = &mut reads[index];
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

fn check_range(set: &DataSetInfo, shard: usize, range: &ByteRange, len: usize) -> Result<()> {
    let payload = set.shards.get(shard).map_or(0, |shard| shard.payload_bytes);
    if range.start > range.end || range.end > payload || range.end - range.start != to_u64(len) {
        let why = format!("bytes {range:?} of shard {shard}, which has {payload}, into {len}");
        return Err(Error::new(ErrorKind::Misuse, "read", why));
    }
    Ok(())
}
