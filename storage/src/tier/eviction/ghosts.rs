//! Blocks that left not long ago, in a fixed table.

use crate::tier::BlockKey;
use crate::tier::index::{home, spread};
use crate::units::to_usize;

/// Blocks that left the small queue not long ago: fingerprints and the moment they left, in buckets of four, of which
/// the oldest makes room. A fingerprint of 32 bits takes one block in a billion for another, which then skips the small
/// queue: harmless.
#[derive(Debug)]
pub(super) struct Ghosts {
    buckets: Box<[[Ghost; 4]]>,
    departures: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    fingerprint: u32,
    // Zero for none; departures are counted from one.
    left_at: u32,
}

impl Ghosts {
    pub(super) fn new(frames: usize) -> Self {
        Self { buckets: vec![[Ghost::default(); 4]; frames.div_ceil(4).max(4)].into(), departures: 0 }
    }

    fn bucket(&mut self, key: BlockKey) -> (&mut [Ghost; 4], u32) {
        let hash = spread(key);
        let bucket = home(hash, self.buckets.len());
        let fingerprint = u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits");
        (&mut self.buckets[bucket], fingerprint)
    }

    pub(super) fn remember(&mut self, key: BlockKey) {
        // After four billion departures all ghosts look young for a while; then they are overwritten.
        self.departures = self.departures.checked_add(1).unwrap_or(1);
        let left_at = self.departures;
        let (bucket, fingerprint) = self.bucket(key);
        let oldest = bucket.iter_mut().min_by_key(|ghost| ghost.left_at).expect("four of them");
        *oldest = Ghost { fingerprint, left_at };
    }

    /// Whether `key` was among the last `window` that left; it is forgotten.
    pub(super) fn recall(&mut self, key: BlockKey, window: usize) -> bool {
        let now = self.departures;
        let (bucket, fingerprint) = self.bucket(key);
        let found = bucket.iter_mut().find(|ghost| ghost.left_at != 0 && ghost.fingerprint == fingerprint);
        let Some(ghost) = found else { return false };
        let age = now.wrapping_sub(ghost.left_at);
        *ghost = Ghost::default();
        to_usize(u64::from(age)) < window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::FileNo;

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(0), block }
    }

    #[test]
    fn what_comes_back_soon_is_remembered_and_what_comes_late_is_not() {
        let mut ghosts = Ghosts::new(64);
        (0..40).for_each(|block| ghosts.remember(key(block)));
        assert!(ghosts.recall(key(39), 16));
        assert!(!ghosts.recall(key(39), 16), "recalled once");
        assert!(!ghosts.recall(key(3), 16), "too long ago");
        assert!(!ghosts.recall(key(1000), 16), "never here");
    }
}
