//! Who leaves a full L1. One trait, so that policies can be compared and chosen; S3-FIFO is the default.
//!
//! A hit takes no lock and tells nobody: it raises a small count beside the frame, and a policy looks at these counts
//! when it has to choose. So a policy speaks of frames by number, and keeps fixed tables: nothing is allocated after the
//! start, and a frame costs the policy 12 bytes.

use std::fmt;

use super::BlockKey;
use super::index::spread;
use crate::units::to_usize;

/// What a policy may ask of the frames, and do to them.
pub trait Residents {
    /// Reads of the frame's block since the count was last set, at most 3.
    fn reads(&self, frame: u32) -> u8;

    /// Sets the count.
    fn set_reads(&mut self, frame: u32, reads: u8);

    /// The block in the frame.
    fn key(&self, frame: u32) -> BlockKey;

    /// Takes the block out of the frame, unless somebody has a view of it.
    fn take_out(&mut self, frame: u32) -> bool;
}

/// Decides who leaves. Told of every block that comes in; asked for a victim when room is needed.
pub trait EvictionPolicy: Send + fmt::Debug {
    /// Block `key` came into `frame`; its count of reads is zero.
    fn inserted(&mut self, frame: u32, key: BlockKey);

    /// Chooses a block that can be taken out, takes it out and forgets its frame; returns that.
    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32>;
}

/// S3-FIFO (Yang et al., SOSP 2023): newcomers pass through a small queue, and only those that were read again there,
/// or came back soon after they left, enter the main queue. One pass over a data set does not push out what is re-read.
#[derive(Debug)]
pub struct S3Fifo {
    // The frame behind each frame in its queue.
    behind: Box<[u32]>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
}

/// A queue of frames, linked through a table that all queues share.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    // Meaningless when empty.
    first: u32,
    last: u32,
    len: usize,
}

impl Queue {
    fn push(&mut self, frame: u32, behind: &mut [u32]) {
        if self.len == 0 {
            self.first = frame;
        } else {
            behind[to_usize(u64::from(self.last))] = frame;
        }
        self.last = frame;
        self.len += 1;
    }

    fn pop(&mut self, behind: &[u32]) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        let frame = self.first;
        self.first = behind[to_usize(u64::from(frame))];
        Some(frame)
    }
}

impl S3Fifo {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self {
            behind: vec![0; frames].into(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::new(frames),
        }
    }

    /// The small queue's share of all blocks: one tenth, as in the paper.
    fn small_is_full(&self) -> bool {
        self.small.len * 10 >= self.small.len + self.main.len
    }

    /// Looks at the head of the small queue once.
    fn step_small(&mut self, residents: &mut dyn Residents) -> Step {
        let Some(frame) = self.small.pop(&self.behind) else { return Step::InUse };
        if residents.reads(frame) > 0 {
            residents.set_reads(frame, 0);
            self.main.push(frame, &mut self.behind);
            return Step::Moved;
        }
        // Its key before another block comes in.
        let key = residents.key(frame);
        if !residents.take_out(frame) {
            self.small.push(frame, &mut self.behind);
            return Step::InUse;
        }
        self.ghosts.remember(key);
        Step::Victim(frame)
    }

    /// Looks at the head of the main queue once.
    fn step_main(&mut self, residents: &mut dyn Residents) -> Step {
        let Some(frame) = self.main.pop(&self.behind) else { return Step::InUse };
        let reads = residents.reads(frame);
        if reads == 0 && residents.take_out(frame) {
            return Step::Victim(frame);
        }
        residents.set_reads(frame, reads.saturating_sub(1));
        self.main.push(frame, &mut self.behind);
        if reads > 0 { Step::Moved } else { Step::InUse }
    }
}

enum Step {
    Victim(u32),
    Moved,
    InUse,
}

impl EvictionPolicy for S3Fifo {
    fn inserted(&mut self, frame: u32, key: BlockKey) {
        // As many ghosts as the main queue has blocks.
        let queue =
            if self.ghosts.recall(key, self.main.len.max(16)) { &mut self.main } else { &mut self.small };
        queue.push(frame, &mut self.behind);
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        // Blocks in use, one after the other, since the last that was not: a whole queue of them means to ask the other.
        let (mut small_in_use, mut main_in_use) = (0, 0);
        // A block that is read faster than its count goes down must not keep us here for ever.
        for _ in 0..8 * (self.small.len + self.main.len) {
            let small_left = small_in_use < self.small.len;
            let main_left = main_in_use < self.main.len;
            let small = match (small_left, main_left) {
                (false, false) => return None,
                (true, true) => self.small_is_full(),
                (small_left, _) => small_left,
            };
            match if small { self.step_small(residents) } else { self.step_main(residents) } {
                Step::Victim(frame) => return Some(frame),
                Step::Moved => (small_in_use, main_in_use) = (0, 0),
                Step::InUse if small => small_in_use += 1,
                Step::InUse => main_in_use += 1,
            }
        }
        None
    }
}

