//! What is written: made before the clock of an I/O starts.

use super::super::job::{BufferOptions, Fill};
use crate::random::Random;
use crate::{to_u64, to_usize};

/// Of every sector that is written, the time replaces sixteen bytes, and the offset eight of each part: no two blocks are
/// alike for a device that looks for duplicates (fio's `scramble_buffers`), and one that compresses finds as much to
/// compress as in what fio writes.
const SECTOR_BYTES: usize = 512;
/// A part of a sector.
const PART_BYTES: usize = 64;
/// Where in a sector the time is.
const TIME_AT: usize = 48;
/// Writes that a duplicate can repeat.
const KEPT_SEEDS: usize = 256;

#[derive(Debug)]
pub(super) struct Filler {
    options: BufferOptions,
    random: Random,
    seeds: Vec<u64>,
}

impl Filler {
    pub(super) fn new(options: &BufferOptions, seed: u64) -> Self {
        Self { options: options.clone(), random: Random::new(seed ^ 0xb0ff), seeds: Vec::new() }
    }

    /// Whether each write needs its bytes made anew.
    pub(super) fn refills(&self) -> bool {
        self.options.refill || self.options.dedupe_percentage > 0
    }

    /// Fills a buffer before the first I/O.
    pub(super) fn prepare(&mut self, buffer: &mut [u8]) {
        let seed = self.random.next_u64();
        self.fill(buffer, seed);
    }

    /// Readies `buffer` for a write at `offset` at the time `now`, in nanoseconds.
    pub(super) fn ready(&mut self, buffer: &mut [u8], offset: u64, now: u64) {
        if self.refills() {
            let repeats = !self.seeds.is_empty() && self.random.scaled(100) < self.options.dedupe_percentage;
            let seed = if repeats {
                self.seeds[to_usize(self.random.scaled(to_u64(self.seeds.len())))]
            } else {
                let seed = self.random.next_u64();
                if self.seeds.len() < KEPT_SEEDS {
                    self.seeds.push(seed);
                } else {
                    let at = to_usize(self.random.scaled(to_u64(KEPT_SEEDS)));
                    self.seeds[at] = seed;
                }
                seed
            };
            self.fill(buffer, seed);
        } else if self.options.scramble {
            let seconds = (now / 1_000_000_000).to_le_bytes();
            let nanos = (now % 1_000_000_000).to_le_bytes();
            for (sector, at) in buffer.chunks_exact_mut(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES)) {
                for part in sector.chunks_exact_mut(PART_BYTES) {
                    part[..8].copy_from_slice(&at.to_le_bytes());
                }
                sector[TIME_AT..TIME_AT + 8].copy_from_slice(&seconds);
                sector[TIME_AT + 8..TIME_AT + 16].copy_from_slice(&nanos);
            }
        }
    }

    fn fill(&self, buffer: &mut [u8], seed: u64) {
        match &self.options.fill {
            Fill::Random => Random::new(seed).fill(buffer),
            Fill::Zeros => buffer.fill(0),
            Fill::Pattern(pattern) => {
                buffer.iter_mut().zip(pattern.iter().cycle()).for_each(|(byte, of)| *byte = *of);
            }
            Fill::Compressible { percent, chunk } => {
                let mut random = Random::new(seed);
                for part in buffer.chunks_mut(*chunk) {
                    let noise = part.len() - part.len() * to_usize(*percent) / 100;
                    random.fill(&mut part[..noise]);
                    part[noise..].fill(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(fill: Fill, refill: bool, dedupe_percentage: u64) -> BufferOptions {
        BufferOptions { fill, refill, scramble: false, dedupe_percentage }
    }

    #[test]
    fn bytes_compress_as_far_as_was_asked() {
        for percent in [20, 50, 80] {
            let fill = Fill::Compressible { percent, chunk: 4096 };
            let mut filler = Filler::new(&options(fill, true, 0), 1);
            let mut buffer = vec![0; 1 << 20];
            filler.ready(&mut buffer, 0, 7);
            let packed = zstd::bulk::compress(&buffer, 1).unwrap();
            let saved = 100.0 - 100.0 * packed.len() as f64 / buffer.len() as f64;
            assert!((saved - percent as f64).abs() < 3.0, "{percent} asked, {saved} saved");
        }
    }

    #[test]
    fn shares_of_writes_repeat_others() {
        let mut filler = Filler::new(&options(Fill::Random, true, 40), 1);
        let mut seen = std::collections::HashSet::new();
        let mut repeated = 0;
        for _ in 0..2000 {
            let mut buffer = vec![0; 512];
            filler.ready(&mut buffer, 0, 7);
            repeated += usize::from(!seen.insert(buffer));
        }
        assert!((700..900).contains(&repeated), "{repeated} of 2000");
    }

    #[test]
    fn no_two_writes_are_alike_and_patterns_are() {
        let mut filler = Filler::new(&BufferOptions { scramble: true, ..options(Fill::Random, false, 0) }, 1);
        let mut buffer = vec![0; 4096];
        filler.prepare(&mut buffer);
        filler.ready(&mut buffer, 0, 7);
        let first = buffer.clone();
        filler.ready(&mut buffer, 4096, 8);
        assert!(first.chunks(512).zip(buffer.chunks(512)).all(|(one, other)| one != other));
        let mut filler = Filler::new(&options(Fill::Pattern(b"abc".to_vec()), false, 0), 1);
        filler.prepare(&mut buffer);
        assert!(buffer.starts_with(b"abcabc"));
    }
}
