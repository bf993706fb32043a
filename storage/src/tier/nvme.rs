//! L2: sealed blocks in segment files on a fast device, indexed in memory, remembered in the catalog.
//!
//! Blocks are appended to the active segment of their data set and never rewritten in place. When the capacity is used
//! up, room is made only by dropping whole segments of data sets that nobody has open, oldest first; while all belong
//! to open data sets nothing more is admitted. So a uniform epoch larger than L2 pins a fixed share and does not churn,
//! which is what reaches the bound for shuffled epochs (CoorDL's MinIO cache, VLDB 2021).
//!
//! Holds ciphertext only. Does no I/O on blocks itself: it says where to read and write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::journal::{Change, Journal};
use super::{BlockKey, FileTable};
use crate::catalog::{CatalogStore, Table};
use crate::device::{Access, DeviceFile, Directory, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FileId;
use crate::units::{ALIGN_BYTES, human_bytes, to_u64, to_usize};

const UNIT: u64 = ALIGN_BYTES as u64;
const SEGMENTS_DIR: &str = "segments";
/// Smallest capacity that makes sense: two segments of the smallest size.
const CAPACITY_MIN: u64 = 8 << 20;
const SEGMENT_BYTES_MIN: u64 = 4 << 20;
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Where L2 is and how much it may use.
#[derive(Clone, Debug)]
pub struct L2Config {
    /// An existing directory.
    pub directory: PathBuf,
    /// Bytes it may use for blocks.
    pub bytes: u64,
}

/// Where a sealed block lies.
#[derive(Clone, Debug)]
pub struct SealedPlace {
    /// The file.
    pub file: Arc<DeviceFile>,
    /// Offset in it.
    pub offset: u64,
    /// Stored length.
    pub len: usize,
}

/// Room for one block, to be written and then committed.
#[derive(Debug)]
pub struct Reservation {
    /// Where to write it.
    pub place: SealedPlace,
    key: BlockKey,
    compact: Place,
}

/// A place in 12 bytes: offset and length in units of 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset_units: u32,
    len_units: u32,
}

#[derive(Debug)]
struct Segment {
    file: Arc<DeviceFile>,
    data_set: FileId,
    bytes: u64,
    used: u64,
}

/// The NVMe tier.
#[derive(Debug)]
pub struct NvmeTier {
    segments_dir: Arc<Directory>,
    capacity: u64,
    segment_bytes: u64,
    files: Arc<FileTable>,
    journal: Journal,
    state: Mutex<State>,
    // Set by the first write that fails: reading goes on.
    write_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    index: HashMap<BlockKey, Place>,
    segments: BTreeMap<u32, Segment>,
    next_segment: u32,
    open_data_sets: HashSet<FileId>,
}

