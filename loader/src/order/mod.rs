//! Which sample comes when: a pure function of seed, epoch, rank and world size, and of what data sets are used how.
//!
//! One endless *stream* of elements is shared by all ranks. An epoch is the next so many of them; of an epoch's elements
//! rank `r` of `w` gets `r`, `r + w`, `r + 2w`, ... So all ranks together see each element once, and where a job stands
//! is one number, the elements of the epoch that are done: another world size goes on from there.

mod mixture;
mod ranks;
mod shuffle;

pub(crate) use ranks::{BatchPlan, Share};
pub use shuffle::Shuffle;

use std::sync::Arc;

use tierstream_storage::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::permutation::mix;
use crate::selection::Selection;
use mixture::{Cache, Mixture};

/// Data sets that are mixed for a while: `(number of the data set, its samples, weight)`.
pub(crate) type StageParts = Vec<(u32, Selection, f64)>;

/// The stream of elements.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    stages: Arc<[Stage]>,
    epoch_len: u64,
    fingerprint: u64,
}

#[derive(Debug)]
struct Stage {
    // Its first element.
    start: u64,
    mixture: Mixture,
}

/// One element: a sample of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) source: u32,
    pub(crate) sample: u64,
}

impl Order {
    /// The order of `stages`, each with its number of elements; the last one goes on without end. An epoch has
    /// `epoch_len` elements, or as many as the stages have.
    ///
    /// # Errors
    /// `Misuse` for weights or lengths that make no sense.
    pub(crate) fn new(
        stages: Vec<(StageParts, Option<u64>)>,
        shuffle: Shuffle,
        seed: u64,
        epoch_len: Option<u64>,
    ) -> Result<Self> {
        let misuse =
            |why: &str, hint: &str| Err(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint));
        if let Shuffle::Blocks { chunk, window } = shuffle
            && (chunk == 0 || window == 0)
        {
            return misuse("a block shuffle over no samples", "use chunks and windows of 1 or more");
        }
        let mut hash = Xxh3::new();
        hash.update(format!("{shuffle:?}").as_bytes());
        let mut start: u64 = 0;
        let mut built = Vec::new();
        for (number, (parts, len)) in (0_u64..).zip(stages) {
            // The first stage has the user's seed, so that an order without stages is one of a single stage.
            let seed = if number == 0 { seed } else { mix(seed ^ mix(number)) };
            let mixture = Mixture::new(parts, shuffle, seed)?;
            let len = len.unwrap_or(mixture.len());
            mixture.fingerprint(&mut hash);
            hash.update(&len.to_le_bytes());
            built.push(Stage { start, mixture });
            start = start.saturating_add(len);
        }
        let epoch_len = epoch_len.unwrap_or(start);
        if epoch_len == 0 {
            return misuse("an epoch of no samples", "use an epoch size of 1 or more");
        }
        hash.update(&epoch_len.to_le_bytes());
        Ok(Self { stages: built.into(), epoch_len, fingerprint: hash.digest() })
    }

    /// Elements of an epoch.
    pub(crate) fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// Differs where another order would be given under the same seed.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Elements in order, one after the other.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { order: self.clone(), stage: 0, cache: Cache::default() }
    }
}

/// Gives elements; those that lie close together cost less.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    order: Order,
    stage: usize,
    cache: Cache,
}

impl Cursor {
    /// Element `index` of `epoch`.
    pub(crate) fn get(&mut self, epoch: u64, index: u64) -> Element {
        let global = epoch.wrapping_mul(self.order.epoch_len).wrapping_add(index);
        let stage = self.order.stages.partition_point(|stage| stage.start <= global) - 1;
        if stage != self.stage {
            (self.stage, self.cache) = (stage, Cache::default());
        }
        let Stage { start, mixture } = &self.order.stages[stage];
        let (source, sample) = mixture.get(global - start, &mut self.cache);
        Element { source, sample }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(order: &Order, epochs: u64) -> Vec<Element> {
        let mut cursor = order.cursor();
        (0..epochs)
            .flat_map(|epoch| (0..order.epoch_len()).map(move |i| (epoch, i)))
            .map(|(e, i)| cursor.get(e, i))
            .collect()
    }

    #[test]
    fn stages_follow_each_other_and_the_last_goes_on() {
        let only = |source| vec![(source, Selection::all(50), 1.0)];
        let stages = || vec![(only(0), Some(20)), (only(1), Some(70)), (only(2), Some(10))];
        let order = Order::new(stages(), Shuffle::Global, 1, None).unwrap();
        assert_eq!(order.epoch_len(), 100);
        let elements = all(&order, 2);
        let sources: Vec<u32> = elements.iter().map(|element| element.source).collect();
        assert!(sources[..20].iter().all(|s| *s == 0) && sources[20..90].iter().all(|s| *s == 1));
        assert!(sources[90..].iter().all(|s| *s == 2), "the second epoch goes on in the last stage");
        let mut second: Vec<u64> = elements[20..70].iter().map(|element| element.sample).collect();
        second.sort_unstable();
        assert!(second.into_iter().eq(0..50), "a pass of the second stage");
        // An epoch of another length cuts the same stream elsewhere.
        let short = Order::new(stages(), Shuffle::Global, 1, Some(40)).unwrap();
        assert_eq!(all(&short, 5), elements);
        assert_ne!(short.fingerprint(), order.fingerprint());
        assert!(Order::new(stages(), Shuffle::Global, 1, Some(0)).is_err());
        assert!(Order::new(Vec::new(), Shuffle::Off, 1, None).is_err());
        let none = Shuffle::Blocks { chunk: 0, window: 1 };
        assert!(Order::new(stages(), none, 1, None).is_err());
    }
}
