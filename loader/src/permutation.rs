//! A shuffle of any length in a few words of state: element `i` of the shuffled order is computed, not stored.
//!
//! A balanced Feistel network over the smallest even number of bits that covers the length, walked until it falls
//! within it (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Statistical, not cryptographic.

/// A permutation of `0..len`, the same for the same seed and epoch on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

/// Four rounds are a permutation that tests cannot tell from random for large domains; small ones need more.
const ROUNDS: usize = 8;
/// Below this the network would have too few states to look random; short lengths walk a little longer instead.
const HALF_BITS_MIN: u32 = 5;

impl Permutation {
    /// The permutation of `0..len` for `seed` and `epoch`.
    #[must_use]
    pub fn new(len: u64, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(HALF_BITS_MIN);
        let mut state =
            mix(seed ^ 0x7469_6572_7374_7265).wrapping_add(mix(epoch.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        Self { len, half_bits, keys }
    }

    /// Element `index` of the shuffled order.
    ///
    /// # Panics
    /// When `index` is not below the length.
    #[must_use]
    pub fn get(&self, index: u64) -> u64 {
        assert!(index < self.len, "element {index} of {}", self.len);
        let mut value = self.round_trip(index);
        // The network permutes a domain up to four times as large; following its cycle from a value within the length
        // comes back within the length, and gives each value once.
        while value >= self.len {
            value = self.round_trip(value);
        }
        value
    }

    fn round_trip(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_length_is_a_permutation() {
        for len in (0..300).chain([1000, 1023, 1024, 1025, 65_537]) {
            let permutation = Permutation::new(len, 42, 3);
            let mut seen: Vec<u64> = (0..len).map(|index| permutation.get(index)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..len), "length {len}");
        }
    }

    #[test]
    fn the_order_is_fixed_for_all_time() {
        // A resumed job must see the order it left: these values may never change.
        let first = |len, seed, epoch| -> Vec<u64> {
            let permutation = Permutation::new(len, seed, epoch);
            (0..6).map(|index| permutation.get(index)).collect()
        };
        assert_eq!(first(1000, 0, 0), GOLDEN_1000);
        assert_eq!(first(1 << 40, 7, 9), GOLDEN_LARGE);
    }

    /// Where each element lands is uniform, and so is the distance of neighbours: chi-square over many seeds.
    #[test]
    fn positions_and_neighbours_are_uniform() {
        for (len, cells) in [(7_u64, 7), (64, 64), (1000, 50)] {
            let seeds = 4000_u64;
            // A position has `len` values, the distance of two neighbours one less.
            let distance_cells = cells - u64::from(cells == len);
            let (mut position, mut distance) = (vec![0_u64; 64], vec![0_u64; 64]);
            for seed in 0..seeds {
                let permutation = Permutation::new(len, seed, seed % 3);
                let (a, b) = (permutation.get(len / 2), permutation.get(len / 2 + 1));
                position[usize::try_from(a * cells / len).unwrap()] += 1;
                distance[usize::try_from((b + len - a - 1) % len * distance_cells / (len - 1)).unwrap()] += 1;
            }
            for (counts, cells, what) in
                [(&position, cells, "position"), (&distance, distance_cells, "distance")]
            {
                let expected = seeds as f64 / cells as f64;
                let used = &counts[..usize::try_from(cells).unwrap()];
                let chi2: f64 = used.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
                let freedom = cells as f64 - 1.0;
                // Mean plus five standard deviations.
                assert!(
                    chi2 < freedom + 5.0 * (2.0 * freedom).sqrt(),
                    "{what} of {len}: chi2 {chi2} of {freedom}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn large_lengths_stay_within_bounds_and_do_not_collide(len in 2_u64..u64::MAX >> 2, seed: u64, epoch: u64) {
            let permutation = Permutation::new(len, seed, epoch);
            let step = (len / 100).max(1);
            let mut seen: Vec<u64> = (0..100.min(len)).map(|index| permutation.get(index * step)).collect();
            prop_assert!(seen.iter().all(|value| *value < len));
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(u64::try_from(seen.len()).unwrap(), 100.min(len));
        }
    }

    const GOLDEN_1000: [u64; 6] = [366, 712, 432, 933, 252, 750];
    const GOLDEN_LARGE: [u64; 6] = [
        120_804_996_706,
        528_466_290_514,
        12_092_623_544,
        786_413_078_006,
        874_290_225_383,
        1_030_485_245_434,
    ];
}
