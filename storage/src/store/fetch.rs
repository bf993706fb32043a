//! Several blocks at once: what lies side by side on a device becomes one read.
//!
//! A read of 1 MiB costs an NVMe and the CPU a fraction of sixteen reads of 64 KiB, and one hand-over between threads
//! instead of sixteen. Blocks of one call are sorted by where they lie, since codec threads wrote them to L2 in whatever
//! order they had them ready.

use std::ops::Range;
use std::sync::Arc;

use super::core::{Core, DEMAND_RESERVE, Urgency, l1_full};
use super::load::{Load, Run, Source};
use crate::buf::Slot;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Priority;
use crate::tier::{BlockKey, FileNo, Lookup, Ticket};
use crate::units::to_usize;

/// Bytes of one call at most, but for one block that is longer.
pub const RUN_BYTES: u32 = 1 << 20;
const RUN_BLOCKS_MAX: usize = 64;

impl Core {
    /// Blocks of one call at most.
    pub(super) fn run_blocks(&self) -> usize {
        to_usize(u64::from(RUN_BYTES / self.config.block_bytes)).clamp(1, RUN_BLOCKS_MAX)
    }

    /// See [`Store::fetch_run`](super::Store::fetch_run); hands each ticket to `take`, with the block's number.
    pub(super) fn fetch_run(
        self: &Arc<Self>,
        number: FileNo,
        blocks: Range<u32>,
        urgency: Urgency,
        mut take: impl FnMut(u32, Ticket),
    ) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let demand = urgency.priority == Priority::Demand;
        let file = self.shard(number)?;
        if u64::from(blocks.end) > file.header().block_count() {
            let why = format!("data block {} of {}", blocks.end - 1, file.header().block_count());
            return Err(Error::new(ErrorKind::Misuse, "read", why).at(file.path()));
        }
        let mut blocks = blocks;
        // What is here, or on its way, needs no buffer.
        while let Some(ticket) = self.l1.get(BlockKey { file: number, block: blocks.start }) {
            if demand && ticket.try_get().is_none() {
                self.raise(ticket.key());
            }
            take(blocks.start, ticket);
            blocks.start += 1;
            if blocks.is_empty() {
                return Ok(());
            }
        }
        let Some(mut buf) = self.run_buffer(blocks.len(), demand)? else { return Ok(()) };
        let room = blocks.len().min(buf.slots().len());
        let mut loads: Vec<(Load, Source)> = Vec::with_capacity(room);
        for (done, block) in blocks.take(room).enumerate() {
            let key = BlockKey { file: number, block };
            // Only the first may wait for room: who waits for the others first lets go of what it has.
            let len = file.plain_bytes(u64::from(block));
            let looked = match done {
                0 => self.l1_room(key, len, demand)?,
                _ => Some(self.l1.get_or_load_of(key, len)),
            };
            match looked {
                None => break,
                Some(Lookup::Full) if done == 0 => return Err(l1_full(self.l1.slots())),
                Some(Lookup::Full) => break,
                Some(Lookup::Found(ticket)) => {
                    if demand && ticket.try_get().is_none() {
                        self.raise(key);
                    }
                    take(block, ticket);
                }
                Some(Lookup::Load(flight, slot)) => {
                    take(block, Ticket::pending(key, Arc::clone(&flight)));
                    let order = (urgency.priority, urgency.deadline);
                    loads.extend(Load::new(self, key, Arc::clone(&file), (flight, slot), order).locate());
                }
            }
        }
        start(loads, &mut buf);
        Ok(())
    }

    /// A buffer for `count` blocks, or for as many as there is room for; a demand waits for room for one.
    fn run_buffer(&self, count: usize, demand: bool) -> Result<Option<Slot>> {
        let reserve = if demand { 0 } else { DEMAND_RESERVE };
        let mut count = count.min(self.run_blocks());
        while count > 0 {
            if let Some(buf) = self.io_arena.try_take_run(count, reserve) {
                return Ok(Some(buf));
            }
            count /= 2;
        }
        if demand { self.io_arena.take(self.config.patience).map(Some) } else { Ok(None) }
    }
}

/// Reads `loads` into parts of `buf`, which has room for all.
fn start(mut loads: Vec<(Load, Source)>, buf: &mut Slot) {
    loads.sort_unstable_by_key(|(_, from)| from.place());
    let mut run: Option<Run> = None;
    for (load, from) in loads {
        let next = match &mut run {
            Some(run) => run.extend(load, from),
            None => Some((load, from)),
        };
        if let Some((load, from)) = next {
            let before = run.replace(Run::new(load, from));
            if let Some(before) = before {
                before.start(buf);
            }
        }
    }
    if let Some(run) = run {
        run.start(buf);
    }
}

#[cfg(test)]
mod tests;
