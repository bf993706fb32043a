//! Reading the index of a sealed file: the directory once, then each section by itself, when it is asked for.
//!
//! A section is opened into an anonymous mapping of its own: page-granular, without a second copy on the heap, and given
//! back to the system when the last reader drops it. The sealed index is read through the I/O engine like every other
//! block and never mapped from the file: plaintext must not lie on disk, and a mapped file that another process cuts
//! short kills its readers with SIGBUS, where a read gives an error.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::sealed_file::SealedFile;
use super::stream::Reader;
use crate::buf::HostMemory;
use crate::codec::Dictionary;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BlockKind, DICTIONARY_BYTES_MAX, HEADER_BYTES, INDEX_HEAD_BYTES, Index, SectionType, capacity,
};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

const SECTOR: u64 = ALIGN_BYTES as u64;

/// One section of an index: bytes that were authenticated, in a mapping of their own.
#[derive(Clone, Debug)]
pub struct Section {
    memory: Arc<HostMemory>,
    len: usize,
}

impl Section {
    /// The first `len` bytes of `memory` as a section, for sources that got them by another way.
    #[must_use]
    pub fn of_memory(memory: HostMemory, len: usize) -> Self {
        assert!(len <= memory.as_slice().len(), "{len} bytes of {}", memory.as_slice().len());
        Self { memory: Arc::new(memory), len }
    }

    /// Memory that it takes: its length, rounded up to a page.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.memory.as_slice().len().next_multiple_of(ALIGN_BYTES)
    }
}

impl Deref for Section {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.as_slice()[..self.len]
    }
}

/// Reads and parses the directory of `file`, which has an index.
pub(super) fn read_directory(file: &SealedFile, reader: &Reader<'_>) -> Result<Index> {
    let index_bytes = file.header().index_bytes;
    let head = read_range(file, reader, 0..index_bytes.min(INDEX_HEAD_BYTES))?;
    Index::parse(&head, index_bytes).map_err(|error| error.at(file.path()))
}

/// Reads one section, if `file` has it.
///
/// # Errors
/// `Corrupt` when the index is damaged, else as the device says.
pub(super) fn read_section(
    file: &SealedFile,
    reader: &Reader<'_>,
    section: SectionType,
) -> Result<Option<Section>> {
    if file.header().index_bytes == 0 {
        return Ok(None);
    }
    file.directory(reader)?.section(section).map(|range| read_range(file, reader, range)).transpose()
}

/// Opens the index blocks that hold `range` of the index, and nothing else. The range was checked against the length of
/// the index, which the length of the file bounds.
fn read_range(file: &SealedFile, reader: &Reader<'_>, range: Range<u64>) -> Result<Section> {
    let len = to_usize(range.end - range.start);
    let mut memory = HostMemory::anonymous(len)?;
    let capacity = capacity(file.header().params.block_bytes);
    let blocks = range.start / capacity..range.end.div_ceil(capacity);
    if len > 0 {
        let to = memory.as_mut_slice();
        reader.open_blocks(file, BlockKind::Index, blocks, |number, plain| {
            let block_start = number * capacity;
            let start = range.start.max(block_start);
            let end = range.end.min(block_start + to_u64(plain.len()));
            let from = &plain[to_usize(start - block_start)..to_usize(end - block_start)];
            to[to_usize(start - range.start)..to_usize(end - range.start)].copy_from_slice(from);
            Ok(())
        })?;
    }
    Ok(Section::of_memory(memory, len))
}

/// Reads the ends of the stored data blocks, in sectors behind the header.
pub(super) fn read_block_table(file: &SealedFile, reader: &Reader<'_>) -> Result<Vec<u32>> {
    let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, "open", why).at(file.path());
    let header = file.header();
    let section = read_section(file, reader, SectionType::BLOCK_TABLE)?;
    let bytes = section.ok_or_else(|| corrupt("a compressed file has no block table"))?;
    // First the length, which says how much memory the table takes.
    if Some(to_u64(bytes.len())) != header.block_count().checked_mul(4) {
        return Err(corrupt("the block table does not have one entry for each block"));
    }
    let table: Vec<u32> =
        bytes.chunks_exact(4).map(|end| u32::from_le_bytes(end.try_into().expect("4 bytes"))).collect();
    let sectors_max = header.params.block_bytes / u32::try_from(ALIGN_BYTES).expect("4096");
    let mut start = 0;
    let ascending = table.iter().all(|end| {
        let fits = *end > start && *end - start <= sectors_max;
        start = *end;
        fits
    });
    if !ascending || to_u64(HEADER_BYTES) + u64::from(start) * SECTOR != header.index_offset {
        return Err(corrupt("the block table does not describe the file"));
    }
    Ok(table)
}

/// Reads the dictionary of a compressed file, if it has one.
pub(super) fn read_dictionary(file: &SealedFile, reader: &Reader<'_>) -> Result<Option<Dictionary>> {
    let Some(range) = file.directory(reader)?.section(SectionType::DICTIONARY) else { return Ok(None) };
    if range.end - range.start > DICTIONARY_BYTES_MAX {
        let why = format!("dictionary of {} bytes, at most {DICTIONARY_BYTES_MAX}", range.end - range.start);
        return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
    }
    let bytes = read_range(file, reader, range)?;
    Dictionary::for_opening(&bytes).map(Some).map_err(|error| error.at(file.path()))
}
