//! Which sample comes when: a pure function of seed, epoch, rank and world size.

use tierstream_storage::{Error, ErrorKind, Result};

use crate::permutation::Permutation;

/// The order of samples for one rank. Rank `r` of `w` gets elements `r`, `r + w`, `r + 2w`, ... of the global order, so
/// that all ranks together see every sample of an epoch once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    samples: u64,
    shuffle: bool,
    seed: u64,
    rank: u64,
    world_size: u64,
}

impl Sampler {
    /// The order of `samples` samples for `rank` of `world_size`.
    ///
    /// # Errors
    /// `Misuse` when there is no such rank, or no sample for it.
    pub fn new(samples: u64, shuffle: bool, seed: u64, rank: u64, world_size: u64) -> Result<Self> {
        let misuse =
            |why: String, hint: &str| Err(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint));
        if rank >= world_size {
            return misuse(format!("rank {rank} of {world_size}"), "ranks count from 0 to world size - 1");
        }
        if samples <= rank {
            return misuse(
                format!("rank {rank} of {world_size} gets none of {samples} samples"),
                "use fewer ranks or more data",
            );
        }
        Ok(Self { samples, shuffle, seed, rank, world_size })
    }

    /// Samples that this rank sees in an epoch. Ranks differ by one at most.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.samples - self.rank).div_ceil(self.world_size)
    }

    /// Never: a sampler without samples is not made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The order of `epoch`.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> EpochOrder {
        let permutation = self.shuffle.then(|| Permutation::new(self.samples, self.seed, epoch));
        EpochOrder { permutation, rank: self.rank, world_size: self.world_size }
    }
}

/// The order of one epoch for one rank.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    permutation: Option<Permutation>,
    rank: u64,
    world_size: u64,
}

impl EpochOrder {
    /// The sample at `position` of this rank's order.
    #[must_use]
    pub fn sample(&self, position: u64) -> u64 {
        let global = self.rank + position * self.world_size;
        self.permutation.as_ref().map_or(global, |permutation| permutation.get(global))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn impossible_ranks_are_refused() {
        assert!(Sampler::new(10, true, 0, 2, 2).is_err());
        assert!(Sampler::new(10, true, 0, 0, 0).is_err());
        let none = Sampler::new(3, true, 0, 3, 4).unwrap_err();
        assert!(none.hint_text().unwrap().contains("fewer ranks"), "{none}");
    }

    proptest! {
        #[test]
        fn ranks_share_an_epoch_without_loss_or_repeat(
            samples in 1_u64..500, world in 1_u64..9, seed: u64, epoch in 0_u64..5, shuffle: bool,
        ) {
            let world = world.min(samples);
            let mut seen = Vec::new();
            for rank in 0..world {
                let sampler = Sampler::new(samples, shuffle, seed, rank, world).unwrap();
                let order = sampler.epoch(epoch);
                seen.extend((0..sampler.len()).map(|position| order.sample(position)));
            }
            let alone = Sampler::new(samples, shuffle, seed, 0, 1).unwrap().epoch(epoch);
            if world == 1 {
                prop_assert!(seen.iter().copied().eq((0..samples).map(|position| alone.sample(position))));
            }
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..samples));
        }
    }
}
