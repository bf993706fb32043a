//! Which block lies where on L2: 16 bytes per block in open-addressed tables, 20 to 25 with their empty cells.
//!
//! Sharded, so that readers rarely meet and growing one shard stops nobody for long: a 100 GB L2 of 64 KiB blocks has
//! 1.6 million entries, and a shard grows by a quarter of a sixty-fourth of them at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::BlockKey;
use super::place::Place;
use super::table::may_move;
use crate::units::{to_u64, to_usize};

const SHARD_BITS: u32 = 6;
const CELLS_MIN: usize = 8;

/// A concurrent map from blocks to places.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    key: u64,
    // Zero in an empty cell.
    place: u64,
}

#[derive(Debug, Default)]
struct Shard {
    cells: Box<[Cell]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect() }
    }
}

/// Spreads a key over 64 bits (the finaliser of `SplitMix64`).
pub(super) fn spread(key: BlockKey) -> u64 {
    let mut mixed = key.tag().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Maps a hash to one of `cells` cells, evenly and in the order of hashes.
pub(super) fn home(hash: u64, cells: usize) -> usize {
    let scaled = (u128::from(hash) * u128::from(to_u64(cells))) >> 64;
    to_usize(u64::try_from(scaled).expect("below the number of cells"))
}

impl Index {
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let number = to_usize(hash >> (64 - SHARD_BITS));
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: BlockKey) -> Option<Place> {
        let hash = spread(key);
        let shard = self.shard(hash);
        let cell = shard.find(key.tag(), hash)?;
        Place::unpack(shard.cells[cell].place)
    }

    /// Sets the place of `key`; returns the one before.
    pub(super) fn insert(&self, key: BlockKey, place: Place) -> Option<Place> {
        let hash = spread(key);
        self.shard(hash).insert(key.tag(), hash, place.packed())
    }

    /// Removes `key` if it lies at `place`.
    pub(super) fn remove(&self, key: BlockKey, place: Place) -> bool {
        let hash = spread(key);
        let mut shard = self.shard(hash);
        match shard.find(key.tag(), hash) {
            Some(cell) if shard.cells[cell].place == place.packed() => {
                shard.remove(cell);
                true
            }
            _ => false,
        }
    }

    /// Removes all blocks that lie where `gone` says; returns how many.
    pub(super) fn remove_all(&self, gone: impl Fn(Place) -> bool) -> usize {
        let mut removed = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut cell = 0;
            // What is removed is replaced by a later entry, which is then looked at in its turn.
            while cell < shard.cells.len() {
                match Place::unpack(shard.cells[cell].place) {
                    Some(place) if gone(place) => {
                        shard.remove(cell);
                        removed += 1;
                    }
                    _ => cell += 1,
                }
            }
        }
        removed
    }

    /// Visits every block, shard by shard.
    pub(super) fn for_each(&self, mut visit: impl FnMut(BlockKey, Place)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for cell in &shard.cells {
                if let Some(place) = Place::unpack(cell.place) {
                    visit(BlockKey::of_tag(cell.key), place);
                }
            }
        }
    }

    /// Memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        let cells = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).cells.len();
        self.shards.iter().map(cells).sum::<usize>() * size_of::<Cell>()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len).sum()
    }
}

impl Shard {
    fn home(&self, hash: u64) -> usize {
        home(hash << SHARD_BITS, self.cells.len())
    }

    fn next(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    fn find(&self, tag: u64, hash: u64) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let mut cell = self.home(hash);
        while self.cells[cell].place != 0 {
            if self.cells[cell].key == tag {
                return Some(cell);
            }
            cell = self.next(cell);
        }
        None
    }

    fn insert(&mut self, tag: u64, hash: u64, place: u64) -> Option<Place> {
        if let Some(cell) = self.find(tag, hash) {
            return Place::unpack(std::mem::replace(&mut self.cells[cell].place, place));
        }
        // At most four cells in five are taken: a miss looks at a dozen cells, which are neighbours.
        if (self.len + 1) * 5 > self.cells.len() * 4 {
            self.grow();
        }
        self.put(Cell { key: tag, place }, hash);
        self.len += 1;
        None
    }

    fn put(&mut self, entry: Cell, hash: u64) {
        let mut cell = self.home(hash);
        while self.cells[cell].place != 0 {
            cell = self.next(cell);
        }
        self.cells[cell] = entry;
    }

    /// A quarter more cells: growth by doubling would leave half of them empty.
    fn grow(&mut self) {
        let cells = (self.cells.len() + self.cells.len() / 4 + 1).max(CELLS_MIN);
        let old = std::mem::replace(&mut self.cells, vec![Cell::default(); cells].into());
        for entry in old.into_iter().filter(|entry| entry.place != 0) {
            self.put(entry, spread(BlockKey::of_tag(entry.key)));
        }
    }

    /// Empties a cell and moves back those behind it that it kept from their home.
    fn remove(&mut self, cell: usize) {
        self.len -= 1;
        let mut hole = cell;
        let mut looked_at = self.next(hole);
        while self.cells[looked_at].place != 0 {
            let home = self.home(spread(BlockKey::of_tag(self.cells[looked_at].key)));
            if may_move(hole, home, looked_at) {
                self.cells[hole] = self.cells[looked_at];
                hole = looked_at;
            }
            looked_at = self.next(looked_at);
        }
        self.cells[hole] = Cell::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::{Random, announce_seed};

    fn key(number: u64) -> BlockKey {
        BlockKey::of_tag(number)
    }

    fn place(number: u64) -> Place {
        Place::new(u32::try_from(number % 500).unwrap(), number % 1000 * 4096, 4096)
    }

    #[test]
    fn it_agrees_with_a_map_under_random_changes() {
        for seed in 0..30 {
            announce_seed("index", seed);
            let mut random = Random::new(seed);
            let (index, mut model) = (Index::default(), HashMap::new());
            for _ in 0..20_000 {
                let (key, place) = (key(random.below(3000) << (seed % 3 * 16)), place(random.next_u64()));
                match random.below(5) {
                    0 | 1 => assert_eq!(index.insert(key, place), model.insert(key, place)),
                    2 => assert_eq!(index.get(key), model.get(&key).copied()),
                    3 => {
                        let there = model.get(&key).copied().unwrap_or(place);
                        assert_eq!(index.remove(key, there), model.remove(&key).is_some());
                    }
                    _ if random.one_in(200) => {
                        let segment = place.segment();
                        let before = model.len();
                        model.retain(|_, place| place.segment() != segment);
                        let removed = index.remove_all(|place| place.segment() == segment);
                        assert_eq!(removed, before - model.len());
                    }
                    _ => assert!(!index.remove(key, Place::new(501, 0, 4096))),
                }
            }
            let mut seen = 0;
            index.for_each(|key, place| {
                assert_eq!(model.get(&key), Some(&place));
                seen += 1;
            });
            assert_eq!((seen, index.len()), (model.len(), model.len()));
        }
    }
}
