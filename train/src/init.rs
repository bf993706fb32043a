//! Seeded starting weights.
//!
//! The generator is ours, so that a seed gives the same weights on every backend, in every precision and with every
//! version of burn, whose generator is one per process.

/// Normally distributed numbers from a 64-bit seed (SplitMix64 and the Box-Muller transform).
#[derive(Debug)]
pub(crate) struct NormalSource {
    state: u64,
}

impl NormalSource {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1]: 32 bits, never 0, so that its logarithm is finite.
    fn uniform(&mut self) -> f64 {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        (f64::from(u32::from_be_bytes([a, b, c, d])) + 1.0) / 4_294_967_296.0
    }

    /// `length` values with mean 0 and standard deviation `deviation`.
    pub(crate) fn take(&mut self, length: usize, deviation: f64) -> Vec<f32> {
        let mut values = Vec::with_capacity(length + 1);
        while values.len() < length {
            let radius = (-2.0 * self.uniform().ln()).sqrt() * deviation;
            let angle = std::f64::consts::TAU * self.uniform();
            for value in [radius * angle.cos(), radius * angle.sin()] {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounds to the FP32 the weights are kept in"
                )]
                values.push(value as f32);
            }
        }
        values.truncate(length);
        values
    }

    /// `length` uniformly distributed bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_moments_are_right() {
        let draw = |seed| NormalSource::new(seed).take(100_001, 0.5);
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let values: Vec<f64> = draw(3).into_iter().map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / 100_001.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 100_001.0;
        assert!(mean.abs() < 0.01 && (variance - 0.25).abs() < 0.01, "mean {mean}, variance {variance}");
    }
}
