//! Who leaves a full L1. One trait, so that policies can be compared and chosen; S3-FIFO is the default.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::BlockKey;

/// Decides who leaves. Told of every change; asked for a victim when room is needed.
pub trait EvictionPolicy: Send + fmt::Debug {
    /// `key` came in.
    fn inserted(&mut self, key: BlockKey);

    /// `key`, which is in, was read.
    fn touched(&mut self, key: BlockKey);

    /// Chooses who leaves, among those that `may_leave`, and forgets it.
    fn victim(&mut self, may_leave: &mut dyn FnMut(BlockKey) -> bool) -> Option<BlockKey>;
}

/// S3-FIFO (Yang et al., SOSP 2023): newcomers pass through a small queue, and only those that were read again there,
/// or came back soon after they left, enter the main queue. One pass over a data set does not push out what is re-read.
#[derive(Debug, Default)]
pub struct S3Fifo {
    small: VecDeque<BlockKey>,
    main: VecDeque<BlockKey>,
    // Reads since insertion or since the last round, at most 3.
    reads: HashMap<BlockKey, u8>,
    // Keys that left the small queue, with the moment they left; entries of keys that came back are stale.
    ghost_order: VecDeque<(BlockKey, u64)>,
    ghost: HashMap<BlockKey, u64>,
    departures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

const READS_MAX: u8 = 3;

impl S3Fifo {
    /// The small queue's share of all blocks: one tenth, as in the paper.
    fn small_is_full(&self) -> bool {
        self.small.len() * 10 >= self.small.len() + self.main.len()
    }

    fn remember(&mut self, key: BlockKey) {
        self.departures += 1;
        self.ghost.insert(key, self.departures);
        self.ghost_order.push_back((key, self.departures));
        // As many ghosts as the main queue has blocks.
        while self.ghost_order.len() > self.main.len().max(16) {
            if let Some((oldest, left_at)) = self.ghost_order.pop_front()
                && self.ghost.get(&oldest) == Some(&left_at)
            {
                self.ghost.remove(&oldest);
            }
        }
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<BlockKey> {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    /// Looks at the head of a queue once.
    fn step(&mut self, from: Queue, may_leave: &mut dyn FnMut(BlockKey) -> bool) -> Step {
        let Some(key) = self.queue(from).pop_front() else { return Step::InUse };
        let reads = self.reads.get(&key).copied().unwrap_or(0);
        if reads > 0 {
            // Read again: the small queue promotes it, the main queue gives it another round.
            let left = if from == Queue::Small { 0 } else { reads - 1 };
            self.reads.insert(key, left);
            self.main.push_back(key);
            return Step::Moved;
        }
        if !may_leave(key) {
            self.queue(from).push_back(key);
            return Step::InUse;
        }
        self.reads.remove(&key);
        if from == Queue::Small {
            self.remember(key);
        }
        Step::Victim(key)
    }
}

enum Step {
    Victim(BlockKey),
    Moved,
    InUse,
}

impl EvictionPolicy for S3Fifo {
    fn inserted(&mut self, key: BlockKey) {
        if self.ghost.remove(&key).is_some() {
            self.main.push_back(key);
        } else {
            self.small.push_back(key);
        }
        self.reads.insert(key, 0);
    }

    fn touched(&mut self, key: BlockKey) {
        if let Some(reads) = self.reads.get_mut(&key) {
            *reads = (*reads + 1).min(READS_MAX);
        }
    }

    fn victim(&mut self, may_leave: &mut dyn FnMut(BlockKey) -> bool) -> Option<BlockKey> {
        // Keys in use, one after the other, since the last that was not: a whole queue of them means to ask the other.
        let (mut small_in_use, mut main_in_use) = (0, 0);
        loop {
            let small_left = small_in_use < self.small.len();
            let main_left = main_in_use < self.main.len();
            let from = match (small_left, main_left) {
                (false, false) => return None,
                (true, true) if self.small_is_full() => Queue::Small,
                (true, false) => Queue::Small,
                _ => Queue::Main,
            };
            let in_use = if from == Queue::Small { &mut small_in_use } else { &mut main_in_use };
            match self.step(from, may_leave) {
                Step::Victim(key) => return Some(key),
                Step::Moved => (small_in_use, main_in_use) = (0, 0),
                Step::InUse => *in_use += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::Random;
    use crate::tier::FileNo;

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(0), block }
    }

    /// A cache of `capacity` blocks under the policy; returns the hits.
    fn replay(
        policy: &mut dyn EvictionPolicy,
        capacity: usize,
        accesses: impl Iterator<Item = u32>,
    ) -> usize {
        let mut inside = HashSet::new();
        let mut hits = 0;
        for block in accesses {
            let key = key(block);
            if inside.contains(&key) {
                hits += 1;
                policy.touched(key);
                continue;
            }
            if inside.len() == capacity {
                let victim = policy.victim(&mut |_| true).expect("somebody can leave");
                assert!(inside.remove(&victim), "the victim was inside");
            }
            policy.inserted(key);
            inside.insert(key);
        }
        hits
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_read_again() {
        let hot = || (0..50).cycle().take(500);
        let mut policy = S3Fifo::default();
        let trace = hot().chain(1000..3000).chain(hot());
        let hits = replay(&mut policy, 100, trace);
        // 450 hits before the scan; after it nearly all of the 50 hot blocks are still there.
        assert!(hits >= 450 + 480, "{hits} hits");
    }

    #[test]
    fn blocks_in_use_stay_and_nothing_is_lost() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let mut policy = S3Fifo::default();
            let mut inside: HashSet<BlockKey> = HashSet::new();
            for _ in 0..5000 {
                let block = key(u32::try_from(random.below(200)).unwrap());
                if inside.contains(&block) {
                    policy.touched(block);
                    continue;
                }
                if inside.len() == 40 {
                    let pinned: HashSet<_> =
                        inside.iter().copied().filter(|key| key.block % 4 == 0).collect();
                    match policy.victim(&mut |key| !pinned.contains(&key)) {
                        Some(victim) => {
                            assert!(!pinned.contains(&victim));
                            assert!(inside.remove(&victim));
                        }
                        None => assert_eq!(pinned.len(), 40, "somebody could have left"),
                    }
                }
                if inside.len() < 40 {
                    policy.inserted(block);
                    inside.insert(block);
                }
            }
            assert_eq!(policy.reads.len(), inside.len());
            assert_eq!(policy.small.len() + policy.main.len(), inside.len());
            assert!(policy.ghost.len() <= policy.ghost_order.len() && policy.ghost_order.len() <= 41);
        }
    }
}
