//! The client of a simulated store: publishes, reads and compares, closes and opens, breaks L2, and at the end checks
//! that all is there, healed and tidy.
//!
//! It knows from the disks' own counts whether a failure has an excuse: a fault of L3 while the operation ran, damage
//! that a fault left in the only copy, a device slower than the store's patience, a catalog whose file failed. Whatever
//! happens on L2 is no excuse.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Fault, FaultCounts, Part};
use super::engine::SimEngine;
use super::host::SimHost;
use super::model::{Target, range};
use super::stats::Stats;
use super::swarm::Plan;
use crate::buf::Arena;
use crate::error::{Error, ErrorKind};
use crate::format::{SectionType, capacity};
use crate::host::{SimulatedFiles, pause};
use crate::io::{EngineReport, IoEngine, ServiceConfig};
use crate::keys::{KeyProvider, RootKey};
use crate::store::{
    DataSetInfo, DataSetWriter, RangeRead, RangeSource, Store, StoreConfig, Urgency, VerifyProgress,
    WriteContext, verify,
};
use crate::testing::Random;
use crate::tier::{BlockKey, Ticket};
use crate::units::{to_u64, to_usize};

/// Kinds of actions.
pub(super) const ACTIONS: usize = 10;

/// A section of each shard's index; as long as a few blocks.
const NAMES: SectionType = SectionType(18);
/// Longer than a read from L2 and two from L3 take, each as slow as can be.
const LONG: Duration = Duration::from_secs(600);
/// Openings with faults before they are turned off.
const OPENS_WITH_FAULTS: u32 = 4;

type Outcome<T> = Result<T, String>;

struct Open {
    target: usize,
    attempt: usize,
    info: Arc<DataSetInfo>,
}

struct Client<'a> {
    host: &'a Arc<SimHost>,
    plan: &'a Plan,
    random: Random,
    keys: Arc<dyn KeyProvider>,
    targets: Vec<Target>,
    store: Option<Store>,
    open: Vec<Open>,
    // Announced reads under way, the blocks they are for, and the counts of faults when the first was started.
    tickets: Vec<(usize, usize, usize, Ticket)>,
    tickets_since: FaultCounts,
    opened_at: FaultCounts,
    attempts: u64,
    stats: Stats,
}

/// Runs `plan` on `host`, on a thread of the host.
pub(super) fn run(host: &Arc<SimHost>, plan: &Plan) -> Outcome<Stats> {
    let root = RootKey::random("simulation").map_err(|error| error.to_string())?;
    let mut client = Client {
        host,
        plan,
        random: Random::new(plan.seed ^ 0xc11e),
        keys: Arc::new(root),
        targets: (0..plan.targets).map(Target::new).collect(),
        store: None,
        open: Vec::new(),
        tickets: Vec::new(),
        tickets_since: FaultCounts::default(),
        opened_at: FaultCounts::default(),
        attempts: 0,
        stats: Stats::default(),
    };
    client.stats.count_mode(plan.mode);
    host.disk().turn_faults(true);
    client.arm();
    client.open_store()?;
    for number in 0..plan.actions {
        let action = client.draw();
        host.tell(&format!("action {number} of kind {action}"));
        client.act(action).map_err(|what| format!("action {number} (kind {action}): {what}"))?;
        client.restart_if_crashed().map_err(|what| format!("restart after action {number}: {what}"))?;
    }
    client.finish().map_err(|what| format!("at the end: {what}"))?;
    Ok(client.stats)
}

/// An engine on the disks of `host`.
fn engine(
    host: &Arc<SimHost>,
    depth: usize,
) -> impl FnOnce(&Arc<Arena>) -> crate::error::Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static + use<>
{
    let host = Arc::clone(host);
    move |_| {
        let engine = SimEngine::new(host, depth);
        let report = engine.report();
        Ok((Box::new(engine) as Box<dyn IoEngine>, report))
    }
}

