//! Opening after whatever happened: the catalog and the files are brought to agree, and what that took is told.
//!
//! A file with a final name is whole and says itself which version of which object it is. Of the files and records of a
//! name the highest version is current; what it replaced goes once the current one is on L3. So the catalog can be
//! missing, older than the disks, or name files that are gone.
//!
//! A file that cannot be opened is never taken for one that is not there. A device that fails to give it ends the
//! opening; so does a file that is damaged or has another key, unless the catalog is complete: then no object is current
//! in a file that it does not know, and deletions alone are kept until such a file can be opened or is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::area::Area;
use super::descriptor::{Descriptor, TENSORS};
use super::objects::{Entry, Objects};
use super::record::Record;
use super::report::RecoveryReport;
use crate::catalog::{Batch, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FileId;
use crate::host::pause;
use crate::store::core::Core;
use crate::store::sealed_file::SealedFile;

/// Changes of one batch.
const BATCH_CHANGES: usize = 1024;
/// Versions that are passed over after an opening that left files out: they have versions that nobody knows, and what is
/// put now must be newer than they are, and never the same, when they can be opened again. More than a store writes in
/// its life.
const UNREADABLE_GAP: u64 = 1 << 40;
/// Further attempts to open one file that the catalog does not know, and to open all of them together: a transfer can go
/// wrong between device and memory while the device holds the right bytes.
const RETRIES: u32 = 12;
const RETRIES_IN_ALL: u32 = 1200;
/// Before a device that failed is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// In the table of objects, where names have no control characters: all that was acknowledged before is in it.
const COMPLETE: &[u8] = b"\0complete";

/// All that is known of one name.
#[derive(Debug, Default)]
struct Known {
    // As the catalog has it.
    in_catalog: Option<Record>,
    // The same with the places where its file was found, and files that the catalog does not know.
    candidates: Vec<Record>,
}

impl Core {
    /// Brings the catalog and the files to agree.
    ///
    /// # Errors
    /// When a tier or the catalog cannot be read or written at all.
    pub(in crate::store) fn recover_objects(self: &Arc<Self>) -> Result<()> {
        let objects = self.objects()?;
        let mut report = std::mem::take(&mut objects.lock().recovery);
        let (mut on_l2, mut on_l3) = (BTreeSet::new(), BTreeSet::new());
        let mut behind = false;
        for (area, files) in [(objects.l2.as_ref(), &mut on_l2), (Some(&objects.l3), &mut on_l3)] {
            if let Some(area) = area {
                let scan = area.scan()?;
                report.leftovers_removed += scan.removed;
                behind |= scan.behind;
                *files = scan.files;
            }
        }
        let marked = objects.catalog.get(Table::Objects, COMPLETE)?.is_some();
        let complete = marked && !behind;
        let mut names = from_catalog(objects, &mut report)?;
        for known in names.values_mut() {
            let Some(record) = known.in_catalog else { continue };
            let (l2, l3) = (on_l2.remove(&record.file_id), on_l3.remove(&record.file_id));
            if l2 || l3 {
                known.candidates.push(Record { on_l2: l2, on_l3: l3, ..record });
            }
        }
        let unknown: BTreeSet<FileId> = on_l2.union(&on_l3).copied().collect();
        let mut retries = RETRIES_IN_ALL;
        for id in unknown {
            let (l2, l3) = (on_l2.contains(&id), on_l3.contains(&id));
            match self.describe(objects, id, (l2, l3), &mut retries) {
                Ok((name, record)) => {
                    let record = Record { on_l2: l2, on_l3: l3, ..record };
                    names.entry(name).or_default().candidates.push(record);
                }
                Err(error) if is_of_file(&error) && complete => {
                    tracing::warn!(%error, "an object file cannot be opened and is left as it is");
                    report.unreadable += 1;
                    report.detail(format!("left as it is: {error}"));
                }
                Err(error) => return Err(in_doubt(error)),
            }
        }
        self.settle_names(objects, names, report, marked)?;
        if behind {
            objects.l3.clear_behind();
        }
        Ok(())
    }

    /// What an unknown file says of itself, asked more than once, on each tier that has it.
    fn describe(
        &self,
        objects: &Objects,
        id: FileId,
        (on_l2, on_l3): (bool, bool),
        retries: &mut u32,
    ) -> Result<(String, Record)> {
        let areas = [objects.l2.as_ref().filter(|_| on_l2), Some(&objects.l3).filter(|_| on_l3)];
        let mut left = RETRIES;
        loop {
            let mut refusal = None;
            for area in areas.into_iter().flatten() {
                match self.describe_in(area, id) {
                    Ok(described) => return Ok(described),
                    // A device's failure outweighs damage: it says nothing of the file.
                    Err(error) if refusal.as_ref().is_none_or(is_of_file) => refusal = Some(error),
                    Err(_) => {}
                }
            }
            let error = refusal.expect("an unknown file was listed in one of the areas");
            if left == 0 || *retries == 0 || error.kind() == ErrorKind::Closed {
                return Err(error);
            }
            (left, *retries) = (left - 1, *retries - 1);
            if !is_of_file(&error) {
                pause(RETRY_PAUSE);
            }
        }
    }

    fn describe_in(&self, area: &Area, id: FileId) -> Result<(String, Record)> {
        let reader = self.reader();
        let file = SealedFile::open(&reader, &*area.home, &Area::final_name(id), &*self.keys, None);
        let described = file.and_then(|file| Ok((Descriptor::read(&file, &reader)?, file)));
        described.and_then(|(descriptor, file)| {
            let header = file.header();
            if header.params.file_id != id {
                let why = format!("its header has the id {}", header.params.file_id);
                return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
            }
            let record = Record {
                version: header.params.generation,
                file_id: id,
                mac: *file.mac(),
                file_bytes: header.file_bytes(),
                payload_bytes: header.payload_bytes,
                tombstone: descriptor.deleted,
                tensors: file.directory(&reader)?.section(TENSORS).is_some(),
                on_l2: false,
                on_l3: false,
                reads: 0,
            };
            Ok((descriptor.name, record))
        })
    }

    fn settle_names(
        &self,
        objects: &Objects,
        names: BTreeMap<String, Known>,
        mut report: RecoveryReport,
        marked: bool,
    ) -> Result<()> {
        let mut batch = Batch::default();
        let mut deletions = Vec::new();
        for (name, mut known) in names {
            known.candidates.sort_by_key(|record| (record.version, record.on_l3, record.file_id));
            let current = known.candidates.pop();
            told(&name, known.in_catalog.as_ref(), current.as_ref(), &mut report);
            let Some(current) = current else {
                batch.delete(Table::Objects, name.as_bytes());
                continue;
            };
            let mut superseded = Vec::new();
            for old in &known.candidates {
                if old.on_l2 {
                    objects.remove_l2(old.file_id);
                    report.leftovers_removed += 1;
                }
                if old.on_l3 {
                    superseded.push(old.file_id);
                }
            }
            if known.in_catalog != Some(current) {
                batch.put(Table::Objects, name.as_bytes(), &current.encode());
            }
            if batch.len() >= BATCH_CHANGES {
                objects.catalog.apply(&std::mem::take(&mut batch))?;
            }
            if current.tombstone && !current.is_dirty() {
                deletions.push((name.clone(), current.version));
            }
            report.dirty += u64::from(current.is_dirty());
            if current.on_l3 && !current.tombstone {
                report.leftovers_removed += crate::units::to_u64(superseded.len());
            }
            enter(objects, name, current, superseded)?;
        }
        if !marked {
            batch.put(Table::Objects, COMPLETE, &[]);
        }
        if !batch.is_empty() {
            objects.catalog.apply(&batch)?;
        }
        // Only now: what they replaced must not be needed again.
        let replaced: Vec<String> = {
            let state = objects.lock();
            let replaced = state.entries.iter().filter(|(_, entry)| {
                !entry.superseded.is_empty() && entry.record.on_l3 && !entry.record.tombstone
            });
            replaced.map(|(name, _)| name.clone()).collect()
        };
        replaced.iter().for_each(|name| objects.remove_superseded(name));
        if report.unreadable > 0 {
            objects.lock().next_version += UNREADABLE_GAP;
        } else {
            deletions.iter().try_for_each(|(name, version)| self.finish_deletion(name, *version))?;
        }
        if !report.is_clean() {
            tracing::warn!(?report, "the objects were not as the catalog had them");
        }
        objects.lock().recovery = report;
        Ok(())
    }
}

/// Whether an error tells of the file itself, and not of a device or machine that may give it the next time.
fn is_of_file(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::Misuse | ErrorKind::Unsupported
    )
}

