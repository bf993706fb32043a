//! Eviction policies alone: the store's own, and Belady's.

use std::collections::{BTreeSet, HashMap};

use tierstream_storage::tier::{Auto, BlockKey, EvictionMode, EvictionPolicy, FileNo, Residents};

use super::trace::Trace;

/// Frames that hold names.
struct Frames {
    keys: Vec<BlockKey>,
    reads: Vec<u8>,
    inside: HashMap<BlockKey, u32>,
}

fn at(frame: u32) -> usize {
    usize::try_from(frame).unwrap_or(usize::MAX)
}

impl Residents for Frames {
    fn reads(&self, frame: u32) -> u8 {
        self.reads[at(frame)]
    }

    fn set_reads(&mut self, frame: u32, reads: u8) {
        self.reads[at(frame)] = reads;
    }

    fn key(&self, frame: u32) -> BlockKey {
        self.keys[at(frame)]
    }

    fn take_out(&mut self, frame: u32) -> bool {
        self.inside.remove(&self.keys[at(frame)]);
        true
    }
}

/// Blocks in order of first use, so that their numbers fit a block's name and say nothing of places.
fn numbered(trace: &Trace) -> Vec<u32> {
    let mut numbers = HashMap::new();
    trace
        .ids
        .iter()
        .map(|id| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(*id).or_insert(next)
        })
        .collect()
}

fn misses(blocks: &[u32], capacity: usize, policy: &mut dyn EvictionPolicy) -> u64 {
    let none = BlockKey { file: FileNo(0), block: 0 };
    let mut frames = Frames { keys: vec![none; capacity], reads: vec![0; capacity], inside: HashMap::new() };
    let mut misses = 0;
    for block in blocks {
        let key = BlockKey { file: FileNo(0), block: *block };
        if let Some(frame) = frames.inside.get(&key).copied() {
            frames.reads[at(frame)] = (frames.reads[at(frame)] + 1).min(3);
            policy.hit(frame);
            continue;
        }
        misses += 1;
        let free = frames.inside.len();
        let frame = if free < capacity { u32::try_from(free).ok() } else { policy.evict(&mut frames) };
        let Some(frame) = frame else { continue };
        (frames.keys[at(frame)], frames.reads[at(frame)]) = (key, 0);
        frames.inside.insert(key, frame);
        policy.inserted(frame, key);
    }
    misses
}

/// Misses of the best there can be: the block whose next use is farthest leaves.
fn belady_misses(blocks: &[u32], capacity: usize) -> u64 {
    let mut next = vec![usize::MAX; blocks.len()];
    let mut coming: HashMap<u32, usize> = HashMap::new();
    for (row, block) in blocks.iter().enumerate().rev() {
        next[row] = coming.insert(*block, row).unwrap_or(usize::MAX);
    }
    let mut inside: HashMap<u32, usize> = HashMap::new();
    let mut order: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut misses = 0;
    for (row, block) in blocks.iter().enumerate() {
        if let Some(due) = inside.get(block).copied() {
            order.remove(&(due, *block));
        } else {
            misses += 1;
            if inside.len() >= capacity
                && let Some((_, leaving)) = order.pop_last()
            {
                inside.remove(&leaving);
            }
        }
        inside.insert(*block, next[row]);
        order.insert((next[row], *block));
    }
    misses
}

/// Miss ratios of a trace by policy, Belady's last.
pub(super) fn ratios(trace: &Trace, capacity: usize) -> Vec<(&'static str, f64)> {
    let blocks = numbered(trace);
    let ratio = |misses: u64| misses as f64 / blocks.len() as f64;
    let mut all: Vec<(&'static str, f64)> = EvictionMode::ALL
        .iter()
        .map(|mode| (mode.name(), ratio(misses(&blocks, capacity, &mut *mode.policy(capacity)))))
        .collect();
    all.push(("auto", ratio(misses(&blocks, capacity, &mut Auto::new(capacity)))));
    all.push(("belady", ratio(belady_misses(&blocks, capacity))));
    all
}

/// Misses of Belady alone.
pub(super) fn belady(trace: &Trace, capacity: usize) -> u64 {
    belady_misses(&numbered(trace), capacity)
}
