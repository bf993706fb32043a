//! An open object: ranges of it, through L1 and by the blocks that they need, and views of blocks in place.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError};

use super::area::Area;
use super::descriptor::{self, Descriptor};
use super::record::Record;
use super::report::ObjectInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::format::capacity;
use crate::store::Store;
use crate::store::core::{Core, Urgency, l1_full};
use crate::store::sealed_file::{Expected, SealedFile};
use crate::tensor::TensorTable;
use crate::tier::{BlockKey, BlockRef, FileNo, Ticket};
use crate::units::{to_u64, to_usize};

/// Blocks that one read has in flight at most.
const READ_WINDOW: usize = 32;
/// A file can be replaced between the look at its record and its opening; more than a few times in a row it is not.
const OPEN_ATTEMPTS: u32 = 8;

/// One version of an object, open; shared by all who read it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) record: Record,
    pub(super) descriptor: Descriptor,
    pub(super) table: Option<TensorTable>,
    pub(super) places: Vec<Range<u64>>,
    number: FileNo,
    capacity: u64,
    // Kept open: the file may be replaced and removed while it is read.
    file: Mutex<Arc<SealedFile>>,
    core: std::sync::Weak<Core>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            core.release_file(self.number, &file);
        }
    }
}

/// A version of an object to read from. It stays readable when the object is replaced or deleted.
#[derive(Clone)]
pub struct Object {
    store: Store,
    opened: Arc<Opened>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({:?}, version {})", self.opened.name, self.opened.record.version)
    }
}

/// Bytes of an object where they lie in L1. While a view lives its block is not evicted and its memory not used again.
#[derive(Clone)]
pub struct ObjectView {
    block: BlockRef,
    range: Range<usize>,
}

impl Deref for ObjectView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.range.clone()]
    }
}

impl fmt::Debug for ObjectView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectView({} bytes)", self.range.len())
    }
}

impl Object {
    pub(in crate::store) fn open(store: &Store, name: &str) -> Result<Self> {
        let opened = store.core().open_object(name)?;
        Ok(Self { store: store.clone(), opened })
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// What a listing said of it when it was opened.
    #[must_use]
    pub fn info(&self) -> ObjectInfo {
        ObjectInfo::new(&self.opened.name, &self.opened.record)
    }

    /// What was put with it.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.opened.descriptor.metadata
    }

