//! One rank's share of an epoch, cut into batches.

use tierstream_storage::{Error, ErrorKind, Result};

use super::{Cursor, Element, Order};

/// What one rank gets, from where the job stands on.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) order: Order,
    pub(crate) rank: u64,
    pub(crate) world_size: u64,
    pub(crate) batch_size: u64,
    pub(crate) drop_last: bool,
    pub(crate) num_epochs: u64,
    /// Where to begin: epoch, elements of it that all ranks together have done, batches of it that this rank has done.
    pub(crate) epoch: u64,
    pub(crate) done: u64,
    pub(crate) batches: u64,
}

/// The elements of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchPlan {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    first: u64,
    stride: u64,
    len: u64,
    // Elements of the epoch that all ranks have done when each has had this batch.
    done: u64,
}

impl Share {
    /// # Errors
    /// `Misuse` when there is no such rank, or an epoch has nothing for it.
    pub(crate) fn check(&self) -> Result<()> {
        let misuse =
            |why: String, hint: &str| Err(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint));
        let (rank, world, all) = (self.rank, self.world_size, self.order.epoch_len());
        if self.batch_size == 0 {
            return misuse("batch size 0".to_owned(), "use a batch size of 1 or more");
        }
        if rank >= world {
            return misuse(format!("rank {rank} of {world}"), "ranks count from 0 to world size - 1");
        }
        if all <= rank {
            let why = format!("rank {rank} of {world} gets none of {all} samples");
            return misuse(why, "use fewer ranks or more data");
        }
        if self.delivered(0) == 0 {
            let why = format!("{} samples make no batch of {}", self.left(0), self.batch_size);
            return misuse(why, "use a smaller batch size, or keep the last batch");
        }
        Ok(())
    }

    /// Elements that this rank has left in an epoch of which `done` are done.
    fn left(&self, done: u64) -> u64 {
        self.order.epoch_len().saturating_sub(done.saturating_add(self.rank)).div_ceil(self.world_size)
    }

    /// How many of those it delivers. With `drop_last` all ranks get equally many full batches; without, ranks may
    /// differ by one sample.
    fn delivered(&self, done: u64) -> u64 {
        if !self.drop_last {
            return self.left(done);
        }
        let each = self.order.epoch_len().saturating_sub(done) / self.world_size;
        each - each % self.batch_size
    }

    /// Batches that this rank has left of `epoch` when `done` elements of it are done.
    pub(crate) fn batches_left(&self, epoch: u64, done: u64) -> u64 {
        if epoch >= self.num_epochs { 0 } else { self.delivered(done).div_ceil(self.batch_size) }
    }

    /// The batches, from where to begin to the end of the last epoch. They are cut from there on, so that a resumed
    /// epoch has the batches it would have had.
    pub(crate) fn batches(&self) -> impl Iterator<Item = BatchPlan> + Send + use<> {
        let share = self.clone();
        let (mut epoch, mut start, mut before) = (self.epoch, self.done, self.batches);
        let mut delivered = share.delivered(start);
        let mut position = 0;
        std::iter::from_fn(move || {
            if position >= delivered {
                // Only an epoch that was begun elsewhere can be over at once.
                (epoch, start, before, position) = (epoch.checked_add(1)?, 0, 0, 0);
                delivered = share.delivered(0);
            }
            if epoch >= share.num_epochs || delivered == 0 {
                return None;
            }
            let end = delivered.min(position + share.batch_size);
            let batch = BatchPlan {
                epoch,
                number: before,
                first: start + share.rank + position * share.world_size,
                stride: share.world_size,
                len: end - position,
                done: (start + end * share.world_size).min(share.order.epoch_len()),
            };
            before += 1;
            position = end;
            Some(batch)
        })
    }
}

impl BatchPlan {
    /// Its elements, in order.
    pub(crate) fn elements(self, cursor: &mut Cursor) -> impl Iterator<Item = Element> {
        (0..self.len).map(move |index| cursor.get(self.epoch, self.first + index * self.stride))
    }

