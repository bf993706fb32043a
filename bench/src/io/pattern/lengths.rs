//! Lengths of I/Os: one, from a range, or of several by their shares.

use super::super::job::BlockSize;
use crate::random::Random;

#[derive(Debug)]
pub(super) struct Lengths {
    kind: BlockSize,
    unaligned: bool,
    random: Random,
}

impl Lengths {
    pub(super) fn new(kind: &BlockSize, unaligned: bool, seed: u64) -> Self {
        Self { kind: kind.clone(), unaligned, random: Random::new(seed) }
    }

    /// The length, where there is one alone.
    pub(super) fn fixed(&self) -> Option<u64> {
        match self.kind {
            BlockSize::Fixed(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        match &self.kind {
            BlockSize::Fixed(bytes) => *bytes,
            BlockSize::Range(low, high) => {
                let drawn = low + self.random.scaled(high - low + 1);
                // Multiples of the shortest, as fio draws them.
                if self.unaligned { drawn } else { (drawn / low * low).max(*low) }
            }
            BlockSize::Split(parts) => {
                let mut drawn = self.random.scaled(100);
                for (bytes, percent) in parts {
                    if drawn < *percent {
                        return *bytes;
                    }
                    drawn -= percent;
                }
                parts.last().map_or(0, |part| part.0)
            }
        }
    }
}
