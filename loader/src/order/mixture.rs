//! Data sets mixed by weights: which one gives element `i` of an endless stream, and which of its elements that is.
//!
//! The stream is cut into periods. Each period has exactly `quota` elements of each data set, in an order drawn from the
//! seed, so that the share of a data set is exact after every period and off by less than a period in between. Any
//! element is computed from its index alone, which is what makes a mixture resumable without replay. A data set that is
//! used up begins its next pass, in another order.

use tierstream_storage::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::Xxh3;

use super::shuffle::{Pass, Shuffle};
use crate::permutation::{Permutation, mix};
use crate::selection::Selection;

/// Elements of a period: weights are kept to four decimals.
const PERIOD: u64 = 10_000;

/// One data set of a mixture.
#[derive(Clone, Debug)]
struct Part {
    source: u32,
    selection: Selection,
    quota: u64,
    // Elements of a period that are of the parts before this one.
    before: u64,
}

/// Data sets and their shares.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    parts: Vec<Part>,
    period: u64,
    shuffle: Shuffle,
    seed: u64,
}

/// What was computed for the last element and is likely to serve the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    passes: Vec<Option<Pass>>,
    period: Option<(u64, Permutation)>,
}

impl Mixture {
    /// A mixture of `(number, samples, weight)`.
    pub(super) fn new(parts: Vec<(u32, Selection, f64)>, shuffle: Shuffle, seed: u64) -> Result<Self> {
        let misuse = |why: String| {
            let hint = "give each data set a weight above 0; they need not sum to 1";
            Err(Error::new(ErrorKind::Misuse, "mix", why).hint(hint))
        };
        if parts.is_empty() {
            return misuse("no data sets".to_owned());
        }
        if let Some((_, _, weight)) =
            parts.iter().find(|(_, _, weight)| !(*weight > 0.0 && weight.is_finite()))
        {
            return misuse(format!("a weight of {weight}"));
        }
        if let Some((number, ..)) = parts.iter().find(|(_, selection, _)| selection.len() == 0) {
            return misuse(format!("data set {number} has no samples"));
        }
        let weights: Vec<f64> = parts.iter().map(|(_, _, weight)| *weight).collect();
        let quotas = quotas(&weights);
        if let Some(index) = quotas.iter().position(|quota| *quota == 0) {
            return misuse(format!("a weight of {} is below 1/{PERIOD} of all", weights[index]));
        }
        let mut before = 0;
        let parts: Vec<Part> = parts
            .into_iter()
            .zip(&quotas)
            .map(|((source, selection, _), quota)| {
                before += quota;
                Part { source, selection, quota: *quota, before: before - quota }
            })
            .collect();
        Ok(Self { parts, period: before, shuffle, seed })
    }

    /// Samples of all its data sets.
    pub(super) fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.selection.len()).sum()
    }

    /// Data set and sample of element `index`.
    pub(super) fn get(&self, index: u64, cache: &mut Cache) -> (u32, u64) {
        let (number, index) = match &self.parts[..] {
            [_] => (0, index),
            parts => {
                let (period, at) = (index / self.period, index % self.period);
                if cache.period.as_ref().is_none_or(|(cached, _)| *cached != period) {
                    let seed = mix(self.seed ^ 0x6d69_7874_7572_6573);
                    cache.period = Some((period, Permutation::new(self.period, seed, period)));
                }
                let slot = cache.period.as_ref().map_or(at, |(_, slots)| slots.get(at));
                let number = parts.partition_point(|part| part.before <= slot) - 1;
                (number, period * parts[number].quota + (slot - parts[number].before))
            }
        };
        let part = &self.parts[number];
        let len = part.selection.len();
        let (pass, at) = (index / len, index % len);
        cache.passes.resize(self.parts.len(), None);
        let slot = &mut cache.passes[number];
        if slot.as_ref().is_none_or(|cached| cached.number() != pass) {
            // Of one data set alone the seed is the user's: its order is the same as without a mixture.
            let seed = if number == 0 { self.seed } else { mix(self.seed ^ mix(u64::from(part.source))) };
            *slot = Some(Pass::new(self.shuffle, len, seed, pass));
        }
        let at = slot.as_mut().map_or(at, |pass| pass.get(at));
        (part.source, part.selection.get(at))
    }

    pub(super) fn fingerprint(&self, hash: &mut Xxh3) {
        for part in &self.parts {
            hash.update(&part.source.to_le_bytes());
            hash.update(&part.quota.to_le_bytes());
            part.selection.fingerprint(hash);
        }
    }
}

