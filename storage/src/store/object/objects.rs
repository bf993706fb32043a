//! The objects of a store in memory: current versions, what L2 holds of them, and the one way to change either.
//!
//! Every change is one batch of the catalog, made under one lock and before it is seen here. Files are removed after
//! the batch that made them needless.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, RwLock, Weak};

use super::area::Area;
use super::config::ObjectConfig;
use super::handle::Opened;
use super::record::Record;
use super::report::{ObjectInfo, ObjectStatus, RecoveryReport};
use crate::buf::{Arena, HeapAllocator};
use crate::catalog::{self, Batch, CatalogStore, Table};
use crate::clock::Clock;
use crate::device::fs;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileId, capacity};
use crate::host::Monitor;
use crate::io::{IoService, Lane};
use crate::store::StoreConfig;
use crate::store::sealed_file::SealedFile;
use crate::tier::{Admission, FileNo, Ledger};
use crate::units::{to_u64, to_usize};

/// Buffers of all writers together: at 64 KiB blocks 1 MiB on its way, which keeps an NVMe busy.
const WRITE_BUFFERS: usize = 16;

/// The objects of a store.
#[derive(Debug)]
pub(in crate::store) struct Objects {
    pub(super) config: ObjectConfig,
    pub(super) block_bytes: u32,
    pub(super) l2: Option<Area>,
    pub(super) l3: Area,
    pub(super) arena: Arc<Arena>,
    pub(super) catalog: Arc<dyn CatalogStore>,
    clock: Arc<dyn Clock>,
    // Rung when dirty bytes change, and when the store closes.
    pub(super) state: Monitor<State>,
    // From the look at the current version to the change of it.
    commit: Turn,
    // For one step of the drain.
    pub(super) draining: Turn,
    stop: AtomicBool,
    // Files of objects that somebody has open.
    pub(super) files: RwLock<HashMap<FileNo, Arc<SealedFile>>>,
    // One process writes the objects of a tier at a time; none where the file system locks no directories.
    _locks: Vec<fs::Lock>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) entries: BTreeMap<String, Entry>,
    // Of what is on L2.
    pub(super) names: HashMap<u64, String>,
    pub(super) ledger: Ledger,
    pub(super) next_version: u64,
    pub(super) l2_refused: Option<String>,
    pub(super) catalog_refused: bool,
    pub(super) drain_error: Option<String>,
    pub(super) recovery: RecoveryReport,
}

/// The current version of an object.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) opened: Weak<Opened>,
    /// Older versions on L3, oldest first: they go when this one is there.
    pub(super) superseded: Vec<FileId>,
    /// Reads that the catalog does not know of.
    pub(super) warmed: bool,
}

impl Entry {
    pub(super) fn new(record: Record, superseded: Vec<FileId>) -> Self {
        Self { record, opened: Weak::new(), superseded, warmed: false }
    }
}

/// One at a time: a lock that may be held while its holder waits for devices.
#[derive(Debug)]
pub(super) struct Turn(Monitor<bool>);

impl Default for Turn {
    fn default() -> Self {
        Self(Monitor::new(false))
    }
}

impl Turn {
    pub(super) fn take(&self) -> TurnGuard<'_> {
        *self.0.wait_while(None, |taken| *taken) = true;
        TurnGuard(self)
    }
}

/// A [`Turn`] that was taken.
#[derive(Debug)]
pub(super) struct TurnGuard<'a>(&'a Turn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = false;
        self.0.0.notify_one();
    }
}

/// Room on L2 for an object that is being written; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    objects: &'a Objects,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.objects.lock().ledger.release(self.bytes);
        self.objects.state.notify_all();
    }
}

