//! Where the samples of a shard lie in its payload: the sections of a shard's index that belong to the loader.

use tierstream_storage::format::SectionType;
use tierstream_storage::store::Section;
use tierstream_storage::units::{ByteRange, align_up, to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeSource, Result, ShardInfo};

/// Where each record ends.
pub(crate) const RECORD_ENDS: SectionType = SectionType(20);
/// What a record looks like, as JSON.
pub(crate) const SCHEMA: SectionType = SectionType(17);
/// Names of the records.
pub const RECORD_NAMES: SectionType = SectionType(18);
/// The length of every record, where all have the same.
pub(crate) const RECORD_LENGTH: SectionType = SectionType(19);

/// Bytes of an entry of [`RECORD_ENDS`]: 40 bits, where a payload has at most 2^36 bytes.
const END_BYTES: usize = 5;

/// The index of one shard, as far as reading samples needs it: 5 bytes a sample, none where all have the same length.
#[derive(Clone, Debug)]
pub struct ShardIndex {
    ends: Ends,
    records: u64,
    payload_bytes: u64,
    align: u64,
}

#[derive(Clone, Debug)]
enum Ends {
    Each(Section),
    Every(u64),
}

impl ShardIndex {
    /// Reads the index of shard `number`.
    ///
    /// # Errors
    /// `Corrupt` when it does not describe the shard, else as the source says.
    pub fn read(source: &dyn RangeSource, set: &DataSetInfo, number: usize) -> Result<Self> {
        let shard: &ShardInfo = &set.shards[number];
        let corrupt = |why: &str| {
            let place = std::path::Path::new(&shard.file);
            Error::new(ErrorKind::Corrupt, "read index", why).at(place)
        };
        let ends = if let Some(section) = source.section(set, number, RECORD_LENGTH)? {
            let length: [u8; 8] =
                section[..].try_into().map_err(|_| corrupt("the record length is not 8 bytes"))?;
            Ends::Every(u64::from_le_bytes(length))
        } else {
            let section = source.section(set, number, RECORD_ENDS)?;
            let section = section.ok_or_else(|| corrupt("the index does not say where records end"))?;
            if Some(to_u64(section.len())) != shard.records.checked_mul(to_u64(END_BYTES)) {
                return Err(corrupt("the index does not have one entry for each record"));
            }
            Ends::Each(section)
        };
        let index = Self {
            ends,
            records: shard.records,
            payload_bytes: shard.payload_bytes,
            align: u64::from(set.record_align),
        };
        // Every other range is checked when it is asked for.
        let last = shard.records.checked_sub(1).map(|last| index.range(last));
        if last.is_some_and(|range| range.is_none_or(|range| range.end > shard.payload_bytes)) {
            return Err(corrupt("the last record lies beyond the payload"));
        }
        Ok(index)
    }

    /// Memory that it takes beside this structure.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        match &self.ends {
            Ends::Each(section) => section.mapped_bytes(),
            Ends::Every(_) => 0,
        }
    }

    /// Where record `number` of the shard lies in its payload. None when there is no such record, or when the index
    /// contradicts itself.
    #[must_use]
    pub fn range(&self, number: u64) -> Option<ByteRange> {
        if number >= self.records {
            return None;
        }
        let range = match &self.ends {
            Ends::Every(length) => {
                let step = length.checked_next_multiple_of(self.align)?;
                let start = number.checked_mul(step)?;
                start..start.checked_add(*length)?
            }
            Ends::Each(ends) => {
                let end = |number: u64| {
                    let at = to_usize(number) * END_BYTES;
                    let mut end = [0; 8];
                    end[..END_BYTES].copy_from_slice(ends.get(at..at + END_BYTES)?);
                    Some(u64::from_le_bytes(end))
                };
                let before = if number == 0 { 0 } else { end(number - 1)? };
                if before > self.payload_bytes {
                    return None;
                }
                align_up(before, self.align)..end(number)?
            }
        };
        (range.start <= range.end && range.end <= self.payload_bytes).then_some(range)
    }
}

/// Appends the entry of a record that ends at `end` of the payload.
pub(crate) fn push_end(ends: &mut Vec<u8>, end: u64) {
    debug_assert!(end < 1 << (8 * END_BYTES), "a payload of at most 64 GiB");
    ends.extend_from_slice(&end.to_le_bytes()[..END_BYTES]);
}

/// Encodes the names section: the end of each name, then the names.
#[must_use]
pub(crate) fn encode_names(names: &[String]) -> Vec<u8> {
    let mut end = 0;
    let mut bytes = Vec::new();
    for name in names {
        end += to_u64(name.len());
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    names.iter().for_each(|name| bytes.extend_from_slice(name.as_bytes()));
    bytes
}

/// The name of record `number` of a shard with `records`, from its names section.
#[must_use]
pub fn name_of(section: &[u8], records: u64, number: u64) -> Option<&str> {
    if number >= records {
        return None;
    }
    let ends = section.get(..to_usize(records.checked_mul(8)?))?;
    let names = &section[ends.len()..];
    let end = |number: u64| {
        let at = to_usize(number) * 8;
        Some(to_usize(u64::from_le_bytes(ends.get(at..at + 8)?.try_into().ok()?)))
    };
    let start = if number == 0 { 0 } else { end(number - 1)? };
    std::str::from_utf8(names.get(start..end(number)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_bad_ones_do_not_panic() {
        let names: Vec<String> = ["a", "", "ordner/bild-ü.png"].map(str::to_owned).to_vec();
        let section = encode_names(&names);
        for (number, name) in (0..).zip(&names) {
            assert_eq!(name_of(&section, 3, number), Some(&name[..]));
        }
        assert_eq!(name_of(&section, 3, 3), None);
        assert_eq!(name_of(&section, 3, u64::MAX), None);
        assert_eq!(name_of(&section[..20], 3, 0), None);
        assert_eq!(name_of(&section, u64::MAX, 0), None);
        let mut bad = section.clone();
        bad[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!((name_of(&bad, 3, 0), name_of(&bad, 3, 1)), (None, None));
    }
}