/// The error of an opening that cannot tell which objects there are.
fn in_doubt(error: Error) -> Error {
    let place = error.place().map(|place| place.path.clone()).unwrap_or_default();
    let what = Error::new(
        error.kind(),
        "open",
        format!("an object file cannot be opened, and the catalog does not say what it holds: {error}"),
    );
    let other = match error.kind() {
        ErrorKind::Missing => "give the key it was put under as well, or ".to_owned(),
        ErrorKind::Misuse => error.hint_text().map(|hint| format!("{hint}, or ")).unwrap_or_default(),
        _ => String::new(),
    };
    what.at(&place).hint(format!(
        "open again when the device gives it; {other}move the file out of its directory to go on without what it holds"
    ))
}

fn from_catalog(objects: &Objects, report: &mut RecoveryReport) -> Result<BTreeMap<String, Known>> {
    let mut names: BTreeMap<String, Known> = BTreeMap::new();
    let mut malformed = Batch::default();
    objects.catalog.scan(Table::Objects, &[], None, &mut |key, value| {
        if key == COMPLETE {
            return ControlFlow::Continue(());
        }
        match (std::str::from_utf8(key), Record::decode(value)) {
            (Ok(name), Some(record)) => names.entry(name.to_owned()).or_default().in_catalog = Some(record),
            _ => malformed.delete(Table::Objects, key),
        }
        ControlFlow::Continue(())
    })?;
    if !malformed.is_empty() {
        report.corrected += crate::units::to_u64(malformed.len());
        report.detail(format!("{} records of the catalog were none", malformed.len()));
        objects.catalog.apply(&malformed)?;
    }
    Ok(names)
}