impl Objects {
    /// Opens the areas; what is in them is found by recovery. `l2` is L2's directory and its catalog.
    pub(in crate::store) fn open(
        config: &ObjectConfig,
        store: &StoreConfig,
        l2_catalog: Option<Arc<dyn CatalogStore>>,
        rebuilt: Option<String>,
    ) -> Result<Self> {
        let l3 = match &config.home {
            Some(home) => Area::new(Arc::clone(home)),
            None => Area::below(&config.l3, Lane::Slow).map_err(|error| {
                let hint =
                    format!("give an existing directory for objects: mkdir -p {}", config.l3.display());
                error.hint(hint)
            })?,
        };
        let mut recovery = RecoveryReport { catalog_rebuilt: rebuilt, ..RecoveryReport::default() };
        let l2 = store.l2.first().map(|l2| Area::below(&l2.path, Lane::Fast)).transpose()?;
        let mut locks = Vec::new();
        for area in [Some(&l3), l2.as_ref()].into_iter().flatten() {
            let lock = area
                .home
                .lock()
                .map_err(|error| error.hint("another process has these objects open: wait for it to end"))?;
            locks.extend(lock);
        }
        let catalog = match l2_catalog {
            Some(catalog) => catalog,
            None if config.home.is_some() => {
                let why = "without L2 there is no directory for the catalog of these objects";
                return Err(
                    Error::new(ErrorKind::Misuse, "open", why).hint("give a directory of L2 (--l2 DIR)")
                );
            }
            None => {
                let (catalog, rebuilt) = catalog::open_or_rebuild(store.catalog, l3.home.location())?;
                recovery.catalog_rebuilt = rebuilt;
                catalog
            }
        };
        let arena =
            Arena::new("object", to_usize(u64::from(store.block_bytes)), WRITE_BUFFERS, &HeapAllocator)?;
        let ledger = Ledger::new(if l2.is_some() { config.l2_bytes } else { 0 });
        let state = State { ledger, next_version: 1, recovery, ..State::default() };
        Ok(Self {
            config: config.clone(),
            block_bytes: store.block_bytes,
            l2,
            l3,
            arena,
            catalog,
            clock: Arc::clone(&store.clock),
            state: Monitor::new(state),
            commit: Turn::default(),
            draining: Turn::default(),
            stop: AtomicBool::new(false),
            files: RwLock::default(),
            _locks: locks,
        })
    }

    /// L3, and L2 if there is one.
    pub(super) fn areas(&self) -> impl Iterator<Item = &Area> {
        [Some(&self.l3), self.l2.as_ref()].into_iter().flatten()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Payload bytes of a block.
    pub(super) fn capacity(&self) -> u64 {
        capacity(self.block_bytes)
    }

    /// Tells the drain to end, and waiting writers with it.
    pub(in crate::store) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.lock());
        self.state.notify_all();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Lets those who wait look again.
    pub(super) fn notify(&self) {
        self.state.notify_all();
    }

    pub(super) fn next_version(&self) -> u64 {
        let mut state = self.lock();
        state.next_version += 1;
        state.next_version - 1
    }

