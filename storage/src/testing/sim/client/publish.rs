//! Publishing data sets, and what may stand under their names afterwards.

use std::sync::Arc;

use super::{Client, NAMES, Outcome, engine, names};
use crate::error::ErrorKind;
use crate::format::capacity;
use crate::store::{DataSetWriter, WriteContext};
use crate::units::{to_u64, to_usize};

impl Client<'_> {
    pub(super) fn publish(&mut self) -> Outcome<()> {
        let index = to_usize(self.random.below(to_u64(self.targets.len())));
        let overwrite = !self.random.one_in(4);
        self.publish_to(index, overwrite).map(drop)
    }

    pub(super) fn publish_to(&mut self, index: usize, overwrite: bool) -> Outcome<bool> {
        self.attempts += 1;
        let (number, blocks) = (self.attempts, self.plan.shard_blocks);
        let payload = capacity(self.plan.block_bytes);
        let attempt = self.targets[index].attempt(number, &mut self.random, blocks, payload);
        let since = self.counts();
        let published = self.try_publish(index, attempt, overwrite);
        self.host
            .tell(&format!("publishing attempt {number} to {index}, overwrite {overwrite}: {published:?}"));
        let (damaged, certain) = (self.is_damaged(index), self.targets[index].is_certain());
        let target = &self.targets[index];
        let before = target.possible.clone();
        match published {
            Ok(generation) => {
                if !overwrite && !target.may_be_absent() {
                    return Err(format!("{} was overwritten unasked", target.path.display()));
                }
                let expected = before[0].map_or(Some(0), |previous| target.attempts[previous].generation);
                if let Some(expected) = expected.filter(|_| certain && !damaged)
                    && generation != expected + 1
                {
                    return Err(format!("generation {generation} follows generation {expected}"));
                }
                self.stats.published.0 += 1;
                self.targets[index].attempts[attempt].generation = Some(generation);
                self.targets[index].is(attempt);
                Ok(true)
            }
            Err(error) => {
                self.stats.published.1 += 1;
                let refused = !overwrite && error.kind() == ErrorKind::Misuse;
                if refused && before.iter().any(Option::is_some) {
                    return Ok(false);
                }
                if !damaged && !self.is_excused(&error, index, &since) {
                    return Err(format!("publishing failed without a fault: {error}"));
                }
                self.targets[index].may_be(attempt);
                Ok(false)
            }
        }
    }

    pub(super) fn try_publish(
        &mut self,
        index: usize,
        attempt: usize,
        overwrite: bool,
    ) -> crate::error::Result<u64> {
        let (plan, target) = (self.plan, &self.targets[index]);
        let attempt = &target.attempts[attempt];
        let context = WriteContext::new_on(&self.io(), plan.block_bytes, 1, engine(self.host, self.depth()))?;
        let set = DataSetWriter::create(
            &context,
            Arc::clone(&self.keys),
            &target.path,
            overwrite,
            plan.cipher,
            plan.compressed,
            plan.block_bytes,
            1,
        )?;
        let mut shards = Vec::new();
        for (number, payload) in attempt.payloads.iter().enumerate() {
            let mut shard = set.shard(number)?;
            for piece in payload.chunks(30_011) {
                shard.write(piece)?;
            }
            shards.push(set.finish_shard(number, shard, 1, vec![(NAMES, names(attempt.number, number))])?);
        }
        set.publish(serde_json::json!({"attempt": attempt.number}), serde_json::Value::Null, shards)
    }
}
