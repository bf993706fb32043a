//! The client of a simulated store: publishes, reads and compares, closes and opens, breaks L2, and at the end checks
//! that all is there, healed and tidy.
//!
//! It knows from the disks' own counts whether a failure has an excuse: a fault of L3 while the operation ran, damage
//! that a fault left in the only copy, a device slower than the store's patience, a catalog whose file failed. Whatever
//! happens on L2 is no excuse.

mod finish;
mod objects;
mod publish;
mod read;

use std::sync::Arc;
use std::time::Duration;

use super::disk::{Fault, FaultCounts, Part};
use super::engine::SimEngine;
use super::host::SimHost;
use super::model::{Target, Thing};
use super::stats::Stats;
use super::swarm::Plan;
use crate::buf::Arena;
use crate::error::{Error, ErrorKind};
use crate::format::SectionType;
use crate::host::{SimulatedFiles, pause};
use crate::io::{EngineReport, IoEngine, ServiceConfig};
use crate::keys::{KeyProvider, RootKey};
use crate::store::{DataSetInfo, RangeSource, Store, StoreConfig};
use crate::testing::Random;
use crate::tier::Ticket;
use crate::units::{to_u64, to_usize};

/// Kinds of actions.
pub(super) const ACTIONS: usize = 14;

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
    things: Vec<Thing>,
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
        things: (0..plan.objects).map(Thing::new).collect(),
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
            9 => self.verify(),
            10 => self.put(),
            11 => self.read_object(),
            12 => self.delete(),
            _ => self.drain(),
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
            objects: self.object_config(),
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
            self.stats.unsure_opens.0 += u64::from(opened.is_err());
            self.host.tell(&format!("opening the store: {:?}", opened.as_ref().map(drop)));
            match opened {
                Ok(store) => {
                    let unopened = store.recovery().is_ok_and(|report| report.unreadable > 0);
                    self.stats.unsure_opens.1 += u64::from(unopened);
                    self.store = Some(store);
                    break;
                }
                Err(_) if self.host.disk().has_crashed() => self.restart_machine(),
                Err(error) if self.put_aside(&error) => {}
                Err(error) => {
                    let now = self.counts();
                    // Objects are looked for on L3 as well.
                    let excused = [Part::L2, Part::Catalog, Part::L3]
                        .into_iter()
                        .filter(|part| *part != Part::L3 || self.plan.objects > 0)
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

    /// Does what the hint of an opening says that met a damaged object file. Whether there was one.
    fn put_aside(&self, error: &Error) -> bool {
        let disk = self.host.disk();
        let place = error.place().map(|place| place.path.as_path());
        let Some(file) = place.filter(|file| objects::is_object(file) && disk.is_damaged(file, 0..u64::MAX))
        else {
            return false;
        };
        self.host.tell(&format!("{} is damaged and put aside", file.display()));
        // A fault or a crash may come between: then it is met again.
        let _renamed = disk.rename(file, &file.with_extension(objects::ASIDE), true, false);
        true
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

    fn lose_a_file_of_l2(&mut self) -> Outcome<()> {
        let disk = self.host.disk();
        let mut files = disk.files_of(Part::L2);
        // Objects are no cache.
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        if !files.is_empty() {
            let file = &files[to_usize(self.random.below(to_u64(files.len())))];
            // A fault or a crash may come between.
            let _removed = disk.remove_file(file);
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
