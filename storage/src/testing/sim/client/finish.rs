//! The end of a seed, with faults off: all is there, healed and tidy.

use std::path::Path;
use std::time::Duration;

use super::{Client, LONG, Outcome};
use crate::host::{SimulatedFiles, pause};
use crate::store::RangeSource;
use crate::units::to_u64;

/// Moments at which buffers are counted.
const LOOKS: u64 = 20;

impl Client<'_> {
    /// Reads all there is and compares. Faults are off.
    pub(super) fn read_everything(&mut self) -> Outcome<()> {
        for target in 0..self.targets.len() {
            let Some(open) = self.open_set(target)? else { continue };
            let payloads = &self.targets[target].attempts[self.open[open].attempt].payloads;
            let wanted: Vec<_> =
                payloads.iter().enumerate().map(|(shard, bytes)| (shard, 0..to_u64(bytes.len()))).collect();
            self.read_and_compare(open, &wanted)?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Outcome<()> {
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
            self.check_objects()?;
            if pass == 1 {
                self.drain_everything()?;
                // What the first pass found damaged on L2 has been replaced by now.
                let dropped = self.store().metrics().l2_dropped_blocks;
                if dropped > 0 {
                    return Err(format!("{dropped} blocks of L2 were damaged, read from L3, and not healed"));
                }
                self.publish_everything()?;
                self.read_everything()?;
            }
            self.check_buffers()?;
            self.close_store();
        }
        self.check_tidiness()
    }

    /// Every I/O buffer comes back once nothing is asked for. A drain that tries again now and then holds one for the
    /// time of a read.
    fn check_buffers(&mut self) -> Outcome<()> {
        let mut held = 0;
        for moment in 0..LOOKS {
            pause(LONG + Duration::from_micros(997 * moment));
            let (free, all) = self.store().free_buffers();
            held = all - free;
            if held == 0 {
                return Ok(());
            }
        }
        Err(format!("{held} I/O buffers did not come back"))
    }

    /// Publishes to every name, which also removes what cut-off publications left.
    pub(super) fn publish_everything(&mut self) -> Outcome<()> {
        for target in 0..self.targets.len() {
            if !self.publish_to(target, true)? && !self.is_damaged(target) {
                return Err(format!("{} cannot be published", self.targets[target].path.display()));
            }
        }
        Ok(())
    }

    pub(super) fn check_tidiness(&mut self) -> Outcome<()> {
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
            let objects = path == Path::new("/l3/objects") && !self.things.is_empty();
            if !objects && !(0..self.targets.len()).any(|index| explains(&index)) {
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
