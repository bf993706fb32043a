//! The directory of an index: which sections it has and where.

use std::ops::Range;

use super::fields::{put, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{align_up, to_u64, to_usize};

const MAGIC: &[u8; 4] = b"TSIX";
const ENTRY_BYTES: usize = 24;
const SECTIONS_MAX: u32 = 64;
const CRITICAL: u32 = 1;

/// The type of a section. Those below 16 belong to storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionType(pub u32);

impl SectionType {
    /// Where each stored data block ends, for files whose blocks vary in length.
    pub const BLOCK_TABLE: Self = Self(1);
    /// The zstd dictionary that the data blocks were compressed with, for files that have one.
    pub const DICTIONARY: Self = Self(2);

    /// Types a reader of this version understands, of storage's own.
    fn is_known(self) -> bool {
        self == Self::BLOCK_TABLE || self == Self::DICTIONARY || self.0 >= 16
    }
}

/// Length that holds any directory: a reader needs no more of an index to know its sections.
pub const INDEX_HEAD_BYTES: u64 = 8 + SECTIONS_MAX as u64 * ENTRY_BYTES as u64;

/// A parsed directory of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    sections: Vec<(SectionType, Range<u64>)>,
}

impl Index {
    /// Reads the directory at the start of an index of `index_bytes` bytes. `bytes` are its first
    /// [`INDEX_HEAD_BYTES`], or all if there are fewer.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed, `Unsupported` when it has a critical section of an unknown type.
    pub fn parse(bytes: &[u8], index_bytes: u64) -> Result<Self> {
        if bytes.len() < 8 || bytes[..4] != *MAGIC {
            return Err(corrupt("the index does not begin with `TSIX`"));
        }
        let count = u32_at(bytes, 4);
        if count > SECTIONS_MAX {
            return Err(corrupt(format!("index of {count} sections, at most {SECTIONS_MAX} are allowed")));
        }
        let directory = 8 + to_usize(u64::from(count)) * ENTRY_BYTES;
        if bytes.len() < directory {
            return Err(corrupt(format!("index of {} bytes ends within its directory", bytes.len())));
        }
        let mut sections: Vec<(SectionType, Range<u64>)> = Vec::new();
        let mut end_of_last = to_u64(directory);
        for entry in bytes[8..directory].chunks_exact(ENTRY_BYTES) {
            let (section, flags) = (SectionType(u32_at(entry, 0)), u32_at(entry, 4));
            let (offset, len) = (u64_at(entry, 8), u64_at(entry, 16));
            let end = offset.checked_add(len).filter(|end| *end <= index_bytes);
            let Some(end) = end.filter(|_| offset >= end_of_last && offset.is_multiple_of(8)) else {
                return Err(corrupt(format!(
                    "section {} at {offset}, {len} bytes, is out of place",
                    section.0
                )));
            };
            end_of_last = end;
            if flags & !CRITICAL != 0 {
                return Err(corrupt(format!("section {} has flags {flags:#x}, expected 0 or 1", section.0)));
            }
            if flags & CRITICAL != 0 && !section.is_known() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "open",
                    format!("the file needs section {}, which this version does not know", section.0),
                )
                .hint("use a newer tierstream"));
            }
            if sections.iter().any(|(known, _)| *known == section) {
                return Err(corrupt(format!("section {} appears twice", section.0)));
            }
            sections.push((section, offset..end));
        }
        Ok(Self { sections })
    }

    /// Where a section lies in the index, if there is one.
    #[must_use]
    pub fn section(&self, section: SectionType) -> Option<Range<u64>> {
        self.sections.iter().find(|(known, _)| *known == section).map(|(_, range)| range.clone())
    }

    /// Lays out `sections` as an index. Sections of storage's own are critical.
    ///
    /// # Panics
    /// With more than 64 sections.
    #[must_use]
    pub fn encode(sections: &[(SectionType, Vec<u8>)]) -> Vec<u8> {
        let count = u32::try_from(sections.len()).ok().filter(|count| *count <= SECTIONS_MAX);
        let count = count.expect("at most 64 sections");
        let mut bytes = vec![0; 8 + sections.len() * ENTRY_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, &count.to_le_bytes());
        for (number, (section, contents)) in sections.iter().enumerate() {
            let offset = to_usize(align_up(to_u64(bytes.len()), 8));
            bytes.resize(offset, 0);
            bytes.extend_from_slice(contents);
            let entry = 8 + number * ENTRY_BYTES;
            let flags = if section.0 < 16 { CRITICAL } else { 0 };
            put(&mut bytes, entry, &section.0.to_le_bytes());
            put(&mut bytes, entry + 4, &flags.to_le_bytes());
            put(&mut bytes, entry + 8, &to_u64(offset).to_le_bytes());
            put(&mut bytes, entry + 16, &to_u64(contents.len()).to_le_bytes());
        }
        bytes
    }
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "open", why)
}
