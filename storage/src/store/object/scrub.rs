//! Walks the files of objects on L2 and L3, authenticates every block, and lets each tier heal the other.
//!
//! A copy on L2 that is damaged goes when L3 has the object; one on L3 is written again from L2 when that is whole. What is
//! damaged on its only tier is told with file, block and offset, and left as it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::area::Area;
use super::objects::Objects;
use super::record::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Priority;
use crate::store::Store;
use crate::store::core::Core;
use crate::store::error_list::ErrorList;
use crate::store::sealed_file::{Expected, SealedFile};
use crate::store::verify::{Tally, VerifyProgress, check_file};

/// What a scrub of objects found and did.
#[derive(Debug, Default)]
pub struct ObjectScrub {
    /// Files looked at on L2, and on L3.
    pub files: (u64, u64),
    /// Blocks that are whole.
    pub blocks: u64,
    /// Files found damaged or unreadable on L2, and on L3.
    pub damaged: (u64, u64),
    /// Of those, dropped from L2 because L3 has them, and written to L3 anew from L2.
    pub healed: (u64, u64),
    /// Damage that remains, at most a hundred entries.
    pub errors: Vec<Error>,
    /// How much of that there is in all.
    pub error_count: u64,
}

#[derive(Debug, Default)]
struct Counts {
    files: [AtomicU64; 2],
    damaged: [AtomicU64; 2],
    healed: [AtomicU64; 2],
    blocks: AtomicU64,
    errors: ErrorList,
}

impl Store {
    /// Reads and authenticates every file of an object, on both tiers, on `threads` threads, and heals what the other tier
    /// can heal. Damage is reported, not returned as an error.
    ///
    /// # Errors
    /// `Misuse` for a store without objects; `Interrupted` when it was stopped; as the drain, when what L3 had lost is
    /// written there again.
    pub fn scrub_objects(&self, threads: usize, progress: &VerifyProgress) -> Result<ObjectScrub> {
        let core = self.core();
        let objects = core.objects()?;
        let all: Vec<(String, Record)> = {
            let state = objects.lock();
            state.entries.iter().map(|(name, entry)| (name.clone(), entry.record)).collect()
        };
        let (counts, next) = (Counts::default(), AtomicUsize::new(0));
        let work = || -> Result<()> {
            while let Some((name, record)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                if progress.stop.load(Ordering::Relaxed) {
                    break;
                }
                core.scrub_object(objects, name, record, progress, &counts)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.clamp(1, 64)).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let joined = |worker: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            others.into_iter().map(joined).fold(mine, Result::and)
        })?;
        if progress.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "scrub", "stopped before the end"));
        }
        let Counts { files, damaged, healed, blocks, errors } = counts;
        let pair = |[l2, l3]: [AtomicU64; 2]| (l2.into_inner(), l3.into_inner());
        let healed = pair(healed);
        if healed.1 > 0 {
            core.flush()?;
        }
        let (errors, error_count) = errors.into_parts();
        let (files, damaged) = (pair(files), pair(damaged));
        Ok(ObjectScrub { files, blocks: blocks.into_inner(), damaged, healed, errors, error_count })
    }
}

impl Core {
    fn scrub_object(
        &self,
        objects: &Objects,
        name: &str,
        record: &Record,
        progress: &VerifyProgress,
        counts: &Counts,
    ) -> Result<()> {
        let mut found = [None, None];
        for (tier, area) in [(0, objects.l2.as_ref().filter(|_| record.on_l2)), (1, Some(&objects.l3))] {
            let Some(area) = area.filter(|_| tier == 0 || record.on_l3) else { continue };
            let errors = self.check_object(area, record, progress, counts)?;
            // Replaced, deleted or moved meanwhile: then its file may go while it is read.
            let now = objects.lock().entries.get(name).map(|entry| entry.record);
            if now.is_none_or(|now| (now.version, now.on_l2, now.on_l3) != place_of(record)) {
                return Ok(());
            }
            counts.files[tier].fetch_add(1, Ordering::Relaxed);
            counts.damaged[tier].fetch_add(u64::from(!errors.0.is_empty()), Ordering::Relaxed);
            found[tier] = Some(errors);
        }
        let whole = |tier: usize| found[tier].as_ref().is_some_and(|(errors, _)| errors.is_empty());
        let healed = match (&found[0], &found[1]) {
            (Some((errors, _)), _) if !errors.is_empty() && whole(1) => {
                self.give_up_l2_copy(name, record, &errors[0])?;
                Some(0)
            }
            (_, Some((errors, _))) if !errors.is_empty() && whole(0) => {
                objects.lose_l3_copy(name, record, &errors[0])?;
                Some(1)
            }
            _ => None,
        };
        if let Some(tier) = healed {
            counts.healed[tier].fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        found
            .into_iter()
            .flatten()
            .flat_map(|(errors, _)| errors)
            .for_each(|error| counts.errors.note(error));
        Ok(())
    }

    /// What is wrong with one file of an object.
    fn check_object(
        &self,
        area: &Area,
        record: &Record,
        progress: &VerifyProgress,
        counts: &Counts,
    ) -> Result<(Vec<Error>, u64)> {
        let reader = crate::store::stream::Reader { priority: Priority::Background, ..self.reader() };
        let expected = Expected { id: record.file_id, mac: record.mac };
        let tally = Tally::default();
        let file = SealedFile::open(
            &reader,
            &*area.home,
            &Area::final_name(record.file_id),
            &*self.keys,
            Some(expected),
        );
        match file.and_then(|file| check_file(&reader, &file, progress, &tally)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Closed) => {
                return Err(error);
            }
            Err(error) => tally.errors.note(error),
        }
        counts.blocks.fetch_add(tally.blocks.into_inner(), Ordering::Relaxed);
        Ok(tally.errors.into_parts())
    }
}

fn place_of(record: &Record) -> (u64, bool, bool) {
    (record.version, record.on_l2, record.on_l3)
}

impl Objects {
    /// L3's copy of an object is damaged and L2's is whole: it is dirty again, and L3's file goes.
    fn lose_l3_copy(&self, name: &str, record: &Record, error: &Error) -> Result<()> {
        tracing::warn!(%error, name, "an object's copy on L3 is damaged and will be written again from L2");
        let _order = self.order();
        // Durable first: what is dirty is not evicted.
        if self.update(name, record.version, |record| record.on_l3 = false)?.is_some() {
            let mut state = self.lock();
            state.ledger.superseded(record.version);
            state.ledger.enter_dirty(record.version, record.file_bytes);
            drop(state);
            self.l3.remove(record.file_id);
        }
        Ok(())
    }
}