impl Client<'_> {
    fn draw(&mut self) -> usize {
        let mut left = self.random.below(self.plan.weights.iter().sum());
        for (action, weight) in self.plan.weights.iter().enumerate() {
            if left < *weight {
                return action;
            }
            left -= weight;
        }
        unreachable!("the weights sum up to what was drawn from")
    }

    fn act(&mut self, action: usize) -> Outcome<()> {
        match action {
            0 => self.publish(),
            1 => self.read(),
            2 => self.prefetch(),
            3 => self.settle_tickets(),
            4 => self.reopen(),
            5 => {
                self.host.disk().rot(Part::L2);
                Ok(())
            }
            6 => {
                pause(Duration::from_millis(self.random.below(5_000)));
                Ok(())
            }
            7 => self.lose_a_file_of_l2(),
            8 => self.section(),
            _ => self.verify(),
        }
    }

    fn counts(&self) -> FaultCounts {
        self.host.disk().counts()
    }

    fn arm(&mut self) {
        if self.plan.crashes() {
            self.host.disk().crash_in(1 + self.random.below(self.plan.crash_every));
        }
    }

    fn io(&self) -> ServiceConfig {
        ServiceConfig {
            fast_depth: self.plan.depths.0,
            slow_depth: self.plan.depths.1,
            ..ServiceConfig::default()
        }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            l1_bytes: self.plan.l1_blocks * u64::from(self.plan.block_bytes),
            block_bytes: self.plan.block_bytes,
            l2: self.plan.l2_config(),
            l2_write_rate: self.plan.l2_write_rate,
            io: self.io(),
            codec_threads: self.plan.codec_threads,
            patience: self.plan.patience,
            clock: Arc::clone(self.host) as Arc<dyn crate::clock::Clock>,
            ..StoreConfig::default()
        }
    }

    fn depth(&self) -> usize {
        self.plan.depths.0 + self.plan.depths.1
    }

    fn open_store(&mut self) -> Outcome<()> {
        for attempt in 0.. {
            if attempt == OPENS_WITH_FAULTS {
                self.host.disk().turn_faults(false);
            }
            self.opened_at = self.counts();
            let opened =
                Store::open_on(self.config(), Arc::clone(&self.keys), engine(self.host, self.depth()));
            self.stats.opens += 1;
            self.host.tell(&format!("opening the store: {:?}", opened.as_ref().map(drop)));
            match opened {
                Ok(store) => {
                    self.store = Some(store);
                    break;
                }
                Err(_) if self.host.disk().has_crashed() => self.restart_machine(),
                Err(error) => {
                    let now = self.counts();
                    let excused = [Part::L2, Part::Catalog]
                        .into_iter()
                        .any(|part| now.harm(part) > self.opened_at.harm(part));
                    if !excused {
                        return Err(format!("the store does not open: {error}"));
                    }
                }
            }
        }
        self.host.disk().turn_faults(true);
        Ok(())
    }

    fn close_store(&mut self) {
        self.tickets.clear();
        self.open.clear();
        if let Some(store) = self.store.take() {
            let seen = store.metrics();
            self.stats.heals += seen.l2_dropped_blocks;
            self.stats.hits.0 += seen.l2.hits;
            self.stats.hits.1 += seen.l3.hits;
        }
    }

    fn reopen(&mut self) -> Outcome<()> {
        self.close_store();
        self.open_store()
    }

    fn restart_machine(&mut self) {
        self.host.tell("crashed, starts again");
        self.host.disk().restart();
        self.stats.crashes += 1;
        self.arm();
    }

    fn restart_if_crashed(&mut self) -> Outcome<()> {
        if !self.host.disk().has_crashed() {
            return Ok(());
        }
        self.close_store();
        self.restart_machine();
        self.open_store()
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between actions")
    }

    /// Whether an error is the fault plan's doing: see the module's documentation.
    fn is_excused(&self, error: &Error, target: usize, since: &FaultCounts) -> bool {
        let (disk, now) = (self.host.disk(), self.counts());
        let slow = |counts: &FaultCounts| -> u64 {
            Part::ALL.into_iter().map(|part| counts.count(part, Fault::Slow)).sum()
        };
        disk.has_crashed()
            || now.harm(Part::L3) > since.harm(Part::L3)
            || slow(&now) > slow(since) && matches!(error.kind(), ErrorKind::Retry | ErrorKind::Full)
            || self.is_damaged(target)
    }

    fn is_damaged(&self, target: usize) -> bool {
        let disk = self.host.disk();
        disk.files_below(&self.targets[target].path).iter().any(|file| disk.is_damaged(file, 0..u64::MAX))
    }

    fn publish(&mut self) -> Outcome<()> {
        let index = to_usize(self.random.below(to_u64(self.targets.len())));
        let overwrite = !self.random.one_in(4);
        self.publish_to(index, overwrite).map(drop)
    }

    fn publish_to(&mut self, index: usize, overwrite: bool) -> Outcome<bool> {
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

    fn try_publish(&mut self, index: usize, attempt: usize, overwrite: bool) -> crate::error::Result<u64> {
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

    /// Opens a data set, if there is one that opens.
    fn open_set(&mut self, index: usize) -> Outcome<Option<usize>> {
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
    fn some_set(&mut self) -> Outcome<Option<usize>> {
        if !self.open.is_empty() && self.random.one_in(2) {
            return Ok(Some(to_usize(self.random.below(to_u64(self.open.len())))));
        }
        let target = to_usize(self.random.below(to_u64(self.targets.len())));
        self.open_set(target)
    }

    fn read(&mut self) -> Outcome<()> {
        let Some(open) = self.some_set()? else { return Ok(()) };
        let mut wanted = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            let payloads = &self.targets[self.open[open].target].attempts[self.open[open].attempt].payloads;
            let shard = to_usize(self.random.below(to_u64(payloads.len())));
            wanted.push((shard, range(&mut self.random, &payloads[shard])));
        }
        self.read_and_compare(open, &wanted)
    }

    fn read_and_compare(&mut self, open: usize, wanted: &[(usize, std::ops::Range<u64>)]) -> Outcome<()> {
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

    fn prefetch(&mut self) -> Outcome<()> {
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

    fn capacity(&self) -> usize {
        to_usize(capacity(self.plan.block_bytes))
    }

    /// Drops announced reads, or waits for them and looks at what they brought.
    fn settle_tickets(&mut self) -> Outcome<()> {
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

    fn section(&mut self) -> Outcome<()> {
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

    fn verify(&mut self) -> Outcome<()> {
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

    fn lose_a_file_of_l2(&mut self) -> Outcome<()> {
        let disk = self.host.disk();
        let files = disk.files_of(Part::L2);
        if !files.is_empty() {
            let file = &files[to_usize(self.random.below(to_u64(files.len())))];
            // A fault or a crash may come between.
            let _removed = disk.remove_file(file);
        }
        Ok(())
    }

    /// Reads all there is and compares. Faults are off.
    fn read_everything(&mut self) -> Outcome<()> {
        for target in 0..self.targets.len() {
            let Some(open) = self.open_set(target)? else { continue };
            let payloads = &self.targets[target].attempts[self.open[open].attempt].payloads;
            let wanted: Vec<_> =
                payloads.iter().enumerate().map(|(shard, bytes)| (shard, 0..to_u64(bytes.len()))).collect();
            self.read_and_compare(open, &wanted)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome<()> {
        let disk = self.host.disk().clone();
        self.close_store();
        disk.turn_faults(false);
        disk.crash_in(0);
        if disk.has_crashed() {
            self.stats.crashes += 1;
            disk.restart();
        }
        for pass in 0..3 {
            self.open_store()?;
            disk.turn_faults(false);
            self.read_everything()?;
            if pass == 1 {
                // What the first pass found damaged on L2 has been replaced by now.
                let dropped = self.store().metrics().l2_dropped_blocks;
                if dropped > 0 {
                    return Err(format!("{dropped} blocks of L2 were damaged, read from L3, and not healed"));
                }
                self.publish_everything()?;
                self.read_everything()?;
            }
            pause(LONG);
            let (free, all) = self.store().free_buffers();
            if free != all {
                return Err(format!("{} of {all} I/O buffers did not come back", all - free));
            }
            self.close_store();
        }
        self.check_tidiness()
    }

    /// Publishes to every name, which also removes what cut-off publications left.
    fn publish_everything(&mut self) -> Outcome<()> {
        for target in 0..self.targets.len() {
            if !self.publish_to(target, true)? && !self.is_damaged(target) {
                return Err(format!("{} cannot be published", self.targets[target].path.display()));
            }
        }
        Ok(())
    }

    fn check_tidiness(&mut self) -> Outcome<()> {
        let disk = self.host.disk();
        let names = disk.list(Path::new("/l3")).map_err(|error| error.to_string())?;
        for entry in names {
            let path = Path::new("/l3").join(&entry.name);
            // Where the data set is damaged nobody could publish, which is what removes leftovers.
            let explains = |index: &usize| {
                let target = &self.targets[*index];
                let leftover = || {
                    let name = target.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    entry.name.to_str().is_some_and(|found| found.starts_with(&format!(".{name}.partial-")))
                };
                target.path == path || self.is_damaged(*index) && leftover()
            };
            if !(0..self.targets.len()).any(|index| explains(&index)) {
                return Err(format!("{} was left behind", path.display()));
            }
        }
        for target in self.targets.iter().filter(|target| target.is_certain()) {
            let expected =
                target.possible[0].map_or(0, |attempt| target.attempts[attempt].payloads.len() + 1);
            let found = disk.files_below(&target.path).len();
            if found != expected {
                return Err(format!("{} has {found} files, expected {expected}", target.path.display()));
            }
        }
        Ok(())
    }
}

/// The section of a shard.
fn names(attempt: u64, shard: usize) -> Vec<u8> {
    let mut bytes = vec![0; 9_000];
    Random::new(attempt << 8 ^ to_u64(shard)).fill(&mut bytes);
    bytes
}
