//! How the samples of one pass over a data set are ordered: as they lie, shuffled over all of it, or shuffled so that
//! samples of one block come close together. Each is computed, not stored: a few words of state for any length.

use crate::permutation::{Permutation, mix};

/// The order of samples within a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shuffle {
    /// As they lie in the data set.
    #[default]
    Off,
    /// Any sample may come at any place: every order of the whole data set is about as likely as another.
    Global,
    /// Runs of `chunk` neighbouring samples come in random order, and samples are shuffled over every `window` of such
    /// runs. Each block is read once in a pass rather than about once a sample, and neighbours in the order are drawn
    /// from `chunk * window` samples instead of all. Where a pass begins to count chunks differs from pass to pass, so
    /// that the same samples do not always share one.
    Blocks {
        /// Samples that lie side by side and are read together.
        chunk: u64,
        /// Chunks over which samples are shuffled.
        window: u64,
    },
}

impl Shuffle {
    /// Block-aware order for samples of about `sample_bytes`, with chunks of some blocks of `block_bytes` and a window
    /// of about `window_bytes`.
    #[must_use]
    pub fn blocks(sample_bytes: u64, block_bytes: u64, window_bytes: u64) -> Self {
        /// Blocks of a chunk: the two that it shares with its neighbours are a small part then.
        const CHUNK_BLOCKS: u64 = 16;
        let chunk = (CHUNK_BLOCKS * block_bytes / sample_bytes.max(1)).max(1);
        let window = (window_bytes / (chunk * sample_bytes.max(1)).max(1)).max(2);
        Self::Blocks { chunk, window }
    }
}

/// One pass over `len` samples.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    len: u64,
    seed: u64,
    number: u64,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Off,
    Global(Permutation),
    Blocks {
        chunk: u64,
        window: u64,
        rotated_by: u64,
        chunks: Permutation,
        // The window that was asked for last.
        within: (u64, Permutation),
    },
}

impl Pass {
    pub(super) fn new(shuffle: Shuffle, len: u64, seed: u64, number: u64) -> Self {
        let how = match shuffle {
            Shuffle::Off => How::Off,
            Shuffle::Global => How::Global(Permutation::new(len, seed, number)),
            Shuffle::Blocks { chunk, window } => How::Blocks {
                chunk,
                window,
                rotated_by: mix(seed ^ mix(number ^ 0x726f_7461)) % len.max(1),
                chunks: Permutation::new(len / chunk, mix(seed ^ 0x6368_756e_6b73), number),
                within: (u64::MAX, Permutation::new(1, 0, 0)),
            },
        };
        Self { len, seed, number, how }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The sample at `index` of the pass.
    pub(super) fn get(&mut self, index: u64) -> u64 {
        assert!(index < self.len, "sample {index} of {}", self.len);
        match &mut self.how {
            How::Off => index,
            How::Global(permutation) => permutation.get(index),
            How::Blocks { chunk, window, rotated_by, chunks, within } => {
                let per_window = chunk.saturating_mul(*window);
                let (number, at) = (index / per_window, index % per_window);
                if within.0 != number {
                    let len = per_window.min(self.len - number * per_window);
                    *within = (number, Permutation::new(len, mix(self.seed ^ mix(self.number)), number));
                }
                let at = within.1.get(at);
                let (place, offset) = (number * *window + at / *chunk, at % *chunk);
                // What is left over is shorter than a chunk and keeps its place, the last.
                let whole = self.len / *chunk;
                let place = if place < whole { chunks.get(place) } else { whole };
                (place * *chunk + offset + *rotated_by) % self.len
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(shuffle: Shuffle, len: u64, seed: u64, number: u64) -> Vec<u64> {
        let mut pass = Pass::new(shuffle, len, seed, number);
        (0..len).map(|index| pass.get(index)).collect()
    }

    proptest! {
        #[test]
        fn every_pass_has_each_sample_once(
            len in 1_u64..2000, chunk in 1_u64..40, window in 1_u64..12, seed: u64, number in 0_u64..4,
        ) {
            for shuffle in [Shuffle::Off, Shuffle::Global, Shuffle::Blocks { chunk, window }] {
                let mut all = order(shuffle, len, seed, number);
                // Any element alone is what it is in order.
                let index = seed % len;
                prop_assert_eq!(Pass::new(shuffle, len, seed, number).get(index), all[usize::try_from(index).unwrap()]);
                all.sort_unstable();
                prop_assert!(all.into_iter().eq(0..len));
            }
        }
    }

    #[test]
    fn orders_of_blocks_are_fixed_for_all_time() {
        // A resumed job must see the order it left.
        let first = &order(Shuffle::Blocks { chunk: 10, window: 4 }, 1003, 7, 2)[..6];
        assert_eq!(first, GOLDEN_BLOCKS);
    }

    /// What the documentation promises: over passes each sample comes anywhere, and a window holds whole chunks.
    #[test]
    fn blocks_are_read_once_and_samples_come_anywhere() {
        let (len, chunk, window) = (1000, 10, 5);
        let shuffle = Shuffle::Blocks { chunk, window };
        let passes: usize = 4000;
        let mut cells = [0_u64; 20];
        let mut neighbours = 0_usize;
        for number in 0..u64::try_from(passes).unwrap() {
            let order = order(shuffle, len, 3, number);
            let place = order.iter().position(|sample| *sample == 123).unwrap();
            cells[place / 50] += 1;
            for samples in order.chunks(50) {
                // 50 samples of 5 chunks: at most 6 runs of the rotated data set, and one where it wraps around.
                let mut sorted = samples.to_vec();
                sorted.sort_unstable();
                let runs = 1 + sorted.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
                assert!(runs <= 6, "{runs} runs");
            }
            neighbours += order.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        }
        let expected = passes as f64 / 20.0;
        let chi2: f64 = cells.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
        assert!(chi2 < 19.0 + 5.0 * 38.0_f64.sqrt(), "chi2 {chi2} of 19: {cells:?}");
        // In a window of 50 shuffled samples 45 have their neighbour in it, which follows them one time in 50 or so: some 18
        // of 1000 over the whole pass.
        let share = neighbours as f64 / passes as f64;
        assert!((14.0..23.0).contains(&share), "{share} neighbours stay together in a pass");
    }

    const GOLDEN_BLOCKS: [u64; 6] = [265, 937, 259, 932, 934, 692];
}
