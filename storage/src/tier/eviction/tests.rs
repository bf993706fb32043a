use std::collections::HashMap;

use super::*;
use crate::testing::{Random, announce_seed};
use crate::tier::FileNo;
use crate::units::to_usize;

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
            policy.hit(*frame);
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
    for seed in 0..30 {
        announce_seed("policies", seed);
        let mut random = Random::new(seed);
        let modes = EvictionMode::ALL.map(|mode| mode.policy(40));
        let mut policies = modes.into_iter().chain([Box::new(Auto::new(40)) as Box<dyn EvictionPolicy>]);
        let mut policy = policies.nth(to_usize(seed % 6)).unwrap();
        let mut cache = Cache::new(40, |key| key.block % 4 == 0);
        for _ in 0..5000 {
            let block = key(u32::try_from(random.below(200)).unwrap());
            let full_of_pinned = cache.inside.keys().filter(|key| key.block % 4 == 0).count() == 40;
            let hit = cache.read(&mut *policy, block);
            assert!(hit || cache.inside.contains_key(&block) || full_of_pinned, "somebody could have left");
        }
    }
}

#[test]
fn a_loop_larger_than_memory_is_not_lost() {
    // Twenty rounds over 200 blocks with room for 100: LRU and FIFO hit nothing.
    let hits = |policy: &mut dyn EvictionPolicy| {
        let mut cache = Cache::new(100, |_| false);
        (0..200).cycle().take(4000).filter(|block| cache.read(policy, key(*block))).count()
    };
    assert_eq!(hits(&mut Lru::new(100)), 0);
    assert!(hits(&mut Lirs::new(100)) > 1700);
    assert!(hits(&mut Pin::new(100)) > 1700);
    assert!(hits(&mut Auto::new(100)) > 1400, "it changes to one of these");
}