/// Blocks that left the small queue not long ago: fingerprints and the moment they left, in buckets of four, of which
/// the oldest makes room. A fingerprint of 32 bits takes one block in a billion for another, which then skips the small
/// queue: harmless.
#[derive(Debug)]
struct Ghosts {
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
    fn new(frames: usize) -> Self {
        Self { buckets: vec![[Ghost::default(); 4]; frames.div_ceil(4).max(4)].into(), departures: 0 }
    }

    fn bucket(&mut self, key: BlockKey) -> (&mut [Ghost; 4], u32) {
        let hash = spread(key);
        let bucket = super::index::home(hash, self.buckets.len());
        let fingerprint = u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits");
        (&mut self.buckets[bucket], fingerprint)
    }

    fn remember(&mut self, key: BlockKey) {
        // After four billion departures all ghosts look young for a while; then they are overwritten.
        self.departures = self.departures.checked_add(1).unwrap_or(1);
        let left_at = self.departures;
        let (bucket, fingerprint) = self.bucket(key);
        let oldest = bucket.iter_mut().min_by_key(|ghost| ghost.left_at).expect("four of them");
        *oldest = Ghost { fingerprint, left_at };
    }

    /// Whether `key` was among the last `window` that left; it is forgotten.
    fn recall(&mut self, key: BlockKey, window: usize) -> bool {
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
    use std::collections::HashMap;

    use super::*;
    use crate::testing::{Random, announce_seed};
    use crate::tier::FileNo;

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(0), block }
    }

    /// Frames as a policy sees them.
    struct Cache {
        keys: Vec<BlockKey>,
        reads: Vec<u8>,
        inside: HashMap<BlockKey, u32>,
        pinned: fn(BlockKey) -> bool,
        free: Vec<u32>,
    }

    impl Cache {
        fn new(frames: u32, pinned: fn(BlockKey) -> bool) -> Self {
            let count = to_usize(u64::from(frames));
            Self {
                keys: vec![key(0); count],
                reads: vec![0; count],
                inside: HashMap::new(),
                pinned,
                free: (0..frames).collect(),
            }
        }

        /// Reads a block, loading it if need be and possible; whether it was a hit.
        fn read(&mut self, policy: &mut dyn EvictionPolicy, key: BlockKey) -> bool {
            if let Some(frame) = self.inside.get(&key) {
                let reads = &mut self.reads[to_usize(u64::from(*frame))];
                *reads = (*reads + 1).min(3);
                return true;
            }
            let Some(frame) = self.free.pop().or_else(|| policy.evict(self)) else { return false };
            let at = to_usize(u64::from(frame));
            (self.keys[at], self.reads[at]) = (key, 0);
            assert_eq!(self.inside.insert(key, frame), None);
            policy.inserted(frame, key);
            false
        }
    }

    impl Residents for Cache {
        fn reads(&self, frame: u32) -> u8 {
            self.reads[to_usize(u64::from(frame))]
        }

        fn set_reads(&mut self, frame: u32, reads: u8) {
            self.reads[to_usize(u64::from(frame))] = reads;
        }

        fn key(&self, frame: u32) -> BlockKey {
            self.keys[to_usize(u64::from(frame))]
        }

        fn take_out(&mut self, frame: u32) -> bool {
            let key = self.key(frame);
            let leaves = !(self.pinned)(key);
            if leaves {
                assert_eq!(self.inside.remove(&key), Some(frame), "the victim was inside");
            }
            leaves
        }
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_read_again() {
        let hot = || (0..50).cycle().take(500);
        let mut policy = S3Fifo::new(100);
        let mut cache = Cache::new(100, |_| false);
        let trace = hot().chain(1000..3000).chain(hot());
        let hits = trace.filter(|block| cache.read(&mut policy, key(*block))).count();
        // 450 hits before the scan; after it nearly all of the 50 hot blocks are still there.
        assert!(hits >= 450 + 480, "{hits} hits");
    }

    #[test]
    fn blocks_in_use_stay_and_nothing_is_lost() {
        for seed in 0..20 {
            announce_seed("s3-fifo", seed);
            let mut random = Random::new(seed);
            let mut policy = S3Fifo::new(40);
            let mut cache = Cache::new(40, |key| key.block % 4 == 0);
            for _ in 0..5000 {
                let block = key(u32::try_from(random.below(200)).unwrap());
                let full_of_pinned = cache.inside.keys().filter(|key| key.block % 4 == 0).count() == 40;
                let hit = cache.read(&mut policy, block);
                assert!(
                    hit || cache.inside.contains_key(&block) || full_of_pinned,
                    "somebody could have left"
                );
                assert_eq!(policy.small.len + policy.main.len, cache.inside.len());
            }
        }
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
