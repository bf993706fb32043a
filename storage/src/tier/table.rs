//! Which frame of L1 holds a block: an open-addressed table of frame numbers that is read without a lock.
//!
//! Changed under the tier's lock alone. A reader that looks while an entry is moved may miss it, and then asks again
//! under the lock; it never finds a wrong one, because the frame itself says which block it holds. Four bytes a cell.

use std::sync::atomic::{AtomicU32, Ordering};

use super::BlockKey;
use super::index::{home, spread};

#[derive(Debug)]
pub(super) struct FrameTable {
    // A frame's number plus one; zero in an empty cell.
    cells: Box<[AtomicU32]>,
}

impl FrameTable {
    /// A table for up to `frames` frames: half as many cells again, so that a search ends soon.
    pub(super) fn new(frames: usize) -> Self {
        Self { cells: (0..frames + frames / 2 + 2).map(|_| AtomicU32::new(0)).collect() }
    }

    fn next(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    fn home(&self, tag: u64) -> usize {
        home(spread(BlockKey::of_tag(tag)), self.cells.len())
    }

    /// The frame of block `tag`, by what `tag_of` says of frames.
    pub(super) fn find(&self, tag: u64, tag_of: impl Fn(u32) -> u64) -> Option<u32> {
        self.cell_of(tag, tag_of).map(|(_, frame)| frame)
    }

    fn cell_of(&self, tag: u64, tag_of: impl Fn(u32) -> u64) -> Option<(usize, u32)> {
        let mut cell = self.home(tag);
        // Bounded: while entries move, a reader may see none of the empty cells.
        for _ in 0..self.cells.len() {
            let frame = self.cells[cell].load(Ordering::Acquire).checked_sub(1)?;
            if tag_of(frame) == tag {
                return Some((cell, frame));
            }
            cell = self.next(cell);
        }
        None
    }

    /// Enters a frame, whose block is `tag` and not there yet. Under the tier's lock.
    pub(super) fn insert(&self, tag: u64, frame: u32) {
        let mut cell = self.home(tag);
        while self.cells[cell].load(Ordering::Relaxed) != 0 {
            cell = self.next(cell);
        }
        self.cells[cell].store(frame + 1, Ordering::Release);
    }

    /// Removes the frame of block `tag`. Under the tier's lock.
    pub(super) fn remove(&self, tag: u64, tag_of: impl Fn(u32) -> u64) {
        let Some((mut hole, _)) = self.cell_of(tag, &tag_of) else { return };
        let mut looked_at = self.next(hole);
        while let Some(frame) = self.cells[looked_at].load(Ordering::Relaxed).checked_sub(1) {
            let home = self.home(tag_of(frame));
            if may_move(hole, home, looked_at) {
                // First it is in both places: a reader finds it in one of them, or looks again under the lock.
                self.cells[hole].store(frame + 1, Ordering::Release);
                hole = looked_at;
            }
            looked_at = self.next(looked_at);
        }
        self.cells[hole].store(0, Ordering::Release);
    }
}

/// Whether an entry at `at`, whose search begins at `home`, is found at `hole` as well, which lies before it on the ring.
pub(super) fn may_move(hole: usize, home: usize, at: usize) -> bool {
    if hole <= at { home <= hole || home > at } else { home <= hole && home > at }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::{Random, announce_seed};
    use crate::units::to_usize;

    #[test]
    fn it_agrees_with_a_map_while_it_is_full_to_the_brim() {
        for seed in 0..20 {
            announce_seed("frame table", seed);
            let mut random = Random::new(seed);
            let frames = to_usize(1 + random.below(60));
            let table = FrameTable::new(frames);
            // What each frame holds; stale for those that hold nothing.
            let mut tags = vec![u64::MAX; frames];
            let mut model: HashMap<u64, u32> = HashMap::new();
            for _ in 0..5000 {
                let tag = random.below(100);
                let tag_of = |frame: u32| tags[to_usize(u64::from(frame))];
                assert_eq!(table.find(tag, tag_of), model.get(&tag).copied());
                if model.remove(&tag).is_some() {
                    table.remove(tag, tag_of);
                } else if let Some(frame) = (0..u32::try_from(frames).unwrap())
                    .find(|frame| !model.values().any(|taken| taken == frame))
                {
                    tags[to_usize(u64::from(frame))] = tag;
                    table.insert(tag, frame);
                    model.insert(tag, frame);
                }
            }
        }
    }
}
