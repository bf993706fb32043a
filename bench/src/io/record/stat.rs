//! Least, greatest, mean and deviation of a stream of numbers.

/// Moments of what was added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stat {
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    sum: f64,
    squares: f64,
}

impl Stat {
    #[inline]
    pub(crate) fn add(&mut self, number: u64) {
        if self.count == 0 || number < self.min {
            self.min = number;
        }
        if number > self.max {
            self.max = number;
        }
        self.count += 1;
        let number = number as f64;
        self.sum += number;
        self.squares = number.mul_add(number, self.squares);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Of a sample, as fio has it.
    pub(crate) fn stddev(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / count) / (count - 1.0);
        variance.max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let numbers = [2_u64, 4, 4, 4, 5, 5, 7, 9];
        let mut whole = Stat::default();
        let mut parts = [Stat::default(); 2];
        for (at, number) in numbers.into_iter().enumerate() {
            whole.add(number);
            parts[at % 2].add(number);
        }
        assert_eq!((whole.count, whole.min, whole.max), (8, 2, 9));
        assert!((whole.mean() - 5.0).abs() < 1e-9);
        assert!((whole.stddev() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-9, "{}", whole.stddev());
        let mut merged = Stat::default();
        parts.iter().for_each(|part| merged.merge(part));
        assert_eq!((merged.count, merged.min, merged.max), (8, 2, 9));
        assert!((merged.stddev() - whole.stddev()).abs() < 1e-9);
    }
}
