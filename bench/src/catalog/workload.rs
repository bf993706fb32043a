//! The objects of the catalog benchmark: block keys and places as `storage::tier` writes them.

use tierstream_loader::Permutation;
use tierstream_storage::catalog::{Batch, Table};

use crate::random::Random;

/// Changes of a full batch of the L2 journal (`storage::tier::journal`).
pub(super) const BATCH_CHANGES: usize = 1024;
/// Segment, offset and length in 32 bits each (`storage::tier::nvme`).
pub(super) const VALUE_BYTES: usize = 12;
/// A 16-byte file id and a 32-bit block number, big endian.
const KEY_BYTES: usize = 20;
/// Blocks of a shard of 256 MiB in blocks of 64 KiB.
const BLOCKS_PER_FILE: u64 = 4096;
/// Blocks of a segment, for values that look like places.
const BLOCKS_PER_SEGMENT: u64 = 4096;

/// A number of objects and their order.
#[derive(Debug)]
pub(super) struct Objects {
    count: u64,
    // A shuffled epoch reads, and so admits, blocks of all files in turn.
    order: Permutation,
}

impl Objects {
    pub(super) fn new(count: u64) -> Self {
        Self { count, order: Permutation::new(count, 1, 0) }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The key of object `number`.
    pub(super) fn key(&self, number: u64) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        Random::new(number / BLOCKS_PER_FILE).fill(&mut key[..16]);
        let block = u32::try_from(number % BLOCKS_PER_FILE).expect("a block number below 4096");
        key[16..].copy_from_slice(&block.to_be_bytes());
        key
    }

    /// The place of the block that is admitted as number `position`.
    fn value(position: u64) -> [u8; VALUE_BYTES] {
        let field = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut value = [0; VALUE_BYTES];
        value[..4].copy_from_slice(&field(position / BLOCKS_PER_SEGMENT));
        value[4..8].copy_from_slice(&field(position % BLOCKS_PER_SEGMENT * 17));
        value[8..].copy_from_slice(&field(17));
        value
    }

    /// Batches that put all objects, each once.
    pub(super) fn batches(&self) -> impl Iterator<Item = Batch> {
        (0..self.count).step_by(BATCH_CHANGES).map(|first| {
            let mut batch = Batch::default();
            for position in (first..self.count).take(BATCH_CHANGES) {
                batch.put(Table::Blocks, &self.key(self.order.get(position)), &Self::value(position));
            }
            batch
        })
    }

    /// A full batch that puts new values to random objects.
    pub(super) fn replacing(&self, random: &mut Random) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..BATCH_CHANGES {
            let number = random.below(self.count);
            batch.put(Table::Blocks, &self.key(number), &Self::value(number));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_object_once() {
        let objects = Objects::new(10_000);
        let sizes: Vec<usize> = objects.batches().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [&[1024; 9][..], &[784]].concat());
        let keys: std::collections::BTreeSet<_> = (0..10_000).map(|number| objects.key(number)).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
