//! L2: sealed blocks in segments on one or more fast devices, indexed in memory, remembered in the catalog.
//!
//! Blocks are appended to the active segment of their data set on each device in turn, so that neighbours lie on
//! different devices and are read side by side. When the capacity is used up, room is made only by dropping whole
//! segments of data sets that nobody has open, oldest first; while all belong to open data sets nothing more is
//! admitted. So a uniform epoch larger than L2 pins a fixed share and does not churn, which is what reaches the bound
//! for shuffled epochs (CoorDL's MinIO cache, VLDB 2021). A block that was dropped because it was damaged leaves a hole,
//! which the next one of its length fills.
//!
//! Holds ciphertext only. Does no I/O on blocks itself: it says where to read and write, and is told how that went.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::index::Index;
use super::journal::{Change, Journal};
use super::l2_device::{L2Config, L2Device, L2DeviceReport, Room};
use super::place::{Place, SegmentRecord};
use super::restore::restore;
use super::write_rate::Throttle;
use super::{BlockKey, FileTable};
use crate::catalog::CatalogStore;
use crate::device::DeviceFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::FileId;
use crate::units::to_u64;

/// Holes that are remembered; more are lost until their segment is dropped.
const HOLES_MAX: usize = 4096;
/// Holes that one admission looks at.
const HOLES_LOOKED_AT: usize = 64;

/// Where sealed bytes lie.
#[derive(Clone, Debug)]
pub struct SealedPlace {
    /// The file.
    pub file: Arc<DeviceFile>,
    /// Offset in it.
    pub offset: u64,
    /// Stored length.
    pub len: usize,
}

/// A block on L2.
#[derive(Clone, Debug)]
pub struct L2Block {
    /// Where its bytes lie.
    pub place: SealedPlace,
    /// The number of its device.
    pub device: usize,
    compact: Place,
}

/// Room for one block, to be written and then committed or given up.
#[derive(Debug)]
pub struct Reservation {
    /// Where to write it.
    pub place: SealedPlace,
    /// The number of the device.
    pub device: usize,
    key: BlockKey,
    compact: Place,
}

#[derive(Debug)]
pub(super) struct Segment {
    device: usize,
    file: Arc<DeviceFile>,
    base: u64,
    data_set: FileId,
    pub(super) bytes: u64,
    pub(super) used: u64,
}

impl Segment {
    pub(super) fn new(device: usize, room: Room, data_set: FileId) -> Self {
        Self { device, file: room.file, base: room.base, data_set, bytes: room.bytes, used: 0 }
    }
}

/// What only admission changes; held while files are made, so that lookups do not wait for that.
#[derive(Debug, Default)]
struct Admission {
    next_segment: u32,
    next_device: usize,
    open_data_sets: HashSet<FileId>,
    holes: Vec<Place>,
}

/// The NVMe tier.
#[derive(Debug)]
pub struct NvmeTier {
    devices: Box<[L2Device]>,
    files: Arc<FileTable>,
    journal: Journal,
    index: Index,
    segments: RwLock<BTreeMap<u32, Segment>>,
    admission: Mutex<Admission>,
    throttle: Option<Throttle>,
    throttled_bytes: AtomicU64,
}

impl NvmeTier {
    /// Opens L2 on its devices and takes over what an earlier run left there. `throttle` bounds what is written.
    ///
    /// # Errors
    /// `Missing` when there is no such directory or device, `Full` when it has no room for its capacity, `Misuse` when
    /// the capacity is too small or something else is on a device, else as the file system and the catalog say.
    pub fn open(
        configs: &[L2Config],
        throttle: Option<Throttle>,
        catalog: Arc<dyn CatalogStore>,
        files: Arc<FileTable>,
    ) -> Result<Self> {
        let devices = configs.iter().map(L2Device::open).collect::<Result<Box<[L2Device]>>>()?;
        let index = Index::default();
        let restored = restore(&devices, &*catalog, &files, &index)?;
        let journal = Journal::start(catalog, restored.chunks)?;
        let tier = Self {
            devices,
            files,
            journal,
            index,
            segments: RwLock::new(restored.segments),
            admission: Mutex::new(Admission { next_segment: restored.next_segment, ..Admission::default() }),
            throttle,
            throttled_bytes: AtomicU64::new(0),
        };
        for number in 0..tier.devices.len() {
            tier.shrink_to_capacity(number);
            tier.devices[number].check_room(tier.allocated(number))?;
        }
        Ok(tier)
    }