    /// Its length in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.opened.record.payload_bytes
    }

    /// Fills `to` with its bytes from `offset` on.
    ///
    /// # Errors
    /// `Misuse` beyond its end, else as the devices and the authentication say.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(to_u64(to.len())).filter(|end| *end <= self.payload_bytes());
        let end = end.ok_or_else(|| {
            let why = format!("{} bytes at {offset} of {}", to.len(), self.payload_bytes());
            Error::new(ErrorKind::Misuse, "read", why)
        })?;
        self.read_runs((offset < end).then_some(offset..end).into_iter(), to)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Object::read`].
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(self.payload_bytes())];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// `range` in place, if it lies in one block.
    ///
    /// # Errors
    /// As [`Object::read`].
    pub fn view(&self, range: Range<u64>) -> Result<Option<ObjectView>> {
        if range.start > range.end || range.end > self.payload_bytes() {
            let why = format!("{range:?} of {} bytes", self.payload_bytes());
            return Err(Error::new(ErrorKind::Misuse, "view", why));
        }
        let (capacity, core) = (self.opened.capacity, self.store.core());
        let number = range.start / capacity;
        if range.is_empty() || (range.end - 1) / capacity != number {
            return Ok(None);
        }
        let start = to_usize(range.start - number * capacity);
        let within = start..start + to_usize(range.end - range.start);
        let block = core.failing_over(&self.opened, || {
            core.fetch_block(self.opened.number, number)?.wait(core.config.patience)
        })?;
        Ok(Some(ObjectView { block, range: within }))
    }

    /// Fills `to` with `runs` of its bytes, which ascend, one after the other.
    pub(super) fn read_runs(
        &self,
        runs: impl Iterator<Item = Range<u64>> + Clone,
        to: &mut [u8],
    ) -> Result<()> {
        let core = self.store.core();
        core.failing_over(&self.opened, || {
            core.copy_runs(self.opened.number, self.opened.capacity, runs.clone(), to)
        })
    }
}

/// There is no such object, as far as the files tell that could be opened.
fn missing(name: &str, unreadable: u64) -> Error {
    let error =
        Error::new(ErrorKind::Missing, "get", format!("there is no object `{}`", name.escape_debug()));
    error.hint(match unreadable {
        0 => "`tierstream ls` shows the objects there are".to_owned(),
        _ => format!(
            "{unreadable} object files could not be opened and may hold it: `tierstream ls --json` names them"
        ),
    })
}

impl Core {
    fn fetch_block(self: &Arc<Self>, file: FileNo, number: u64) -> Result<Ticket> {
        let block = u32::try_from(number).expect("fewer than 2^32 blocks in a file");
        let ticket = self.fetch(BlockKey { file, block }, Urgency::DEMAND)?;
        ticket.ok_or_else(|| l1_full(self.l1.slots()))
    }

    fn copy_runs(
        self: &Arc<Self>,
        file: FileNo,
        capacity: u64,
        runs: impl Iterator<Item = Range<u64>> + Clone,
        to: &mut [u8],
    ) -> Result<()> {
        // Blocks in the order of their need, each once: two runs can lie in one.
        let mut last = None;
        let mut ahead = runs
            .clone()
            .flat_map(|run| run.start / capacity..run.end.div_ceil(capacity))
            .filter(|block| last.replace(*block) != Some(*block));
        let window = READ_WINDOW.min(self.l1.slots() / 4).max(1);
        let mut tickets: VecDeque<(u64, Ticket)> = VecDeque::with_capacity(window);
        let mut current: Option<(u64, BlockRef)> = None;
        let mut filled = 0;
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                let number = at / capacity;
                let block = match current.take() {
                    Some((of, block)) if of == number => block,
                    _ => {
                        while tickets.len() < window
                            && let Some(next) = ahead.next()
                        {
                            tickets.push_back((next, self.fetch_block(file, next)?));
                        }
                        let (of, ticket) = tickets.pop_front().expect("a ticket for each block of the runs");
                        assert_eq!(of, number, "runs ascend");
                        if ticket.try_get().is_none() {
                            self.metrics.demand_wait();
                        }
                        ticket.wait(self.config.patience)?
                    }
                };
                let start = to_usize(at - number * capacity);
                let len = block.len().saturating_sub(start).min(to_usize(run.end - at));
                assert!(len > 0, "block {number} has {} bytes, none at {start}", block.len());
                to[filled..filled + len].copy_from_slice(&block[start..start + len]);
                (filled, at) = (filled + len, at + to_u64(len));
                current = Some((number, block));
            }
        }
        assert_eq!(filled, to.len(), "the runs are as long as their destination");
        Ok(())
    }

    /// The file of that number, if an object that somebody has open lies in it.
    pub(in crate::store) fn object_file(&self, number: FileNo) -> Option<Arc<SealedFile>> {
        let files = &self.objects.as_ref()?.files;
        files.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Gives the file its number and lets blocks of it be fetched.
    fn adopt_file(&self, file: &Arc<SealedFile>) -> FileNo {
        let number = self.files.intern(file.header().params.file_id);
        if let Some(objects) = &self.objects {
            let mut files = objects.files.write().unwrap_or_else(PoisonError::into_inner);
            files.insert(number, Arc::clone(file));
        }
        number
    }

    /// Nobody reads through this opening of the file any more.
    fn release_file(&self, number: FileNo, file: &Arc<SealedFile>) {
        let Some(objects) = &self.objects else { return };
        let mut files = objects.files.write().unwrap_or_else(PoisonError::into_inner);
        if files.get(&number).is_some_and(|known| Arc::ptr_eq(known, file)) {
            files.remove(&number);
        }
    }

    /// Opens the current version of `name`.
    fn open_object(self: &Arc<Self>, name: &str) -> Result<Arc<Opened>> {
        let objects = self.objects()?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut state = objects.lock();
            let entry = state.entries.get_mut(name).filter(|entry| !entry.record.tombstone);
            let Some(entry) = entry else {
                let unreadable = state.recovery.unreadable;
                drop(state);
                return Err(missing(name, unreadable));
            };
            entry.record.reads = entry.record.reads.saturating_add(1);
            entry.warmed = true;
            if let Some(opened) = entry.opened.upgrade() {
                return Ok(opened);
            }
            let record = entry.record;
            drop(state);
            match self.open_version(name, &record) {
                Ok(opened) => {
                    let opened = Arc::new(opened);
                    let mut state = objects.lock();
                    if let Some(entry) = state.entries.get_mut(name)
                        && entry.record.version == record.version
                    {
                        entry.opened = Arc::downgrade(&opened);
                    }
                    return Ok(opened);
                }
                Err(error) if attempts < OPEN_ATTEMPTS && self.is_stale(name, &record)? => {
                    tracing::debug!(%error, name, "the object was replaced while it was opened");
                }
                Err(error) if record.on_l2 && record.on_l3 && attempts < OPEN_ATTEMPTS => {
                    self.give_up_l2_copy(name, &record, &error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the object has changed since `record` was read.
    fn is_stale(&self, name: &str, record: &Record) -> Result<bool> {
        let state = self.objects()?.lock();
        let now = state.entries.get(name).map(|entry| entry.record);
        Ok(now.is_none_or(|now| (now.version, now.on_l2) != (record.version, record.on_l2)))
    }

    fn open_version(self: &Arc<Self>, name: &str, record: &Record) -> Result<Opened> {
        let file = Arc::new(self.open_file(record)?);
        let reader = self.reader();
        let descriptor = Descriptor::read(&file, &reader)?;
        if descriptor.name != name || descriptor.deleted || file.header().params.generation != record.version
        {
            let why = format!(
                "another object is in its place: `{}`, expected `{}`",
                descriptor.name.escape_debug(),
                name.escape_debug()
            );
            return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
        }
        let table = if record.tensors { descriptor::read_tensors(&file, &reader)? } else { None };
        let capacity = capacity(file.header().params.block_bytes);
        let places = table.as_ref().map(|table| table.places(capacity)).unwrap_or_default();
        if table.is_some() && places.last().map_or(0, |place| place.end) != record.payload_bytes {
            let why = "the tensors are not those of the payload";
            return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
        }
        if file.header().params.block_bytes > self.config.block_bytes {
            let why = format!(
                "blocks of {} bytes, but the store takes {}",
                file.header().params.block_bytes,
                self.config.block_bytes
            );
            return Err(Error::new(ErrorKind::Misuse, "open", why)
                .at(file.path())
                .hint("raise --block-size to that of the object"));
        }
        let number = self.adopt_file(&file);
        Ok(Opened {
            name: name.to_owned(),
            record: *record,
            descriptor,
            table,
            places,
            number,
            capacity,
            file: Mutex::new(file),
            core: Arc::downgrade(self),
        })
    }

    fn open_file(&self, record: &Record) -> Result<SealedFile> {
        let objects = self.objects()?;
        let l2 = objects.l2.as_ref().filter(|_| record.on_l2);
        let expected = Expected { id: record.file_id, mac: record.mac };
        let name = Area::final_name(record.file_id);
        let home = &*l2.unwrap_or(&objects.l3).home;
        let file = SealedFile::open(&self.reader(), home, &name, &*self.keys, Some(expected))?;
        Ok(if l2.is_some() { file.on_l2() } else { file })
    }

    /// L2's copy of an object that L3 has as well is damaged or gone: it is dropped, and L3's is read.
    pub(super) fn give_up_l2_copy(&self, name: &str, record: &Record, error: &Error) -> Result<()> {
        let objects = self.objects()?;
        tracing::warn!(%error, name, "an object's copy on L2 is dropped and read from L3");
        self.metrics.dropped();
        let _order = objects.order();
        if objects.update(name, record.version, |record| record.on_l2 = false)?.is_some() {
            let mut state = objects.lock();
            state.ledger.evict(record.version)?;
            state.names.remove(&record.version);
            drop(state);
            objects.remove_l2(record.file_id);
        }
        Ok(())
    }

    /// Does `read`; when L2's copy fails it and L3 has one, goes over to that and does it once more.
    fn failing_over<T>(&self, opened: &Opened, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        let error = match read() {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Device) => error,
            outcome => return outcome,
        };
        let objects = self.objects()?;
        let now = objects.lock().entries.get(&opened.name).map(|entry| entry.record);
        let Some(now) = now.filter(|now| now.version == opened.record.version && now.on_l3) else {
            return Err(error);
        };
        if now.on_l2 {
            self.give_up_l2_copy(&opened.name, &now, &error)?;
        }
        let mut file = opened.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_on_l2() {
            *file = Arc::new(self.open_file(&Record { on_l2: false, ..now })?);
            self.adopt_file(&file);
        }
        drop(file);
        read()
    }
}
