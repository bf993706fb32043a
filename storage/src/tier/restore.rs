//! What an earlier run left on L2: its segments that are still there, and the blocks in them.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use serde::Serialize;

use super::index::Index;
use super::journal::{chunk_of, decode_chunk};
use super::l2_device::{L2Device, Room, segment_name};
use super::nvme::Segment;
use super::place::{BLOCK_UNITS_MAX, Place, SegmentRecord, UNIT};
use super::{BlockKey, FileTable};
use crate::catalog::{Batch, CatalogStore, Table};
use crate::device::{Access, DeviceFile, fs};
use crate::error::Result;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) segments: BTreeMap<u32, Segment>,
    /// The next segment's number: numbers are not used twice.
    pub(super) next_segment: u32,
    /// The next row of each segment.
    pub(super) chunks: HashMap<u32, u32>,
}

/// Takes over what is there, puts its blocks into `index`, and removes what belongs to nobody: segment files that the
/// catalog does not know, and rows of the catalog whose segment is gone.
pub(super) fn restore(
    devices: &[L2Device],
    catalog: &dyn CatalogStore,
    files: &FileTable,
    index: &Index,
) -> Result<Restored> {
    let mut stale: Vec<(Table, Vec<u8>)> = Vec::new();
    let mut known: BTreeMap<u32, SegmentRecord> = BTreeMap::new();
    let mut restored = Restored { next_segment: 1, ..Restored::default() };
    catalog.scan(Table::Segments, &[], None, &mut |key, value| {
        let number = key.try_into().map(u32::from_be_bytes);
        if let Ok(number) = number {
            restored.next_segment = restored.next_segment.max(number.saturating_add(1));
        }
        match (number, SegmentRecord::decode(value)) {
            (Ok(number), Some(record)) => drop(known.insert(number, record)),
            _ => stale.push((Table::Segments, key.to_vec())),
        }
        ControlFlow::Continue(())
    })?;
    for (number, device) in devices.iter().enumerate() {
        take_over(number, device, &known, &mut restored)?;
    }
    let gone = known.keys().filter(|number| !restored.segments.contains_key(number));
    stale.extend(gone.map(|number| (Table::Segments, number.to_be_bytes().to_vec())));
    read_blocks(catalog, files, index, &mut restored, &mut stale)?;
    if !stale.is_empty() {
        let mut batch = Batch::default();
        stale.iter().for_each(|(table, key)| batch.delete(*table, key));
        catalog.apply(&batch)?;
    }
    Ok(restored)
}

/// The segments of one device that the catalog knows.
fn take_over(
    number: usize,
    device: &L2Device,
    known: &BTreeMap<u32, SegmentRecord>,
    restored: &mut Restored,
) -> Result<()> {
    let Some(directory) = device.directory() else {
        for (segment, record) in known.iter().filter(|(_, record)| record.device == device.id()) {
            if let Some(room) = device.old_room(record.base, record.bytes) {
                restored.segments.insert(*segment, Segment::new(number, room, record.data_set));
            }
        }
        return Ok(());
    };
    for entry in fs::list(directory.path())? {
        let name = entry.name;
        let segment = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u32>().ok());
        // Only files that bear one of our names are ours to remove.
        let Some(segment) = segment.filter(|segment| name.to_str() == Some(&segment_name(*segment))) else {
            continue;
        };
        match known.get(&segment) {
            Some(record) => {
                let file = DeviceFile::open(directory, &segment_name(segment), Access::ReadWrite)?;
                let bytes = file.size_bytes()?.min(record.bytes) / UNIT * UNIT;
                let room = Room { file, base: 0, bytes };
                restored.segments.insert(segment, Segment::new(number, room, record.data_set));
            }
            None => fs::remove_file(&directory.path().join(&name))?,
        }
        restored.next_segment = restored.next_segment.max(segment.saturating_add(1));
    }
    Ok(())
}

/// Takes over the blocks that lie within segments that are there; what is beyond them is forgotten.
fn read_blocks(
    catalog: &dyn CatalogStore,
    files: &FileTable,
    index: &Index,
    restored: &mut Restored,
    stale: &mut Vec<(Table, Vec<u8>)>,
) -> Result<()> {
    let mut last = None;
    catalog.scan(Table::Blocks, &[], None, &mut |key, value| {
        let place = chunk_of(key);
        let Some((number, chunk, segment)) =
            place.and_then(|(number, chunk)| Some((number, chunk, restored.segments.get_mut(&number)?)))
        else {
            stale.push((Table::Blocks, key.to_vec()));
            return ControlFlow::Continue(());
        };
        restored.chunks.insert(number, chunk.saturating_add(1));
        decode_chunk(value, |entry| {
            let file = match last {
                Some((id, file)) if id == entry.file => file,
                _ => last.insert((entry.file, files.intern(entry.file))).1,
            };
            let key = BlockKey { file, block: entry.block };
            let (offset, len) = (u64::from(entry.offset_units) * UNIT, u64::from(entry.len_units) * UNIT);
            if len == 0 {
                let here = |place: &Place| place.segment() == number && place.offset() == offset;
                if let Some(place) = index.get(key).filter(here) {
                    index.remove(key, place);
                }
            } else if len <= BLOCK_UNITS_MAX * UNIT && offset + len <= segment.bytes {
                segment.used = segment.used.max(offset + len);
                index.insert(key, Place::new(number, offset, len));
            }
        });
        ControlFlow::Continue(())
    })
}

/// What a catalog says of an L2 that nobody has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct L2Summary {
    /// Segments.
    pub segments: u64,
    /// Bytes that they take on their devices.
    pub allocated_bytes: u64,
    /// Blocks in them.
    pub blocks: u64,
}

/// Counts what `catalog` remembers of L2, without a look at its devices.
///
/// # Errors
/// As the catalog.
pub fn l2_summary(catalog: &dyn CatalogStore) -> Result<L2Summary> {
    let mut summary = L2Summary::default();
    catalog.scan(Table::Segments, &[], None, &mut |_, value| {
        if let Some(record) = SegmentRecord::decode(value) {
            summary.segments += 1;
            summary.allocated_bytes += record.bytes;
        }
        ControlFlow::Continue(())
    })?;
    catalog.scan(Table::Blocks, &[], None, &mut |key, value| {
        if chunk_of(key).is_some() {
            decode_chunk(value, |entry| {
                summary.blocks =
                    if entry.len_units == 0 { summary.blocks.saturating_sub(1) } else { summary.blocks + 1 };
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok(summary)
}