    fn read_segments(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_segments(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocated(&self, device: usize) -> u64 {
        self.read_segments().values().filter(|of| of.device == device).map(|segment| segment.bytes).sum()
    }

    fn shrink_to_capacity(&self, device: usize) {
        while self.allocated(device) > self.devices[device].capacity() {
            let oldest =
                self.read_segments().iter().find(|(_, of)| of.device == device).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return };
            self.drop_segment(&mut self.admission(), oldest);
        }
    }

    /// Marks a data set as in use: its segments stay.
    pub fn open_data_set(&self, data_set: FileId) {
        self.admission().open_data_sets.insert(data_set);
    }

    /// Stored bytes of a data set that are here.
    #[must_use]
    pub fn resident_bytes(&self, data_set: FileId) -> u64 {
        let segments = self.read_segments();
        let of_set: HashSet<u32> =
            segments.iter().filter(|(_, of)| of.data_set == data_set).map(|(number, _)| *number).collect();
        let mut bytes = 0;
        self.index.for_each(|_, place| {
            if of_set.contains(&place.segment()) {
                bytes += place.len();
            }
        });
        bytes
    }

    /// Blocks that are here.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Memory that the index of blocks takes.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// All blocks that are here, in the order in which they lie on their devices.
    #[must_use]
    pub fn all_blocks(&self) -> Vec<(BlockKey, L2Block)> {
        let mut found = Vec::with_capacity(self.index.len());
        self.index.for_each(|key, place| found.push((key, place)));
        found.sort_unstable_by_key(|(_, place)| place.packed());
        found.into_iter().filter_map(|(key, place)| Some((key, self.block_at(place)?))).collect()
    }

    /// Where a block lies, if it is here on a device that works.
    #[must_use]
    pub fn lookup(&self, key: BlockKey) -> Option<L2Block> {
        self.block_at(self.index.get(key)?)
    }

    fn block_at(&self, compact: Place) -> Option<L2Block> {
        let segments = self.read_segments();
        let segment = segments.get(&compact.segment())?;
        if self.devices[segment.device].is_retired() {
            return None;
        }
        let place = compact.sealed(&segment.file, segment.base);
        Some(L2Block { place, device: segment.device, compact })
    }

    /// Room for a block of `len` stored bytes of `data_set`, if it is to be admitted.
    #[must_use]
    pub fn admit(&self, key: BlockKey, data_set: FileId, len: usize) -> Option<Reservation> {
        if self.index.get(key).is_some() || !self.devices.iter().any(L2Device::takes_blocks) {
            return None;
        }
        let mut admission = self.admission();
        if self.throttle.as_ref().is_some_and(|throttle| throttle.take(len).is_err()) {
            self.throttled_bytes.fetch_add(to_u64(len), Ordering::Relaxed);
            return None;
        }
        let compact = match self.take_hole(&mut admission, data_set, to_u64(len)) {
            Some(hole) => hole,
            None => self.append(&mut admission, data_set, to_u64(len))?,
        };
        drop(admission);
        let L2Block { place, device, compact } = self.block_at(compact)?;
        Some(Reservation { place, device, key, compact })
    }

    fn take_hole(&self, admission: &mut Admission, data_set: FileId, len: u64) -> Option<Place> {
        if admission.holes.is_empty() {
            return None;
        }
        let segments = self.read_segments();
        let fits = |hole: &Place| {
            let segment = segments.get(&hole.segment());
            let same = |of: &Segment| of.data_set == data_set && self.devices[of.device].takes_blocks();
            hole.len() == len && segment.is_some_and(same)
        };
        let from_end = admission.holes.iter().rev().take(HOLES_LOOKED_AT).position(fits)?;
        let at = admission.holes.len() - 1 - from_end;
        Some(admission.holes.swap_remove(at))
    }

    /// Room behind what is there, on the next device that has some.
    fn append(&self, admission: &mut Admission, data_set: FileId, len: u64) -> Option<Place> {
        let first = admission.next_device;
        admission.next_device = (first + 1) % self.devices.len();
        for number in (first..self.devices.len()).chain(0..first) {
            let device = &self.devices[number];
            if !device.takes_blocks() || len > device.segment_bytes() {
                continue;
            }
            let active = self.active(number, data_set, len);
            let segment =
                match active.map_or_else(|| self.new_segment(admission, number, data_set), |a| Ok(Some(a))) {
                    Ok(Some(segment)) => segment,
                    Ok(None) => continue,
                    Err(error) => {
                        device.stop_writing(&error);
                        continue;
                    }
                };
            let mut segments = self.write_segments();
            let room = segments.get_mut(&segment)?;
            let place = Place::new(segment, room.used, len);
            room.used += len;
            return Some(place);
        }
        None
    }

    /// The newest segment of a data set on a device, if `len` more bytes fit it.
    fn active(&self, device: usize, data_set: FileId, len: u64) -> Option<u32> {
        let segments = self.read_segments();
        let of_set = |(_, of): &(&u32, &Segment)| of.device == device && of.data_set == data_set;
        let (number, newest) = segments.iter().rev().find(of_set)?;
        (newest.used + len <= newest.bytes).then_some(*number)
    }

    /// A new segment for `data_set` on a device, if there is room or some can be made.
    fn new_segment(&self, admission: &mut Admission, number: usize, data_set: FileId) -> Result<Option<u32>> {
        let device = &self.devices[number];
        loop {
            let segment = admission.next_segment;
            if let Some(room) = device.new_room(segment, &self.taken(number))? {
                admission.next_segment += 1;
                let record =
                    SegmentRecord { data_set, device: device.id(), base: room.base, bytes: room.bytes };
                self.journal.note(Change::NewSegment(segment, record));
                self.write_segments().insert(segment, Segment::new(number, room, data_set));
                return Ok(Some(segment));
            }
            let unused = |(number_of, of): (&u32, &Segment)| {
                let in_use = of.data_set == data_set || admission.open_data_sets.contains(&of.data_set);
                (of.device == number && !in_use).then_some(*number_of)
            };
            let Some(oldest) = self.read_segments().iter().find_map(unused) else { return Ok(None) };
            self.drop_segment(admission, oldest);
        }
    }

    /// What segments take of a device: where they begin and how long they are, in order.
    fn taken(&self, device: usize) -> Vec<(u64, u64)> {
        let segments = self.read_segments();
        let mut taken: Vec<(u64, u64)> =
            segments.values().filter(|of| of.device == device).map(|of| (of.base, of.bytes)).collect();
        taken.sort_unstable();
        taken
    }

    fn drop_segment(&self, admission: &mut Admission, number: u32) {
        // First from the segments: a commit that sees it there has entered its block before the index is searched.
        let Some(segment) = self.write_segments().remove(&number) else { return };
        self.index.remove_all(|place| place.segment() == number);
        admission.holes.retain(|hole| hole.segment() != number);
        self.journal.note(Change::LostSegment(number));
        self.devices[segment.device].free_room(&segment.file);
    }

    /// The block of a reservation was written: from now on it is found.
    pub fn commit(&self, reservation: &Reservation) {
        self.devices[reservation.device].succeeded();
        let segments = self.read_segments();
        if !segments.contains_key(&reservation.compact.segment()) {
            return;
        }
        let before = self.index.insert(reservation.key, reservation.compact);
        drop(segments);
        self.note(reservation.key, reservation.compact, true);
        if let Some(before) = before {
            self.leave_hole(before);
        }
    }

    /// The block of a reservation was not written, because of `error`. Without space the device takes no more blocks;
    /// other failures count against it.
    pub fn give_up(&self, reservation: &Reservation, error: &Error) {
        match error.kind() {
            ErrorKind::Closed => {}
            ErrorKind::Full | ErrorKind::Denied => self.devices[reservation.device].stop_writing(error),
            _ => self.failed(reservation.device, error),
        }
    }

    /// A block was read and is whole.
    pub fn read_succeeded(&self, device: usize) {
        self.devices[device].succeeded();
    }

    /// Forgets a block that could not be read, because of `error`, or that did not authenticate.
    pub fn forget(&self, key: BlockKey, block: &L2Block, error: &Error) {
        let removed = self.index.remove(key, block.compact);
        if removed {
            self.note(key, block.compact, false);
        }
        if error.kind() == ErrorKind::Corrupt {
            // The device read what it has: its place is good for another block. In-flight reads of the old one
            // authenticate what they get, so that nobody takes the new block for it.
            if removed {
                self.leave_hole(block.compact);
            }
        } else if error.kind() != ErrorKind::Closed {
            self.failed(block.device, error);
        }
    }

    fn leave_hole(&self, place: Place) {
        let mut admission = self.admission();
        if admission.holes.len() < HOLES_MAX {
            admission.holes.push(place);
        }
    }

    fn failed(&self, number: usize, error: &Error) {
        let device = &self.devices[number];
        if !device.failed() {
            return;
        }
        let of_device: HashSet<u32> = self
            .read_segments()
            .iter()
            .filter(|(_, of)| of.device == number)
            .map(|(segment, _)| *segment)
            .collect();
        // The catalog keeps them: a device that was only unplugged is warm again after a restart.
        let blocks = self.index.remove_all(|place| of_device.contains(&place.segment()));
        let left = self.devices.iter().filter(|other| !other.is_retired()).count();
        let path = device.path().display();
        tracing::error!(%error, device = %path, blocks, left, "a device of L2 failed too often and is retired");
    }

    /// Writes what is still to be remembered to the catalog and stops doing so.
    pub fn close(&self) {
        self.journal.close();
    }

    fn note(&self, key: BlockKey, place: Place, present: bool) {
        let file = self.files.id(key.file);
        self.journal.note(Change::Block { file, block: key.block, place, present });
    }

    /// How each device is doing.
    #[must_use]
    pub fn report(&self) -> Vec<L2DeviceReport> {
        let report = |(number, device): (usize, &L2Device)| device.report(self.allocated(number));
        self.devices.iter().enumerate().map(report).collect()
    }

    /// Devices that were retired.
    #[must_use]
    pub fn retired_devices(&self) -> u64 {
        to_u64(self.devices.iter().filter(|device| device.is_retired()).count())
    }

    /// Stored bytes that were not admitted because of the write rate.
    #[must_use]
    pub fn throttled_bytes(&self) -> u64 {
        self.throttled_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for NvmeTier {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