/// Shares of a period in proportion to `weights`: rounded down, and what is left goes to the largest remainders. One
/// data set alone needs no period.
fn quotas(weights: &[f64]) -> Vec<u64> {
    if weights.len() == 1 {
        return vec![1];
    }
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / sum * PERIOD as f64).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the period")]
    let mut quotas: Vec<u64> = exact.iter().map(|share| (share + 1e-9).floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let left = PERIOD.saturating_sub(quotas.iter().sum());
    by_remainder.iter().zip(0..left).for_each(|(index, _)| quotas[*index] += 1);
    quotas
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotas_are_in_proportion_and_fill_the_period() {
        assert_eq!(quotas(&[3.0, 1.0]), [7500, 2500]);
        assert_eq!(quotas(&[0.7, 0.2, 0.1]), [7000, 2000, 1000]);
        assert_eq!(quotas(&[1.0, 1.0, 1.0]).iter().sum::<u64>(), PERIOD);
        assert_eq!(quotas(&[0.3]), [1]);
    }

    #[test]
    fn weights_without_sense_are_refused() {
        let of = |weights: &[f64]| {
            let parts = (0..).zip(weights).map(|(n, weight)| (n, Selection::all(10), *weight)).collect();
            Mixture::new(parts, Shuffle::Off, 0)
        };
        for weights in [&[][..], &[0.0], &[1.0, -1.0], &[f64::NAN], &[1.0, f64::INFINITY], &[1.0, 1e-9]] {
            assert_eq!(of(weights).unwrap_err().kind(), ErrorKind::Misuse, "{weights:?}");
        }
        let empty = Mixture::new(vec![(0, Selection::all(0), 1.0)], Shuffle::Off, 0);
        assert!(empty.unwrap_err().to_string().contains("no samples"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn shares_are_exact_and_every_data_set_is_gone_through_in_passes(
            lens in prop::collection::vec(1_u64..3000, 1..4), weights in prop::collection::vec(0.05_f64..1.0, 4), seed: u64,
        ) {
            let parts = (0..).zip(&lens).zip(&weights).map(|((n, len), w)| (n, Selection::all(*len), *w)).collect();
            let mixture = Mixture::new(parts, Shuffle::Global, seed).unwrap();
            let mut cache = Cache::default();
            let mut of: Vec<Vec<u64>> = vec![Vec::new(); lens.len()];
            for index in 0..2 * mixture.period {
                let (source, sample) = mixture.get(index, &mut cache);
                prop_assert_eq!(mixture.get(index, &mut Cache::default()), (source, sample));
                of[usize::try_from(source).unwrap()].push(sample);
            }
            for ((samples, len), part) in of.iter().zip(&lens).zip(&mixture.parts) {
                prop_assert_eq!(u64::try_from(samples.len()).unwrap(), 2 * part.quota);
                // Within a period the order of a data set's elements is drawn as well; whole passes are complete once
                // the period that ends them is over.
                let whole = 2 * part.quota / len * len;
                let mut counts = vec![0_u64; usize::try_from(*len).unwrap()];
                samples.iter().for_each(|sample| counts[usize::try_from(*sample).unwrap()] += 1);
                prop_assert!(counts.iter().all(|count| *count >= whole / len && *count <= whole / len + 1));
            }
        }
    }
}