impl NvmeTier {
    /// Opens L2 in an existing directory and takes over what an earlier run left there.
    ///
    /// # Errors
    /// `Missing` when there is no such directory, `Full` when the device has no room for the capacity, `Misuse` when
    /// the capacity is too small, else as the file system and the catalog say.
    pub fn open(config: &L2Config, catalog: Arc<dyn CatalogStore>, files: Arc<FileTable>) -> Result<Self> {
        if config.bytes < CAPACITY_MIN {
            let why = format!("L2 of {} bytes, expected at least {CAPACITY_MIN}", config.bytes);
            return Err(Error::new(ErrorKind::Misuse, "open", why).hint("raise --l2-size"));
        }
        let path = config.directory.join(SEGMENTS_DIR);
        if fs::is_directory(&path)?.is_none() {
            fs::create_directory(&path)?;
        }
        let segments_dir = Directory::open(&path)?;
        let segment_bytes = (config.bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) / UNIT * UNIT;
        let mut state = State { next_segment: 1, ..State::default() };
        load_segments(&segments_dir, &*catalog, &mut state)?;
        load_blocks(&*catalog, &files, &mut state)?;
        let journal = Journal::start(catalog)?;
        let tier = Self {
            segments_dir,
            capacity: config.bytes,
            segment_bytes,
            files,
            journal,
            state: Mutex::new(state),
            write_failed: AtomicBool::new(false),
        };
        tier.shrink_to_capacity();
        tier.check_room()?;
        Ok(tier)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shrink_to_capacity(&self) {
        let mut state = self.lock();
        while state.allocated() > self.capacity {
            let Some(oldest) = state.segments.keys().next().copied() else { return };
            self.drop_segment(&mut state, oldest);
        }
    }

    fn check_room(&self) -> Result<()> {
        let allocated = self.lock().allocated();
        let available = self.segments_dir.free_bytes()?.saturating_add(allocated);
        if available < self.capacity {
            let why = format!(
                "L2 of {} does not fit: {} are free there",
                human_bytes(self.capacity),
                human_bytes(available)
            );
            return Err(Error::new(ErrorKind::Full, "open", why)
                .at(self.segments_dir.path())
                .hint(format!("use --l2-size {}M or less, or another --l2 directory", available >> 20)));
        }
        Ok(())
    }

    /// Marks a data set as in use: its segments stay.
    pub fn open_data_set(&self, data_set: FileId) {
        self.lock().open_data_sets.insert(data_set);
    }

    /// Stored bytes of a data set that are here.
    #[must_use]
    pub fn resident_bytes(&self, data_set: FileId) -> u64 {
        let state = self.lock();
        let of_set =
            |place: &&Place| state.segments.get(&place.segment).is_some_and(|of| of.data_set == data_set);
        state.index.values().filter(of_set).map(|place| u64::from(place.len_units) * UNIT).sum()
    }

    /// Where a block lies, if it is here.
    #[must_use]
    pub fn lookup(&self, key: BlockKey) -> Option<SealedPlace> {
        let state = self.lock();
        let place = state.index.get(&key)?;
        let segment = state.segments.get(&place.segment)?;
        Some(place.sealed(&segment.file))
    }

    /// Room for a block of `len` stored bytes of `data_set`, if it is to be admitted.
    #[must_use]
    pub fn admit(&self, key: BlockKey, data_set: FileId, len: usize) -> Option<Reservation> {
        if self.write_failed.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.lock();
        if state.index.contains_key(&key) {
            return None;
        }
        let number = match state.active(data_set, to_u64(len)) {
            Some(number) => number,
            None => match self.new_segment(&mut state, data_set) {
                Ok(number) => number?,
                Err(error) => {
                    self.give_up_writing(&error);
                    return None;
                }
            },
        };
        let segment = state.segments.get_mut(&number)?;
        let compact =
            Place { segment: number, offset_units: units(segment.used), len_units: units(to_u64(len)) };
        segment.used += to_u64(len);
        Some(Reservation { place: compact.sealed(&segment.file), key, compact })
    }

    /// The block of a reservation was written: from now on it is found.
    pub fn commit(&self, reservation: &Reservation) {
        let mut state = self.lock();
        if !state.segments.contains_key(&reservation.compact.segment) {
            return;
        }
        state.index.insert(reservation.key, reservation.compact);
        drop(state);
        self.note(reservation.key, Some(reservation.compact.encode()));
    }

    /// A write failed: nothing more is admitted until the store is opened again. What is here is still read.
    pub fn give_up_writing(&self, error: &Error) {
        if !self.write_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "L2 takes no more blocks in this run; reading goes on from L3");
        }
    }

    /// Forgets a block that did not authenticate or could not be read.
    pub fn forget(&self, key: BlockKey) {
        if self.lock().index.remove(&key).is_some() {
            self.note(key, None);
        }
    }

    /// Writes what is still to be remembered to the catalog and stops doing so.
    pub fn close(&self) {
        self.journal.close();
    }

    fn note(&self, key: BlockKey, value: Option<Vec<u8>>) {
        let mut bytes = self.files.id(key.file).0.to_vec();
        bytes.extend_from_slice(&key.block.to_be_bytes());
        self.journal.note(Change { table: Table::Blocks, key: bytes, value });
    }

    /// A new segment for `data_set`, if there is room or some can be made.
    fn new_segment(&self, state: &mut State, data_set: FileId) -> Result<Option<u32>> {
        while state.allocated() + self.segment_bytes > self.capacity {
            let unused = |(number, segment): (&u32, &Segment)| {
                let in_use = segment.data_set == data_set || state.open_data_sets.contains(&segment.data_set);
                (!in_use).then_some(*number)
            };
            let Some(oldest) = state.segments.iter().find_map(unused) else { return Ok(None) };
            self.drop_segment(state, oldest);
        }
        let number = state.next_segment;
        state.next_segment += 1;
        let file = DeviceFile::open(&self.segments_dir, &segment_name(number), Access::CreateNew)?;
        if let Err(error) = file.reserve(self.segment_bytes) {
            remove(&file);
            return Err(error);
        }
        self.journal.note(Change {
            table: Table::Segments,
            key: number.to_be_bytes().to_vec(),
            value: Some(data_set.0.to_vec()),
        });
        state.segments.insert(number, Segment { file, data_set, bytes: self.segment_bytes, used: 0 });
        Ok(Some(number))
    }

    fn drop_segment(&self, state: &mut State, number: u32) {
        let Some(segment) = state.segments.remove(&number) else { return };
        let gone: Vec<BlockKey> =
            state.index.iter().filter(|(_, place)| place.segment == number).map(|(key, _)| *key).collect();
        for key in gone {
            state.index.remove(&key);
            self.note(key, None);
        }
        self.journal.note(Change { table: Table::Segments, key: number.to_be_bytes().to_vec(), value: None });
        // Reads in flight keep the file open; its room is freed after them.
        remove(&segment.file);
    }
}

