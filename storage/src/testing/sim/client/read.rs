//! Opening data sets and reading them, at once and ahead of need.

use std::sync::Arc;

use super::{Client, LONG, NAMES, Open, Outcome, engine, names};
use crate::error::ErrorKind;
use crate::format::capacity;
use crate::host::pause;
use crate::store::{RangeRead, RangeSource, Urgency, VerifyProgress, WriteContext, verify};
use crate::testing::sim::disk::Part;
use crate::testing::sim::model::range;
use crate::tier::BlockKey;
use crate::units::{to_u64, to_usize};

impl Client<'_> {
    /// Opens a data set, if there is one that opens.
    pub(super) fn open_set(&mut self, index: usize) -> Outcome<Option<usize>> {
        let since = self.counts();
        let path = self.targets[index].path.to_str().expect("a name of ours").to_owned();
        let opened = self.store().open_data_set(&path);
        let outcome = opened.as_ref().map(|info| info.schema.to_string());
        self.host.tell(&format!("opening {path}: {outcome:?}"));
        let target = &self.targets[index];
        match opened {
            Ok(info) => {
                let number = info.schema["attempt"].as_u64().unwrap_or(0);
                let attempt = target.find(number).ok_or_else(|| {
                    format!("{path} holds attempt {number}, expected one of {:?}", target.possible)
                })?;
                let lens: Vec<u64> = info.shards.iter().map(|shard| shard.payload_bytes).collect();
                let expected: Vec<u64> =
                    target.attempts[attempt].payloads.iter().map(|bytes| to_u64(bytes.len())).collect();
                if lens != expected {
                    return Err(format!("{path} has shards of {lens:?}, expected {expected:?}"));
                }
                self.open.push(Open { target: index, attempt, info });
                Ok(Some(self.open.len() - 1))
            }
            Err(error) => {
                let absent = error.kind() == ErrorKind::Missing && target.may_be_absent();
                // A name whose last change was not durable may go back to what it was.
                let rolled_back = error.kind() == ErrorKind::Corrupt && !target.is_certain();
                let catalog = self.counts().harm(Part::Catalog) > self.opened_at.harm(Part::Catalog);
                if absent || rolled_back || catalog || self.is_excused(&error, index, &since) {
                    return Ok(None);
                }
                Err(format!("{path} does not open: {error}"))
            }
        }
    }

    /// A data set that is open, or one that is opened now.
    pub(super) fn some_set(&mut self) -> Outcome<Option<usize>> {
        if !self.open.is_empty() && self.random.one_in(2) {
            return Ok(Some(to_usize(self.random.below(to_u64(self.open.len())))));
        }
        let target = to_usize(self.random.below(to_u64(self.targets.len())));
        self.open_set(target)
    }

    pub(super) fn read(&mut self) -> Outcome<()> {
        let Some(open) = self.some_set()? else { return Ok(()) };
        let mut wanted = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            let payloads = &self.targets[self.open[open].target].attempts[self.open[open].attempt].payloads;
            let shard = to_usize(self.random.below(to_u64(payloads.len())));
            wanted.push((shard, range(&mut self.random, &payloads[shard])));
        }
        self.read_and_compare(open, &wanted)
    }

    pub(super) fn read_and_compare(
        &mut self,
        open: usize,
        wanted: &[(usize, std::ops::Range<u64>)],
    ) -> Outcome<()> {
        let since = if self.tickets.is_empty() { self.counts() } else { self.tickets_since };
        let Open { target, attempt, info } = &self.open[open];
        let (target, attempt, info) = (*target, *attempt, Arc::clone(info));
        let mut buffers: Vec<Vec<u8>> =
            wanted.iter().map(|(_, range)| vec![0xee; to_usize(range.end - range.start)]).collect();
        let mut reads: Vec<RangeRead<'_>> = wanted
            .iter()
            .zip(&mut buffers)
            .map(|((shard, range), to)| RangeRead { shard: *shard, range: range.clone(), to })
            .collect();
        match self.store().read(&info, &mut reads) {
            Ok(()) => {
                let payloads = &self.targets[target].attempts[attempt].payloads;
                for ((shard, range), found) in wanted.iter().zip(&buffers) {
                    if *found != payloads[*shard][to_usize(range.start)..to_usize(range.end)] {
                        let path = self.targets[target].path.display();
                        return Err(format!("wrong bytes: {path} shard {shard} {range:?}"));
                    }
                    self.stats.bytes += to_u64(found.len());
                }
                self.stats.reads.0 += 1;
                Ok(())
            }
            Err(error) => {
                // What was opened before it was replaced may be gone.
                let replaced = self.targets[target].possible != vec![Some(attempt)];
                if !replaced && !self.is_excused(&error, target, &since) {
                    return Err(format!("a read failed without an excuse: {error}"));
                }
                self.stats.reads.1 += 1;
                // Blocks of this read may be on their way still, and fail later.
                pause(LONG);
                Ok(())
            }
        }
    }

    pub(super) fn prefetch(&mut self) -> Outcome<()> {
        let Some(open) = self.some_set()? else { return Ok(()) };
        let Open { target, attempt, info } = &self.open[open];
        let (target, attempt, info) = (*target, *attempt, Arc::clone(info));
        let since = self.counts();
        if self.tickets.is_empty() {
            self.tickets_since = since;
        }
        let files = self.store().files(&info).map_err(|error| error.to_string())?;
        for deadline in 0..1 + self.random.below(12) {
            // A ticket keeps its block in L1: half of it is what a prefetcher may hold.
            if to_u64(self.tickets.len()) >= self.plan.l1_blocks / 2 {
                break;
            }
            let shard = to_usize(self.random.below(to_u64(files.len())));
            let blocks =
                self.targets[target].attempts[attempt].payloads[shard].len().div_ceil(self.capacity());
            if blocks == 0 {
                continue;
            }
            let block = u32::try_from(self.random.below(to_u64(blocks))).expect("few blocks");
            let key = BlockKey { file: files[shard], block };
            match self.store().fetch(key, Urgency::announced(deadline)) {
                Ok(Some(ticket)) => self.tickets.push((target, attempt, shard, ticket)),
                Ok(None) => break,
                Err(error) => {
                    let replaced = self.targets[target].possible != vec![Some(attempt)];
                    if !replaced && !self.is_excused(&error, target, &since) {
                        return Err(format!("a fetch failed without an excuse: {error}"));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn capacity(&self) -> usize {
        to_usize(capacity(self.plan.block_bytes))
    }

    /// Drops announced reads, or waits for them and looks at what they brought.
    pub(super) fn settle_tickets(&mut self) -> Outcome<()> {
        let since = self.tickets_since;
        let all = self.random.one_in(2);
        for (target, attempt, shard, ticket) in std::mem::take(&mut self.tickets) {
            if !all && self.random.one_in(2) {
                continue;
            }
            match ticket.wait(LONG) {
                Ok(block) => {
                    let payload = &self.targets[target].attempts[attempt].payloads[shard];
                    let start = ticket.key().block as usize * self.capacity();
                    if block[..] != payload[start..payload.len().min(start + self.capacity())] {
                        return Err(format!("wrong bytes in {:?}", ticket.key()));
                    }
                }
                Err(error) => {
                    let replaced = self.targets[target].possible != vec![Some(attempt)];
                    if !replaced && !self.is_excused(&error, target, &since) {
                        return Err(format!("an announced read failed without an excuse: {error}"));
                    }
                }
            }
        }
        pause(LONG);
        Ok(())
    }

    pub(super) fn section(&mut self) -> Outcome<()> {
        let Some(open) = self.some_set()? else { return Ok(()) };
        let since = self.counts();
        let Open { target, attempt, info } = &self.open[open];
        let (target, attempt, info) = (*target, *attempt, Arc::clone(info));
        let shard = to_usize(self.random.below(to_u64(info.shards.len())));
        match self.store().section(&info, shard, NAMES) {
            Ok(found) => {
                let expected = names(self.targets[target].attempts[attempt].number, shard);
                if found.as_deref() != Some(&expected[..]) {
                    return Err("wrong bytes in a section".to_owned());
                }
            }
            Err(error) => {
                let replaced = self.targets[target].possible != vec![Some(attempt)];
                if !replaced && !self.is_excused(&error, target, &since) {
                    return Err(format!("a section failed without an excuse: {error}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn verify(&mut self) -> Outcome<()> {
        let index = to_usize(self.random.below(to_u64(self.targets.len())));
        let (plan, since) = (self.plan, self.counts());
        let path = self.targets[index].path.clone();
        let report = WriteContext::new_on(&self.io(), plan.block_bytes, 1, engine(self.host, self.depth()))
            .and_then(|context| verify(&context, &*self.keys, &path, 1, &VerifyProgress::default()));
        let error = match report {
            Ok(report) if report.error_count == 0 => return Ok(()),
            Ok(mut report) => report.errors.remove(0),
            Err(error) => error,
        };
        let absent = error.kind() == ErrorKind::Missing && self.targets[index].may_be_absent();
        if absent || self.is_excused(&error, index, &since) {
            return Ok(());
        }
        Err(format!("verification found what no fault has done: {error}"))
    }
}
