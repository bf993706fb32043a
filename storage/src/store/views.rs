//! A range of a shard as views of its blocks in L1, in order, read ahead: nothing is copied.
//!
//! For who reads more than a sample: a tensor, a shard, a checkpoint. Each view keeps its block in L1 while it lives, so
//! that who keeps many needs an L1 for them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::DataSetInfo;
use super::core::{Core, Store, Urgency, l1_full};
use super::read::check_range;
use crate::error::{Error, ErrorKind, Result};
use crate::format::capacity;
use crate::tier::{BlockRef, FileNo, Ticket};
use crate::units::{ByteRange, to_usize};

/// Bytes of one block, authenticated, in L1.
#[derive(Clone, Debug)]
pub struct View {
    block: BlockRef,
    bytes: Range<usize>,
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.bytes.clone()]
    }
}

/// The views of a range, in order. Reads ahead of who takes them, and no further than L1 lets.
pub struct Views {
    core: Arc<Core>,
    file: FileNo,
    range: ByteRange,
    capacity: u64,
    // Next to be asked for, and the one behind the last.
    blocks: Range<u32>,
    ahead: VecDeque<(u32, Ticket)>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Views({:?}, blocks {:?} to come)", self.range, self.blocks)
    }
}

impl Store {
    /// Bytes `range` of shard `shard` as views of L1.
    ///
    /// # Errors
    /// `Misuse` for a range that the shard does not have, or a data set of another source.
    pub fn views(&self, set: &DataSetInfo, shard: usize, range: ByteRange) -> Result<Views> {
        check_range(set, shard, &range, to_usize(range.end.saturating_sub(range.start)))?;
        let capacity = capacity(set.block_bytes);
        let number = |block: u64| u32::try_from(block).expect("fewer than 2^32 blocks in a file");
        let blocks = if range.is_empty() {
            0..0
        } else {
            number(range.start / capacity)..number(range.end.div_ceil(capacity))
        };
        let (core, file) = (Arc::clone(self.core()), self.files(set)?[shard]);
        Ok(Views { core, file, range, capacity, blocks, ahead: VecDeque::new() })
    }
}

impl Views {
    /// Asks for more while there is room for a read of several blocks.
    fn read_ahead(&mut self) -> Result<()> {
        let (window, run) = self.core.read_window();
        while !self.blocks.is_empty() && self.ahead.len() + to_usize(u64::from(run)) <= window {
            let next = self.blocks.start..self.blocks.end.min(self.blocks.start.saturating_add(run));
            let (ahead, start) = (&mut self.ahead, &mut self.blocks.start);
            let before = *start;
            let asked = self.core.fetch_run(self.file, next, Urgency::DEMAND, |block, ticket| {
                ahead.push_back((block, ticket));
                *start = block + 1;
            });
            match asked {
                // Whoever takes views must let go of some first; what was asked for comes.
                Err(error) if error.kind() == ErrorKind::Full && !self.ahead.is_empty() => break,
                Err(error) => return Err(error),
                Ok(()) if *start == before => return Err(l1_full(self.core.l1.slots())),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<View>> {
        self.read_ahead()?;
        let Some((number, ticket)) = self.ahead.pop_front() else { return Ok(None) };
        let block = self.core.wait_for(&ticket)?;
        let start = u64::from(number) * self.capacity;
        let from = to_usize(self.range.start.saturating_sub(start));
        let to = block.len().min(to_usize(self.range.end - start));
        if from > to {
            let why = format!("block {number} has {} bytes, expected more than {from}", block.len());
            return Err(Error::new(ErrorKind::Corrupt, "read", why));
        }
        Ok(Some(View { block, bytes: from..to }))
    }
}

impl Iterator for Views {
    type Item = Result<View>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.take();
        if taken.is_err() {
            // An error ends it.
            self.blocks.start = self.blocks.end;
            self.ahead.clear();
        }
        taken.transpose()
    }
}