impl Drop for NvmeTier {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn allocated(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// The newest segment of a data set, if `len` more bytes fit it.
    fn active(&self, data_set: FileId, len: u64) -> Option<u32> {
        let newest = self.segments.iter().rev().find(|(_, segment)| segment.data_set == data_set)?;
        (newest.1.used + len <= newest.1.bytes).then_some(*newest.0)
    }
}

impl Place {
    fn sealed(self, file: &Arc<DeviceFile>) -> SealedPlace {
        SealedPlace {
            file: Arc::clone(file),
            offset: u64::from(self.offset_units) * UNIT,
            len: to_usize(u64::from(self.len_units) * UNIT),
        }
    }

    fn end(self) -> u64 {
        (u64::from(self.offset_units) + u64::from(self.len_units)) * UNIT
    }

    fn encode(self) -> Vec<u8> {
        [self.segment, self.offset_units, self.len_units].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let place = Self { segment: field(0)?, offset_units: field(4)?, len_units: field(8)? };
        (bytes.len() == 12 && place.len_units > 0).then_some(place)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes / UNIT).expect("segments are far below 16 TiB")
}

fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

fn remove(file: &DeviceFile) {
    if let Err(error) = fs::remove_file(file.path()) {
        tracing::warn!(path = %file.path().display(), %error, "a segment of L2 could not be removed");
    }
}

/// Opens the segments that the catalog knows, and removes segment files that it does not.
fn load_segments(directory: &Directory, catalog: &dyn CatalogStore, state: &mut State) -> Result<()> {
    let mut known = BTreeMap::new();
    catalog.scan(Table::Segments, &[], None, &mut |key, value| {
        if let (Ok(number), Ok(data_set)) = (key.try_into(), value.try_into()) {
            known.insert(u32::from_be_bytes(number), FileId(data_set));
        }
        ControlFlow::Continue(())
    })?;
    for entry in fs::list(directory.path())? {
        let name = entry.name;
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u32>().ok());
        // Only files that bear one of our names are ours to remove.
        let Some(number) = number.filter(|number| name.to_str() == Some(&segment_name(*number))) else {
            continue;
        };
        state.next_segment = state.next_segment.max(number.saturating_add(1));
        match known.get(&number) {
            Some(data_set) => {
                let file = DeviceFile::open(directory, &segment_name(number), Access::ReadWrite)?;
                let bytes = file.size_bytes()?;
                state.segments.insert(number, Segment { file, data_set: *data_set, bytes, used: 0 });
            }
            None => fs::remove_file(&directory.path().join(&name))?,
        }
    }
    let highest = known.keys().next_back().copied().unwrap_or(0);
    state.next_segment = state.next_segment.max(highest.saturating_add(1));
    Ok(())
}

/// Takes over the blocks that lie within segments that are there; what is beyond them is forgotten.
fn load_blocks(catalog: &dyn CatalogStore, files: &FileTable, state: &mut State) -> Result<()> {
    catalog.scan(Table::Blocks, &[], None, &mut |key, value| {
        let Some((id, block)) = key.split_at_checked(16) else { return ControlFlow::Continue(()) };
        if let (Ok(id), Ok(block), Some(place)) = (id.try_into(), block.try_into(), Place::decode(value))
            && let Some(segment) = state.segments.get_mut(&place.segment)
            && place.end() <= segment.bytes
        {
            segment.used = segment.used.max(place.end());
            let file = files.intern(FileId(id));
            state.index.insert(BlockKey { file, block: u32::from_be_bytes(block) }, place);
        }
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests;
