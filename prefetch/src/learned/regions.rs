//! Regions: which blocks of 64 neighbours are read together. A generation of a region begins with a miss in it and ends
//! when memory would have forgotten it; what the generation before it read is likely to be read again.

use super::hash::{index, spread};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Region {
    // Number of the region plus one; zero in an empty cell.
    number: u64,
    /// Blocks missed in this generation, in the one before, and in the one before that.
    pub(super) now: u64,
    pub(super) last: u64,
    pub(super) older: u64,
    touched: u32,
}

pub(super) struct Regions {
    cells: Box<[[Region; 2]]>,
}

pub(super) const BLOCKS: u64 = 64;

impl Regions {
    pub(super) fn new(bits: u32) -> Self {
        Self { cells: vec![[Region::default(); 2]; 1 << bits].into() }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Region> {
        let number = id / BLOCKS + 1;
        let bucket = &self.cells[index(spread(number), self.cells.len() - 1)];
        bucket.iter().find(|region| region.number == number)
    }

    /// Notes a miss; returns the region as it is now.
    pub(super) fn miss(&mut self, id: u64, now: u32, horizon: u32) -> Region {
        let number = id / BLOCKS + 1;
        let at = index(spread(number), self.cells.len() - 1);
        let bucket = &mut self.cells[at];
        let way = bucket.iter().position(|region| region.number == number).unwrap_or_else(|| {
            let age = |region: &Region| {
                if region.number == 0 { u32::MAX } else { now.wrapping_sub(region.touched) }
            };
            let way = usize::from(age(&bucket[1]) > age(&bucket[0]));
            bucket[way] = Region { number, touched: now, ..Region::default() };
            way
        });
        let region = &mut bucket[way];
        if now.wrapping_sub(region.touched) > horizon {
            (region.older, region.last, region.now) = (region.last, region.now, 0);
        }
        region.touched = now;
        region.now |= 1 << (id % BLOCKS);
        *region
    }
}