    /// How many they are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where the loader stands after this batch: epoch, elements done by all ranks, batches done by this one.
    pub(crate) fn after(&self) -> (u64, u64, u64) {
        (self.epoch, self.done, self.number + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Shuffle;
    use super::*;
    use crate::selection::Selection;

    fn share(n: u64, shuffle: Shuffle, seed: u64, (rank, world_size): (u64, u64), batch_size: u64) -> Share {
        let order = Order::new(vec![(vec![(0, Selection::all(n), 1.0)], None)], shuffle, seed, None).unwrap();
        Share {
            order,
            rank,
            world_size,
            batch_size,
            drop_last: false,
            num_epochs: 1,
            epoch: 0,
            done: 0,
            batches: 0,
        }
    }

    fn samples(share: &Share) -> Vec<u64> {
        let mut cursor = share.order.cursor();
        share
            .batches()
            .flat_map(|batch| batch.elements(&mut cursor).collect::<Vec<_>>())
            .map(|e| e.sample)
            .collect()
    }

    #[test]
    fn impossible_shares_are_refused() {
        assert!(share(10, Shuffle::Off, 0, (2, 2), 1).check().is_err());
        assert!(share(10, Shuffle::Off, 0, (0, 0), 1).check().is_err());
        assert!(share(10, Shuffle::Off, 0, (0, 1), 0).check().is_err());
        let none = share(3, Shuffle::Off, 0, (3, 4), 1).check().unwrap_err();
        assert!(none.hint_text().unwrap().contains("fewer ranks"), "{none}");
    }

    #[test]
    fn batches_left_are_those_that_come() {
        for (rank, drop_last) in [(0, false), (2, false), (1, true)] {
            let share = Share { drop_last, num_epochs: 2, ..share(95, Shuffle::Global, 1, (rank, 3), 10) };
            let batches: Vec<BatchPlan> = share.batches().collect();
            for (number, batch) in batches.iter().enumerate() {
                let (epoch, done, _) = batch.after();
                let later = batches[number + 1..].iter().filter(|later| later.epoch == epoch).count();
                assert_eq!(share.batches_left(epoch, done), u64::try_from(later).unwrap());
            }
            assert_eq!(share.batches_left(1, 0) * 2, u64::try_from(batches.len()).unwrap());
            assert_eq!(share.batches_left(2, 0), 0);
        }
    }

    #[test]
    fn with_drop_last_all_ranks_get_as_many_batches() {
        for rank in 0..3 {
            let share =
                Share { drop_last: true, num_epochs: 2, ..share(95, Shuffle::Global, 1, (rank, 3), 10) };
            let batches: Vec<BatchPlan> = share.batches().collect();
            assert_eq!(batches.len(), 6, "31 samples a rank make 3 batches of 10 an epoch");
            assert!(batches.iter().all(|batch| batch.len() == 10));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Stop anywhere, go on with other world sizes, as often as you like: each sample of an epoch comes once, and in
        /// the order of the stream.
        #[test]
        fn any_chain_of_world_sizes_sees_each_sample_once(
            n in 1_u64..600,
            seed: u64,
            worlds in prop::collection::vec((1_u64..9, 1_u64..40, 0_u64..6), 1..5),
            kind in 0_u8..3,
        ) {
            let shuffle = [Shuffle::Off, Shuffle::Global, Shuffle::Blocks { chunk: 7, window: 3 }][usize::from(kind)];
            let alone = samples(&share(n, shuffle, seed, (0, 1), 1));
            let mut seen = Vec::new();
            let mut done = 0;
            for (turn, (world, batch, steps)) in worlds.iter().enumerate() {
                let last = turn + 1 == worlds.len();
                let steps = if last { usize::MAX } else { usize::try_from(*steps).unwrap() };
                let mut ahead = Vec::new();
                let mut after = done;
                for rank in 0..*world {
                    let share = Share { done, ..share(n, shuffle, seed, (rank, *world), *batch) };
                    let mut cursor = share.order.cursor();
                    for plan in share.batches().take(steps) {
                        ahead.extend(plan.elements(&mut cursor).map(|element| element.sample));
                        // The state of rank 0 is the one that counts.
                        if rank == 0 {
                            after = plan.after().1;
                        }
                    }
                }
                let expected = &alone[usize::try_from(done).unwrap()..usize::try_from(after).unwrap()];
                let (mut found, mut wanted) = (ahead.clone(), expected.to_vec());
                found.sort_unstable();
                wanted.sort_unstable();
                prop_assert_eq!(found, wanted, "turn {} from {} to {}", turn, done, after);
                seen.extend(ahead);
                done = after;
            }
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..n));
        }

        /// The same rank goes on at the very next sample, with the batches it would have had.
        #[test]
        fn a_rank_resumes_where_it_stood(
            n in 1_u64..300, rank in 0_u64..5, world in 1_u64..5, batch in 1_u64..50, stop in 0_usize..20, drop_last: bool, seed: u64,
        ) {
            let whole = Share { drop_last, num_epochs: 2, ..share(n, Shuffle::Global, seed, (rank % world, world), batch) };
            prop_assume!(whole.check().is_ok());
            let all: Vec<BatchPlan> = whole.batches().collect();
            let stop = stop.min(all.len());
            let (epoch, done, batches) = stop.checked_sub(1).map_or((0, 0, 0), |last| all[last].after());
            let rest: Vec<BatchPlan> = Share { epoch, done, batches, ..whole }.batches().collect();
            prop_assert_eq!(&rest, &all[stop..]);
        }
    }
}
