//! Where a loader stands: a few integers, enough to go on at the very next sample.

use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

/// The position of a loader. Under 1 KB as JSON, whatever the size of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// The data set's id.
    pub data_set: String,
    /// Its generation.
    pub generation: u64,
    /// Whether samples are shuffled.
    pub shuffle: bool,
    /// Seed of the shuffle.
    pub seed: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// The epoch the next sample belongs to.
    pub epoch: u64,
    /// Samples of that epoch that this rank has delivered.
    pub position: u64,
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
            ("shuffle", self.shuffle.to_string(), now.shuffle.to_string()),
            ("seed", self.seed.to_string(), now.seed.to_string()),
            ("rank", self.rank.to_string(), now.rank.to_string()),
            ("world size", self.world_size.to_string(), now.world_size.to_string()),
        ];
        for (what, saved, now) in differs {
            if saved != now {
                let why = format!("the state was saved with {what} {saved}, this loader has {now}");
                return Err(Error::new(ErrorKind::Misuse, "load state", why)
                    .hint("use the settings of the run that saved it, or start without its state"));
            }
        }
        Ok(())
    }
}
