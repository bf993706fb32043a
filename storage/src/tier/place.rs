//! Where a block lies on L2, in 8 bytes, and what the catalog remembers of a segment.

use std::sync::Arc;

use super::SealedPlace;
use crate::device::DeviceFile;
use crate::format::FileId;
use crate::units::{ALIGN_BYTES, to_usize};

pub(super) const UNIT: u64 = ALIGN_BYTES as u64;
const LEN_BITS: u32 = 13;
const OFFSET_BITS: u32 = 16;

/// Longest block: 2^12 units of 4096 bytes, the format's limit.
pub(super) const BLOCK_UNITS_MAX: u64 = 1 << 12;
/// Longest segment: what 16 bits of offset in units reach.
pub(super) const SEGMENT_BYTES_MAX: u64 = UNIT << OFFSET_BITS;

/// A segment, and an offset and a length in it in units of 4096 bytes, packed into one number. Zero is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// The place at `offset` of `segment`, `len` bytes long; both are multiples of 4096 within a segment's limits.
    pub(super) fn new(segment: u32, offset: u64, len: u64) -> Self {
        let (offset, len) = (offset / UNIT, len / UNIT);
        assert!(offset < 1 << OFFSET_BITS && (1..=BLOCK_UNITS_MAX).contains(&len), "{offset} + {len} units");
        Self((u64::from(segment) << (OFFSET_BITS + LEN_BITS)) | (offset << LEN_BITS) | len)
    }

    /// The number behind it; never zero.
    pub(super) fn packed(self) -> u64 {
        self.0
    }

    /// The place that [`Place::packed`] gave; none for zero.
    pub(super) fn unpack(packed: u64) -> Option<Self> {
        (packed != 0).then_some(Self(packed))
    }

    pub(super) fn segment(self) -> u32 {
        u32::try_from(self.0 >> (OFFSET_BITS + LEN_BITS)).expect("packed from 32 bits")
    }

    pub(super) fn offset(self) -> u64 {
        ((self.0 >> LEN_BITS) & ((1 << OFFSET_BITS) - 1)) * UNIT
    }

    pub(super) fn len(self) -> u64 {
        (self.0 & ((1 << LEN_BITS) - 1)) * UNIT
    }

    /// The bytes themselves, in the file of a segment that begins at `base`.
    pub(super) fn sealed(self, file: &Arc<DeviceFile>, base: u64) -> SealedPlace {
        SealedPlace { file: Arc::clone(file), offset: base + self.offset(), len: to_usize(self.len()) }
    }
}

/// A segment as the catalog remembers it, in 49 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentRecord {
    /// Whose blocks it holds.
    pub(super) data_set: FileId,
    /// The block device it lies on; zeros for a file in a directory.
    pub(super) device: [u8; 16],
    /// Where it begins on that device.
    pub(super) base: u64,
    /// How long it is.
    pub(super) bytes: u64,
}

/// Raised when the rows of L2 in the catalog change; rows of another version are not read, and L2 starts cold.
const RECORD_VERSION: u8 = 2;

impl SegmentRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![RECORD_VERSION];
        bytes.extend_from_slice(&self.data_set.0);
        bytes.extend_from_slice(&self.device);
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (data_set, rest) = rest.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first_chunk::<16>()?;
        let (base, rest) = rest.split_first_chunk::<8>()?;
        let (base, bytes) = (u64::from_le_bytes(*base), u64::from_le_bytes(rest.try_into().ok()?));
        let sound = *version == RECORD_VERSION
            && base.is_multiple_of(UNIT)
            && bytes.is_multiple_of(UNIT)
            && (1..=SEGMENT_BYTES_MAX).contains(&bytes)
            && base.checked_add(bytes).is_some();
        sound.then_some(Self { data_set: FileId(*data_set), device: *device, base, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_records_come_back_as_they_went_in() {
        for (segment, offset, len) in
            [(0, 0, 4096), (u32::MAX, SEGMENT_BYTES_MAX - UNIT, 16 << 20), (7, 1 << 20, 65536)]
        {
            let place = Place::new(segment, offset, len);
            assert_eq!((place.segment(), place.offset(), place.len()), (segment, offset, len));
            assert_eq!(Place::unpack(place.packed()), Some(place));
        }
        assert_eq!(Place::unpack(0), None);
        let record =
            SegmentRecord { data_set: FileId([7; 16]), device: [9; 16], base: 1 << 40, bytes: 4 << 20 };
        let encoded = record.encode();
        assert_eq!(SegmentRecord::decode(&encoded), Some(record));
        for cut in 0..encoded.len() {
            assert_eq!(SegmentRecord::decode(&encoded[..cut]), None);
        }
        let huge = SegmentRecord { bytes: 1 << 50, ..record };
        assert_eq!(SegmentRecord::decode(&huge.encode()), None);
    }
}
