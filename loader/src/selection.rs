//! Which samples of a data set are used: all, a range, a share of a random split, those that a filter kept.
//!
//! A selection is a chain of steps from an index to a sample's number, so that a split of a filtered range is one too.
//! Ranges and splits take a few words whatever their length; a filter takes 8 bytes for each sample it keeps.

use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::permutation::Permutation;

/// Samples of a data set in an order of their own.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    len: u64,
    // From the outermost step in.
    steps: Arc<[Step]>,
}

#[derive(Clone, Debug)]
enum Step {
    From(u64),
    Permuted { by: Permutation, seed: u64, from: u64 },
    Ids(Arc<[u64]>),
}

impl Selection {
    /// All of `len` samples.
    pub(crate) fn all(len: u64) -> Self {
        Self { len, steps: Arc::new([]) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The number of the sample at `index`.
    pub(crate) fn get(&self, index: u64) -> u64 {
        debug_assert!(index < self.len, "sample {index} of {}", self.len);
        self.steps.iter().fold(index, |index, step| match step {
            Step::From(start) => start + index,
            Step::Permuted { by, from, .. } => by.get(from + index),
            Step::Ids(ids) => {
                usize::try_from(index).ok().and_then(|at| ids.get(at)).copied().unwrap_or(index)
            }
        })
    }

    fn narrowed(&self, len: u64, step: Step) -> Self {
        Self { len, steps: std::iter::once(step).chain(self.steps.iter().cloned()).collect() }
    }

    /// Those at `range`, which lies within this selection.
    pub(crate) fn range(&self, range: Range<u64>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        self.narrowed(range.end - range.start, Step::From(range.start))
    }

    /// Those at `range` of a shuffled order.
    pub(crate) fn share(&self, seed: u64, range: Range<u64>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // An epoch that no loader reaches: a share is no part of any loader's order.
        let by = Permutation::new(self.len, seed, u64::MAX);
        self.narrowed(range.end - range.start, Step::Permuted { by, seed, from: range.start })
    }

    /// Those at these indexes.
    pub(crate) fn ids(&self, indexes: Vec<u64>) -> Self {
        let len = u64::try_from(indexes.len()).expect("memory holds them");
        self.narrowed(len, Step::Ids(indexes.into()))
    }

    /// Differs where another order or set of samples is selected.
    pub(crate) fn fingerprint(&self, hash: &mut Xxh3) {
        hash.update(&self.len.to_le_bytes());
        for step in &*self.steps {
            let mut put = |kind: u64, value: u64| {
                hash.update(&kind.to_le_bytes());
                hash.update(&value.to_le_bytes());
            };
            match step {
                Step::From(start) => put(1, *start),
                Step::Permuted { seed, from, .. } => (put(2, *seed), put(3, *from)).1,
                Step::Ids(ids) => ids.iter().for_each(|id| put(4, *id)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(selection: &Selection) -> Vec<u64> {
        (0..selection.len()).map(|index| selection.get(index)).collect()
    }

    #[test]
    fn steps_are_chained() {
        let all = Selection::all(100);
        assert!(samples(&all).into_iter().eq(0..100));
        let range = all.range(10..20);
        assert!(samples(&range).into_iter().eq(10..20));
        assert_eq!(samples(&range.ids(vec![0, 9, 3])), [10, 19, 13]);
        assert_eq!(samples(&range.ids(vec![0, 9, 3]).range(1..3)), [19, 13]);
        let (first, second) = (range.share(5, 0..7), range.share(5, 7..10));
        let mut both = [samples(&first), samples(&second)].concat();
        assert_ne!(both, samples(&range), "a share is drawn at random");
        both.sort_unstable();
        assert!(both.into_iter().eq(10..20));
        let print = |selection: &Selection| {
            let mut hash = Xxh3::new();
            selection.fingerprint(&mut hash);
            hash.digest()
        };
        assert_ne!(print(&first), print(&second));
        assert_ne!(print(&range), print(&all.range(11..21)));
    }
}