    /// Room for `bytes` on L2, waiting for the drain as long as a put may. None when the object goes to L3.
    ///
    /// # Errors
    /// `Full` when the drain did not make room in time.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Option<Reserved<'_>>> {
        let deadline = self.clock.now() + self.config.put_patience;
        loop {
            // Waits while only the drain can make room; what it is then told, it acts on without the lock.
            let mut told = Admission::Wait;
            let left = deadline.saturating_sub(self.clock.now());
            let state = self.state.wait_while(Some(left), |state| {
                if self.l2.is_none() || state.l2_refused.is_some() {
                    told = Admission::TooLarge;
                } else {
                    told = state.ledger.reserve(bytes);
                }
                told == Admission::Wait && !self.stopped()
            });
            match told {
                Admission::Admitted => return Ok(Some(Reserved { objects: self, bytes })),
                Admission::TooLarge => return Ok(None),
                Admission::Wait => return Err(state.ledger.full()),
                Admission::Evict(version) => {
                    drop(state);
                    self.evict(version)?;
                }
            }
        }
    }

    /// Gives up L2's copy of an object that L3 has.
    fn evict(&self, version: u64) -> Result<()> {
        let _order = self.order();
        let name = self.lock().names.get(&version).cloned();
        let change = |record: &mut Record| record.on_l2 = false;
        if let Some(name) = name
            && let Some(record) = self.update(&name, version, change)?
        {
            self.lock().names.remove(&version);
            self.remove_l2(record.file_id);
        }
        self.lock().ledger.evict(version)
    }

    pub(super) fn remove_l2(&self, id: FileId) {
        if let Some(l2) = &self.l2 {
            l2.remove(id);
        }
    }

    pub(super) fn order(&self) -> TurnGuard<'_> {
        self.commit.take()
    }

    /// Makes a batch durable. A catalog that refuses is asked no more: L3 is the truth for what it has, and what is on
    /// L2 says itself what it is.
    pub(super) fn apply(&self, batch: &Batch) -> Result<()> {
        if self.lock().catalog_refused {
            return Err(Error::new(ErrorKind::Device, "commit", "the catalog failed before"));
        }
        self.catalog.apply(batch).inspect_err(|error| {
            tracing::error!(%error, "the catalog cannot be written: objects go to L3 at once from now on");
            let mut state = self.lock();
            state.catalog_refused = true;
            state.l2_refused.get_or_insert_with(|| error.to_string());
        })
    }

    /// Changes the record of `name`, if `version` is still its current one, in the catalog and here. The caller holds
    /// the order. Returns the record as it is now.
    pub(super) fn update(
        &self,
        name: &str,
        version: u64,
        change: impl FnOnce(&mut Record),
    ) -> Result<Option<Record>> {
        let current = self.lock().entries.get(name).map(|entry| entry.record);
        let Some(mut record) = current.filter(|record| record.version == version) else { return Ok(None) };
        change(&mut record);
        let mut batch = Batch::default();
        batch.put(Table::Objects, name.as_bytes(), &record.encode());
        match self.apply(&batch) {
            // What L3 has needs no catalog; the next opening finds it there.
            Err(error) if !record.on_l3 => return Err(error),
            _ => {}
        }
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(name) {
            let reads = entry.record.reads;
            entry.record = Record { reads, ..record };
        }
        Ok(Some(record))
    }

    /// Makes a file that was written the current version of `name`: the moment of the acknowledgement.
    ///
    /// # Errors
    /// As the catalog says; then the file is not current, and is to be discarded.
    pub(super) fn commit(&self, io: &IoService, name: &str, record: Record) -> Result<()> {
        let order = self.order();
        let (known, reads) = {
            let state = self.lock();
            state.entries.get(name).map_or((0, 0), |entry| (entry.record.version, entry.record.reads))
        };
        let area = if record.on_l2 { self.l2.as_ref() } else { Some(&self.l3) };
        if known > record.version {
            // A put that began later is durable already: this one happened before it, and is replaced.
            if let Some(area) = area {
                area.remove(record.file_id);
            }
            return Ok(());
        }
        let record = Record { reads, ..record };
        let mut batch = Batch::default();
        batch.put(Table::Objects, name.as_bytes(), &record.encode());
        if let Err(error) = self.apply(&batch) {
            if !record.on_l3 {
                return Err(error);
            }
            // The file says what it is, but the next opening must know that the catalog does not.
            self.l3.mark_behind(io)?;
        }
        let mut state = self.lock();
        let mut superseded = Vec::new();
        let mut gone = None;
        if let Some(old) = state.entries.remove(name) {
            superseded = old.superseded;
            if old.record.on_l3 {
                superseded.push(old.record.file_id);
            }
            if old.record.on_l2 {
                state.names.remove(&old.record.version);
                state.ledger.superseded(old.record.version);
                gone = Some(old.record.file_id);
            }
        }
        if record.is_dirty() {
            state.names.insert(record.version, name.to_owned());
            state.ledger.enter_dirty(record.version, record.file_bytes);
        }
        state.entries.insert(name.to_owned(), Entry::new(record, superseded));
        drop(state);
        drop(order);
        self.state.notify_all();
        if let Some(gone) = gone {
            self.remove_l2(gone);
        }
        if record.on_l3 {
            self.remove_superseded(name);
        }
        Ok(())
    }

    /// Removes from L3 what an object that is there has replaced, oldest first.
    pub(super) fn remove_superseded(&self, name: &str) {
        let mut state = self.lock();
        let entry = state.entries.get_mut(name).filter(|entry| entry.record.on_l3 || entry.record.tombstone);
        let superseded = entry.map(|entry| std::mem::take(&mut entry.superseded)).unwrap_or_default();
        drop(state);
        superseded.into_iter().for_each(|id| self.l3.remove(id));
    }

    /// L2 failed a write: from now on objects go to L3 at once.
    pub(super) fn refuse_l2(&self, error: &Error) {
        tracing::warn!(%error, "L2 takes no more objects in this run: they go to L3 at once");
        self.lock().l2_refused.get_or_insert_with(|| error.to_string());
        self.state.notify_all();
    }

    pub(in crate::store) fn status(&self) -> ObjectStatus {
        let state = self.lock();
        ObjectStatus {
            objects: to_u64(state.entries.values().filter(|entry| !entry.record.tombstone).count()),
            dirty_objects: to_u64(state.ledger.dirty_count()),
            dirty_bytes: state.ledger.dirty_bytes(),
            stuck_objects: to_u64(state.ledger.set_aside_count()),
            l2_bytes: state.ledger.bytes(),
            l2_limit_bytes: state.ledger.limit(),
            l2_refused: state.l2_refused.clone(),
            drain_error: state.drain_error.clone(),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<ObjectInfo> {
        let state = self.lock();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let entries = state.entries.range::<str, _>(from);
        entries
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(_, entry)| !entry.record.tombstone)
            .map(|(name, entry)| ObjectInfo::new(name, &entry.record))
            .collect()
    }

    /// Writes down how often objects were read since the last change of their records.
    pub(in crate::store) fn remember_heat(&self) {
        let _order = self.order();
        let mut batch = Batch::default();
        for (name, entry) in self.lock().entries.iter_mut().filter(|(_, entry)| entry.warmed) {
            entry.warmed = false;
            batch.put(Table::Objects, name.as_bytes(), &entry.record.encode());
        }
        if !batch.is_empty()
            && let Err(error) = self.apply(&batch)
        {
            tracing::debug!(%error, "how often objects were read is forgotten");
        }
    }
}
