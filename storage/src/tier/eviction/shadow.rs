//! What a policy would have hit: a small cache without bytes, for a sample of all blocks.

use super::{EvictionMode, EvictionPolicy, Residents};
use crate::tier::index::{home, spread};
use crate::tier::{BlockKey, FileNo};
use crate::units::to_usize;

const NONE: u32 = u32::MAX;

/// Frames that hold names alone.
#[derive(Debug)]
struct Names {
    keys: Box<[BlockKey]>,
    reads: Box<[u8]>,
    table: Box<[u32]>,
}

fn at(number: u32) -> usize {
    to_usize(u64::from(number))
}

impl Names {
    fn cell(&self, key: BlockKey) -> (usize, bool) {
        let mut cell = home(spread(key), self.table.len());
        while self.table[cell] != NONE {
            if self.keys[at(self.table[cell])] == key {
                return (cell, true);
            }
            cell = (cell + 1) % self.table.len();
        }
        (cell, false)
    }
}

impl Residents for Names {
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
        let (mut hole, found) = self.cell(self.keys[at(frame)]);
        if found {
            self.table[hole] = NONE;
            let len = self.table.len();
            let mut cell = (hole + 1) % len;
            while self.table[cell] != NONE {
                let ideal = home(spread(self.keys[at(self.table[cell])]), len);
                if (cell + len - ideal) % len >= (cell + len - hole) % len {
                    self.table[hole] = self.table[cell];
                    self.table[cell] = NONE;
                    hole = cell;
                }
                cell = (cell + 1) % len;
            }
        }
        true
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shadow {
    names: Names,
    policy: Box<dyn EvictionPolicy>,
    used: u32,
}

impl Shadow {
    pub(super) fn new(mode: EvictionMode, frames: usize) -> Self {
        let empty = BlockKey { file: FileNo(0), block: 0 };
        let names = Names {
            keys: vec![empty; frames].into(),
            reads: vec![0; frames].into(),
            table: vec![NONE; 2 * frames + 1].into(),
        };
        Self { names, policy: mode.policy(frames), used: 0 }
    }

    /// Reads a block; whether it was a hit.
    pub(super) fn read(&mut self, key: BlockKey) -> bool {
        let (cell, found) = self.names.cell(key);
        if found {
            let frame = self.names.table[cell];
            let reads = &mut self.names.reads[at(frame)];
            *reads = (*reads + 1).min(3);
            self.policy.hit(frame);
            return true;
        }
        let frame = if at(self.used) < self.names.keys.len() {
            self.used += 1;
            Some(self.used - 1)
        } else {
            self.policy.evict(&mut self.names)
        };
        let Some(frame) = frame else { return false };
        (self.names.keys[at(frame)], self.names.reads[at(frame)]) = (key, 0);
        let (cell, _) = self.names.cell(key);
        self.names.table[cell] = frame;
        self.policy.inserted(frame, key);
        false
    }
}
