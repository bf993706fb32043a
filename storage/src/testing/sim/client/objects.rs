//! Objects: put, read, deleted, drained; and what may stand under their names afterwards.
//!
//! While L2 has the only copy of an object, a fault of L2 excuses a failure; once L3 has it, none does. A put fails only
//! when L3 does as well. Where a silent fault damaged an object's file, an older version may stand in its place; bytes
//! that were never put under the name never may.

use std::path::Path;

use super::{Client, LONG, Outcome};
use crate::error::{Error, ErrorKind};
use crate::host::{SimulatedFiles, pause};
use crate::store::object::{DrainMode, ObjectConfig, PutOptions};
use crate::testing::sim::disk::{Fault, FaultCounts, Part};
use crate::units::{to_u64, to_usize};

/// The part of L2 that objects may use, at most: small, so that it is full now and then.
const L2_BYTES: u64 = 1 << 20;

/// The extension of a damaged object file that was moved out of the store's way.
pub(super) const ASIDE: &str = "aside";

/// Whether an object's file lies at `path`, or did.
pub(super) fn is_object(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tso" || extension == ASIDE)
}

impl Client<'_> {
    pub(super) fn object_config(&self) -> Option<ObjectConfig> {
        let plan = self.plan;
        (plan.objects > 0).then(|| ObjectConfig {
            cipher: plan.cipher,
            compressed: plan.compressed,
            drain: if plan.manual_drain { DrainMode::Manual } else { DrainMode::Background },
            ..ObjectConfig::new("/l3".into(), L2_BYTES >> (plan.seed % 5))
        })
    }

    fn some_object(&mut self) -> Option<usize> {
        let count = to_u64(self.things.len());
        (count > 0).then(|| to_usize(self.random.below(count)))
    }

    /// Whether a silent fault damaged the file of any object.
    fn objects_are_damaged(&self) -> bool {
        let disk = self.host.disk();
        let files = disk.files_below(Path::new("/"));
        files.iter().any(|file| is_object(file) && disk.is_damaged(file, 0..u64::MAX))
    }

    /// Whether an object that L2 alone has may fail.
    fn is_object_excused(&self, error: &Error, since: &FaultCounts, dirty: bool) -> bool {
        let now = self.counts();
        let struck = |part| now.harm(part) > since.harm(part);
        let slow =
            Part::ALL.into_iter().any(|part| now.count(part, Fault::Slow) > since.count(part, Fault::Slow));
        self.host.disk().has_crashed()
            || struck(Part::L3)
            || dirty && struck(Part::L2)
            || slow && matches!(error.kind(), ErrorKind::Retry | ErrorKind::Full)
            || self.objects_are_damaged()
    }

    pub(super) fn put(&mut self) -> Outcome<()> {
        let Some(index) = self.some_object() else { return Ok(()) };
        let most = self.plan.shard_blocks * u64::from(self.plan.block_bytes);
        let mut bytes = vec![0; to_usize(self.random.below(most + 1))];
        self.random.fill(&mut bytes);
        let options = PutOptions { write_through: self.random.one_in(6), ..PutOptions::default() };
        let (since, name) = (self.counts(), self.things[index].name.clone());
        let result = self.store().put(&name, &bytes, &options);
        self.host.tell(&format!(
            "putting {} bytes as {name}, attempt {}: {result:?}",
            bytes.len(),
            self.things[index].attempts.len()
        ));
        let thing = &mut self.things[index];
        thing.attempts.push(bytes);
        let attempt = thing.attempts.len() - 1;
        match result {
            Ok(_) => {
                thing.possible = vec![Some(attempt)];
                self.stats.puts.0 += 1;
                Ok(())
            }
            Err(error) => {
                thing.possible.push(Some(attempt));
                self.stats.puts.1 += 1;
                // A drain that nobody drives makes no room.
                let full = error.kind() == ErrorKind::Full && self.plan.manual_drain;
                let full = full || error.kind() == ErrorKind::Full && self.drain_is_stuck();
                if full || self.is_object_excused(&error, &since, false) {
                    return Ok(());
                }
                Err(format!("putting {name} failed without an excuse: {error}"))
            }
        }
    }

    /// Whether the drain has a reason not to make room.
    fn drain_is_stuck(&self) -> bool {
        self.store()
            .object_status()
            .is_ok_and(|status| status.stuck_objects > 0 || status.drain_error.is_some())
    }

    pub(super) fn delete(&mut self) -> Outcome<()> {
        let Some(index) = self.some_object() else { return Ok(()) };
        let (since, name) = (self.counts(), self.things[index].name.clone());
        let result = self.store().delete(&name);
        self.host.tell(&format!("deleting {name}: {result:?}"));
        let thing = &mut self.things[index];
        match result {
            Ok(_) => {
                thing.possible = vec![None];
                Ok(())
            }
            Err(error) => {
                thing.possible.push(None);
                let full =
                    error.kind() == ErrorKind::Full && (self.plan.manual_drain || self.drain_is_stuck());
                if full || self.is_object_excused(&error, &since, false) {
                    return Ok(());
                }
                Err(format!("deleting {name} failed without an excuse: {error}"))
            }
        }
    }

    pub(super) fn read_object(&mut self) -> Outcome<()> {
        match self.some_object() {
            Some(index) => self.check_object(index),
            None => Ok(()),
        }
    }

    pub(super) fn check_object(&mut self, index: usize) -> Outcome<()> {
        let (since, name) = (self.counts(), self.things[index].name.clone());
        let info = self
            .store()
            .list(&name)
            .map_err(|error| error.to_string())?
            .into_iter()
            .find(|info| info.name == name);
        let dirty = info.as_ref().is_some_and(|info| !info.on_l3);
        let read = self.store().get(&name).and_then(|object| {
            let bytes = object.read_all()?;
            if !bytes.is_empty() {
                // A part of it is the same part.
                let start = bytes.len() / 3;
                let mut part = vec![0; bytes.len() - start];
                object.read(to_u64(start), &mut part)?;
                assert!(part == bytes[start..], "two reads of {name} differ");
            }
            Ok(bytes)
        });
        self.host.tell(&format!("reading {name}, {info:?}: {:?}", read.as_ref().map(Vec::len)));
        let thing = &self.things[index];
        match read {
            Ok(bytes) => {
                self.stats.bytes += to_u64(bytes.len());
                self.stats.object_reads.0 += 1;
                if thing.possible.iter().flatten().any(|attempt| thing.attempts[*attempt] == bytes) {
                    return Ok(());
                }
                if self.objects_are_damaged() && thing.attempts.contains(&bytes) {
                    return Ok(());
                }
                let found = thing.attempts.iter().position(|attempt| *attempt == bytes);
                Err(format!("{name} holds attempt {found:?}, expected one of {:?}", thing.possible))
            }
            Err(error) => {
                self.stats.object_reads.1 += 1;
                if error.kind() == ErrorKind::Missing && info.is_none() && thing.possible.contains(&None) {
                    return Ok(());
                }
                if !self.is_object_excused(&error, &since, dirty) {
                    return Err(format!("{name} is not read, expected one of {:?}: {error}", thing.possible));
                }
                // Blocks of this read may be on their way still, and fail later.
                pause(LONG);
                Ok(())
            }
        }
    }

    pub(super) fn drain(&mut self) -> Outcome<()> {
        if self.things.is_empty() {
            return Ok(());
        }
        // What a fault of L2 made look damaged is set aside until the store is opened again.
        let since = self.opened_at;
        let drained = if self.plan.manual_drain || self.random.one_in(2) {
            self.store().drain_one().map(drop)
        } else {
            self.store().flush()
        };
        self.host.tell(&format!("draining: {drained:?}"));
        match drained {
            // A deletion is not forgotten before the catalog has forgotten it.
            Err(_) if self.counts().harm(Part::Catalog) > since.harm(Part::Catalog) => Ok(()),
            Err(error) if !self.is_object_excused(&error, &since, true) => {
                Err(format!("draining failed without an excuse: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Reads every object. Faults are off.
    pub(super) fn check_objects(&mut self) -> Outcome<()> {
        (0..self.things.len()).try_for_each(|index| self.check_object(index))
    }

    /// Moves all objects to L3 and looks at what is left. Faults are off.
    pub(super) fn drain_everything(&mut self) -> Outcome<()> {
        if self.things.is_empty() {
            return Ok(());
        }
        let damaged = self.objects_are_damaged();
        if let Err(error) = self.store().flush() {
            return if damaged { Ok(()) } else { Err(format!("the drain does not end: {error}")) };
        }
        let status = self.store().object_status().map_err(|error| error.to_string())?;
        if status.dirty_objects > 0 && !damaged {
            return Err(format!("dirty after everything was drained: {status:?}"));
        }
        if status.l2_bytes > status.l2_limit_bytes {
            return Err(format!("objects take more of L2 than they may: {status:?}"));
        }
        let on_l3 = |directory: &str| -> usize {
            let entries = self.host.disk().list(Path::new(directory)).unwrap_or_default();
            entries
                .iter()
                .filter(|entry| {
                    Path::new(&entry.name).extension().is_some_and(|e| e == "tso" || e == "partial")
                })
                .count()
        };
        let objects = to_usize(status.objects);
        if on_l3("/l3/objects") != objects && !damaged {
            return Err(format!("{} files on L3 for {objects} objects", on_l3("/l3/objects")));
        }
        if on_l3("/l2/objects") > objects && !damaged {
            return Err(format!("{} files on L2 for {objects} objects", on_l3("/l2/objects")));
        }
        Ok(())
    }
}