/// Says how what was found differs from what the catalog had.
fn told(name: &str, in_catalog: Option<&Record>, current: Option<&Record>, report: &mut RecoveryReport) {
    let name = name.escape_debug();
    match (in_catalog, current) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) if old.file_id == new.file_id => {
            report.corrected += 1;
            let place = |record: &Record| match (record.on_l2, record.on_l3) {
                (true, true) => "L2 and L3",
                (true, false) => "L2",
                (false, true) => "L3",
                (false, false) => "no tier",
            };
            report.detail(format!("`{name}` is on {}, the catalog had it on {}", place(new), place(old)));
        }
        (Some(old), Some(new)) if old.version > new.version => {
            report.lost += 1;
            report.detail(format!(
                "`{name}`: version {} is gone, version {} is current again",
                old.version, new.version
            ));
        }
        (_, Some(new)) => {
            report.adopted += 1;
            report.detail(format!("`{name}`: version {} was not in the catalog", new.version));
        }
        (Some(old), None) if old.tombstone => report.corrected += 1,
        (Some(old), None) => {
            report.lost += 1;
            let was = if old.is_dirty() { "on L2 alone" } else { "on L3" };
            report.detail(format!("`{name}`: version {} was {was}, and is gone", old.version));
        }
        (None, None) => {}
    }
}

fn enter(objects: &Objects, name: String, record: Record, superseded: Vec<FileId>) -> Result<()> {
    let mut state = objects.lock();
    if record.on_l2 && state.names.contains_key(&record.version) {
        let why = format!("two objects on L2 have the version {}", record.version);
        return Err(Error::new(ErrorKind::Corrupt, "open", why)
            .hint("L2 holds files of two stores: put one of them away from its `objects` directory"));
    }
    state.next_version = state.next_version.max(record.version.saturating_add(1));
    if record.on_l2 {
        state.names.insert(record.version, name.clone());
        if record.on_l3 {
            state.ledger.enter_clean(record.version, record.file_bytes);
        } else {
            state.ledger.enter_dirty(record.version, record.file_bytes);
        }
    }
    state.entries.insert(name, Entry::new(record, superseded));
    Ok(())
}
