//! Each block once: fio's random map.

use tierstream_loader::Permutation;

use crate::random::Random;
use crate::{to_u64, to_usize};

/// Which blocks of a file were touched in this pass.
#[derive(Debug)]
pub(super) struct Coverage {
    blocks: u64,
    block_bytes: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    None,
    /// All I/Os have one length: an order of all blocks that needs no memory.
    Permuted {
        order: Permutation,
        seed: u64,
        pass: u64,
        index: u64,
    },
    /// Lengths differ: a bit for each shortest block, and a bit for each full word of these.
    Mapped {
        words: Vec<u64>,
        full: Vec<u64>,
        left: u64,
    },
}

impl Coverage {
    pub(super) fn none() -> Self {
        Self { blocks: 0, block_bytes: 1, kind: Kind::None }
    }

    pub(super) fn permuted(blocks: u64, block_bytes: u64, seed: u64) -> Self {
        let order = Permutation::new(blocks.max(1), seed, 0);
        Self { blocks, block_bytes, kind: Kind::Permuted { order, seed, pass: 0, index: 0 } }
    }

    pub(super) fn mapped(blocks: u64, block_bytes: u64) -> Self {
        let words = to_usize(blocks.div_ceil(64));
        let mut coverage = Self {
            blocks,
            block_bytes,
            kind: Kind::Mapped { words: vec![0; words], full: vec![0; words.div_ceil(64)], left: blocks },
        };
        coverage.restart();
        coverage
    }

    pub(super) fn is_some(&self) -> bool {
        !matches!(self.kind, Kind::None)
    }

    /// Forgets what was touched.
    pub(super) fn restart(&mut self) {
        match &mut self.kind {
            Kind::None => {}
            Kind::Permuted { order, seed, pass, index } => {
                *pass += 1;
                *index = 0;
                *order = Permutation::new(self.blocks.max(1), *seed, *pass);
            }
            Kind::Mapped { words, full, left } => {
                words.fill(0);
                full.fill(0);
                *left = self.blocks;
                // Bits behind the end are never free.
                for block in self.blocks..to_u64(words.len()) * 64 {
                    words[to_usize(block / 64)] |= 1 << (block % 64);
                }
                for word in words.len()..full.len() * 64 {
                    full[word / 64] |= 1 << (word % 64);
                }
            }
        }
    }

    /// An untouched place for `len` bytes, and how many of them have room there; none when all was touched.
    pub(super) fn next(&mut self, len: u64, random: &mut Random) -> Option<(u64, u64)> {
        match &mut self.kind {
            Kind::None => None,
            Kind::Permuted { order, index, .. } => {
                if *index == self.blocks {
                    return None;
                }
                let block = order.get(*index);
                *index += 1;
                Some((block * self.block_bytes, len))
            }
            Kind::Mapped { words, full, left } => {
                if *left == 0 {
                    return None;
                }
                let first = free_from(words, full, random.scaled(self.blocks));
                let wanted = len.div_ceil(self.block_bytes);
                let mut taken = 0;
                while taken < wanted && first + taken < self.blocks {
                    let block = first + taken;
                    let word = to_usize(block / 64);
                    if words[word] >> (block % 64) & 1 == 1 {
                        break;
                    }
                    words[word] |= 1 << (block % 64);
                    if words[word] == u64::MAX {
                        full[word / 64] |= 1 << (word % 64);
                    }
                    taken += 1;
                }
                *left -= taken;
                Some((first * self.block_bytes, len.min(taken * self.block_bytes)))
            }
        }
    }
}

/// The first free block at or behind `from`, around the end. There is one.
fn free_from(words: &[u64], full: &[u64], from: u64) -> u64 {
    let word = to_usize(from / 64);
    let here = !words[word] & (u64::MAX << (from % 64));
    if here != 0 {
        return to_u64(word) * 64 + u64::from(here.trailing_zeros());
    }
    let mut at = word + 1;
    loop {
        if at >= words.len() {
            at = 0;
        }
        let open = !full[at / 64] & (u64::MAX << (at % 64));
        if open != 0 {
            let word = at / 64 * 64 + crate::to_usize(u64::from(open.trailing_zeros()));
            return to_u64(word) * 64 + u64::from((!words[word]).trailing_zeros());
        }
        at = (at / 64 + 1) * 64;
    }
}
