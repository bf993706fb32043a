//! Where a loader stands: a few integers, enough to go on at the very next sample.

use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

/// The position of a loader. Under 1 KB as JSON, whatever the size of the data set.
///
/// It names an order and how much of it is done by all ranks together, so that any number of ranks can go on. Where the
/// world size changes, all ranks load the state of one and the same rank: rank 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// The data set's id; of the first, where several are mixed.
    pub data_set: String,
    /// Its generation.
    pub generation: u64,
    /// Differs with anything else that decides the order: other data sets, weights, stages, selection, epoch size, kind
    /// of shuffle.
    pub order: String,
    /// Seed of the shuffle.
    pub seed: u64,
    /// The rank that saved it.
    pub rank: u64,
    /// Number of ranks then.
    pub world_size: u64,
    /// The epoch the next sample belongs to.
    pub epoch: u64,
    /// Samples of that epoch that all ranks together have delivered, if each has had as many batches as this one.
    pub done: u64,
    /// Batches of that epoch that this rank has delivered.
    pub batches: u64,
}

impl LoaderState {
    /// Checks that `self` was saved by a loader that gives the same order as `now`.
    ///
    /// # Errors
    /// `Misuse`, naming what differs.
    pub(crate) fn check_same_order(&self, now: &Self) -> Result<()> {
        let differs = [
            ("data set", self.data_set.clone(), now.data_set.clone()),
            ("generation", self.generation.to_string(), now.generation.to_string()),
            ("seed", self.seed.to_string(), now.seed.to_string()),
            ("order", self.order.clone(), now.order.clone()),
        ];
        for (what, saved, now) in differs {
            if saved != now {
                let why = format!("the state was saved with {what} {saved}, this loader has {now}");
                return Err(Error::new(ErrorKind::Misuse, "load state", why).hint(
                    "use the settings of the run that saved it (data sets, weights, shuffle, seed, epoch size), or start \
                     without its state",
                ));
            }
        }
        Ok(())
    }
}
