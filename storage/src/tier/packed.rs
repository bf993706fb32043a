//! Where blocks lie that share a frame: which frame, and which bytes of it.
//!
//! Sharded by block; a look-up takes its shard's lock as one of its readers, so that it sees an entry whole. Entries are
//! numbered, found by the same table as frames, and linked to the next of their frame, so that all of one frame leave
//! together. An entry and its cells take 24 and some 8 bytes; tables grow by a quarter, and only when a block comes in.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::BlockKey;
use super::index::spread;
use super::table::FrameTable;
use crate::units::to_usize;

const SHARDS: usize = 8;
/// Entries of a shard at first.
const FIRST_ENTRIES: usize = 16;

/// Bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) frame: u32,
    pub(super) start: u32,
    pub(super) len: u32,
}

/// The next entry of a frame, or none: an entry's number in its shard, and the shard in the low bits, plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link(u32);

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u64,
    part: Part,
    next: Link,
}

#[derive(Debug)]
struct Shard {
    table: FrameTable,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { table: FrameTable::new(0), entries: Vec::new(), free: Vec::new() }
    }
}

impl Shard {
    fn tag_of(&self) -> impl Fn(u32) -> u64 {
        |number| self.entries[to_usize(u64::from(number))].tag
    }

    fn find(&self, tag: u64) -> Option<u32> {
        self.table.find(tag, self.tag_of())
    }

    fn insert(&mut self, entry: Entry) -> u32 {
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[to_usize(u64::from(number))] = entry;
                number
            }
            None => {
                if self.entries.len() == self.entries.capacity() {
                    self.grow();
                }
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^29 parts of frames in a shard")
            }
        };
        self.table.insert(entry.tag, number);
        number
    }

    /// Room for a quarter more. All entries are in use when there is none.
    fn grow(&mut self) {
        self.entries.reserve_exact((self.entries.len() / 4).max(FIRST_ENTRIES));
        self.table = FrameTable::new(self.entries.capacity());
        for (number, entry) in (0..).zip(&self.entries) {
            self.table.insert(entry.tag, number);
        }
    }
}

/// All parts of frames that hold blocks.
#[derive(Debug, Default)]
pub(super) struct PackedIndex {
    shards: [RwLock<Shard>; SHARDS],
    entries: AtomicUsize,
}

impl PackedIndex {
    fn number_of(tag: u64) -> usize {
        // The high bits choose the cell within a shard.
        to_usize(spread(BlockKey::of_tag(tag)) % SHARDS as u64)
    }

    /// Blocks that share frames.
    pub(super) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// What `view` makes of the block's place, which stays its place meanwhile.
    pub(super) fn find<T>(&self, tag: u64, view: impl FnOnce(Part) -> Option<T>) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        let shard = self.shards[Self::number_of(tag)].read().unwrap_or_else(PoisonError::into_inner);
        let number = shard.find(tag)?;
        view(shard.entries[to_usize(u64::from(number))].part)
    }

    /// Enters a block, before the entry `next` of its frame; returns the link to it. Under the tier's lock.
    pub(super) fn insert(&self, tag: u64, part: Part, next: Link) -> Link {
        let shard = Self::number_of(tag);
        let mut of = self.shards[shard].write().unwrap_or_else(PoisonError::into_inner);
        let number = of.insert(Entry { tag, part, next });
        self.entries.fetch_add(1, Ordering::Relaxed);
        let shards = u32::try_from(SHARDS).expect("a few");
        Link(number * shards + u32::try_from(shard).expect("a few") + 1)
    }

    /// Removes the entry `link` and all behind it. Under the tier's lock. Returns how many there were.
    pub(super) fn remove_all(&self, mut link: Link) -> usize {
        let mut removed = 0;
        while let Some(place) = link.0.checked_sub(1) {
            let place = to_usize(u64::from(place));
            let mut of = self.shards[place % SHARDS].write().unwrap_or_else(PoisonError::into_inner);
            let Entry { tag, next, .. } = of.entries[place / SHARDS];
            of.table.remove(tag, of.tag_of());
            of.free.push(u32::try_from(place / SHARDS).expect("it was 32 bits"));
            link = next;
            removed += 1;
        }
        self.entries.fetch_sub(removed, Ordering::Relaxed);
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;

    use super::{Link, PackedIndex, Part};
    use crate::testing::{Random, announce_seed};

    #[test]
    fn it_agrees_with_a_map_while_frames_fill_and_leave() {
        for seed in 0..10 {
            announce_seed("packed index", seed);
            let mut random = Random::new(seed);
            let index = PackedIndex::default();
            let mut model: HashMap<u64, Part> = HashMap::new();
            let mut links: HashMap<u32, Link> = HashMap::new();
            for _ in 0..20_000 {
                let (tag, frame) = (random.below(3000) << 20, u32::try_from(random.below(50)).unwrap());
                assert_eq!(index.find(tag, Some), model.get(&tag).copied(), "seed {seed}");
                if random.one_in(100) {
                    let removed = index.remove_all(links.remove(&frame).unwrap_or_default());
                    let before = model.len();
                    model.retain(|_, part| part.frame != frame);
                    assert_eq!(removed, before - model.len());
                } else if let Entry::Vacant(vacant) = model.entry(tag) {
                    let start = u32::try_from(random.below(1 << 20)).unwrap();
                    let part = Part { frame, start, len: start / 2 };
                    let link = links.entry(frame).or_default();
                    *link = index.insert(tag, part, *link);
                    vacant.insert(part);
                }
                assert_eq!(index.len(), model.len());
            }
        }
    }
}
