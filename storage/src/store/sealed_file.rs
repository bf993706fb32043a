//! One sealed file opened for reading: its header authenticated, its blocks located.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use tierstream_crypto::{KeyProvider, MAC_BYTES};

use super::stream::Reader;
use crate::buf::HostMemory;
use crate::codec::{BlockCodec, SealedHeader, open_header};
use crate::device::{Access, DeviceFile, Directory};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, FileId, HEADER_BYTES, Header, Index, SectionType, plain_bytes};
use crate::tier::SealedPlace;
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

const SECTOR: u64 = ALIGN_BYTES as u64;

/// What a file must be, as its data set's manifest says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) id: FileId,
    pub(super) mac: [u8; MAC_BYTES],
}

/// A sealed file that was authenticated up to its header, and to its block table where it has one.
#[derive(Debug)]
pub(super) struct SealedFile {
    file: Arc<DeviceFile>,
    sealed: SealedHeader,
    codec: BlockCodec,
    // Ends of the stored blocks in sectors behind the header, for files whose blocks vary in length.
    table: Option<Vec<u32>>,
}

impl SealedFile {
    /// Opens and authenticates `name` in `directory`.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, cut short, or another file than `expected`; `Missing` without its key; else as the
    /// file system says.
    pub(super) fn open(
        reader: &Reader<'_>,
        directory: &Directory,
        name: &str,
        provider: &dyn KeyProvider,
        expected: Option<Expected>,
    ) -> Result<Self> {
        let file = DeviceFile::open(directory, name, Access::Read)?;
        Self::of_file(reader, Arc::clone(&file), provider, expected).map_err(|error| error.at(file.path()))
    }

    fn of_file(
        reader: &Reader<'_>,
        file: Arc<DeviceFile>,
        provider: &dyn KeyProvider,
        expected: Option<Expected>,
    ) -> Result<Self> {
        let found_bytes = file.size_bytes()?;
        if found_bytes < to_u64(HEADER_BYTES) {
            return Err(truncated(to_u64(HEADER_BYTES), found_bytes));
        }
        let bytes = reader.read(&file, 0, HEADER_BYTES)?;
        let sealed = open_header(bytes[..HEADER_BYTES].try_into().expect("4096 bytes"), provider)?;
        drop(bytes);
        let header = &sealed.header;
        if found_bytes != header.file_bytes() {
            return Err(truncated(header.file_bytes(), found_bytes));
        }
        if let Some(expected) = expected
            && (expected.id, expected.mac) != (header.params.file_id, sealed.mac)
        {
            let why = format!(
                "another file is in its place: file id {}, the manifest names {}",
                header.params.file_id, expected.id
            );
            return Err(Error::new(ErrorKind::Corrupt, "open", why)
                .hint("the shard was swapped or rolled back: restore the data set from its source"));
        }
        for why in &header.damaged_slots {
            tracing::warn!(file = %file.path().display(), "{why}; another slot opened the file");
        }
        let codec = BlockCodec::new(Arc::clone(&sealed.keys), &header.params);
        let mut opened = Self { file, sealed, codec, table: None };
        if opened.header().params.compressed {
            opened.table = Some(opened.read_block_table(reader)?);
        }
        Ok(opened)
    }

    /// The header, authenticated.
    #[must_use]
    pub(super) fn header(&self) -> &Header {
        &self.sealed.header
    }

    /// The header's MAC.
    #[must_use]
    pub(super) fn mac(&self) -> &[u8; MAC_BYTES] {
        &self.sealed.mac
    }

    /// What opens its blocks.
    #[must_use]
    pub(super) fn codec(&self) -> &BlockCodec {
        &self.codec
    }

    /// Where it is.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Payload bytes of data block `number`.
    #[must_use]
    pub(super) fn plain_bytes(&self, number: u64) -> usize {
        to_usize(plain_bytes(self.header().payload_bytes, self.header().params.block_bytes, number))
    }

    /// Where block `number` of `kind` is stored.
    ///
    /// # Errors
    /// `Misuse` when there is no such block.
    pub(super) fn place(&self, kind: BlockKind, number: u64) -> Result<SealedPlace> {
        let header = self.header();
        let count = match kind {
            BlockKind::Data => header.block_count(),
            BlockKind::Index => header.index_block_count(),
        };
        if number >= count {
            let why = format!("{} block {number} of {count}", kind.name());
            return Err(Error::new(ErrorKind::Misuse, "read", why).at(self.path()));
        }
        let (offset, len) = match (kind, &self.table) {
            (BlockKind::Index, _) => header.index_block(number),
            (BlockKind::Data, None) => {
                let offset = to_u64(HEADER_BYTES) + number * u64::from(header.params.block_bytes);
                (offset, to_usize(crate::format::stored_bytes(to_u64(self.plain_bytes(number)))))
            }
            (BlockKind::Data, Some(table)) => {
                let end = |number: u64| u64::from(table[to_usize(number)]) * SECTOR;
                let start = if number == 0 { 0 } else { end(number - 1) };
                (to_u64(HEADER_BYTES) + start, to_usize(end(number) - start))
            }
        };
        Ok(SealedPlace { file: Arc::clone(&self.file), offset, len })
    }

    /// Reads, authenticates and keeps the whole index.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged or missing, else as the device says.
    pub(super) fn read_index(&self, reader: &Reader<'_>) -> Result<IndexBytes> {
        let header = self.header();
        let len = to_usize(header.index_bytes);
        let mut memory = HostMemory::anonymous(len)?;
        let step = to_usize(crate::format::capacity(header.params.block_bytes));
        let chunks = memory.as_mut_slice()[..len].chunks_mut(step);
        let mut chunks = chunks.into_iter();
        reader.open_all(self, BlockKind::Index, |_, plain| {
            let chunk = chunks.next().expect("as many chunks as index blocks");
            chunk.copy_from_slice(&plain[..chunk.len()]);
            Ok(())
        })?;
        drop(chunks);
        let directory = Index::parse(&memory.as_slice()[..len]).map_err(|error| error.at(self.path()))?;
        Ok(IndexBytes { memory: Arc::new(memory), directory })
    }

    fn read_block_table(&self, reader: &Reader<'_>) -> Result<Vec<u32>> {
        let corrupt = |why: String| Error::new(ErrorKind::Corrupt, "open", why).at(self.path());
        let header = self.header();
        let index = self.read_index(reader)?;
        let section = index.section(SectionType::BLOCK_TABLE);
        let bytes = section.ok_or_else(|| corrupt("a compressed file has no block table".to_owned()))?;
        let table: Vec<u32> =
            bytes.chunks_exact(4).map(|end| u32::from_le_bytes(end.try_into().expect("4 bytes"))).collect();
        let sectors_max = header.params.block_bytes / u32::try_from(ALIGN_BYTES).expect("4096");
        let mut start = 0;
        let ascending = table.iter().all(|end| {
            let fits = *end > start && *end - start <= sectors_max;
            start = *end;
            fits
        });
        let whole = to_u64(bytes.len()) == header.block_count() * 4;
        if !whole || !ascending || to_u64(HEADER_BYTES) + u64::from(start) * SECTOR != header.index_offset {
            return Err(corrupt("the block table does not describe the file".to_owned()));
        }
        Ok(table)
    }
}

fn truncated(expected: u64, found: u64) -> Error {
    let (kind, verb) =
        (ErrorKind::Corrupt, if found < expected { "cut short" } else { "longer than it was written" });
    Error::new(kind, "open", format!("the file is {verb}: {found} bytes, expected {expected}"))
        .hint("copy the file again from where it was packed, or pack the data set again")
}

/// An index in memory, and where its sections are.
#[derive(Debug)]
pub(super) struct IndexBytes {
    memory: Arc<HostMemory>,
    directory: Index,
}

impl IndexBytes {
    /// A section, if the index has it.
    pub(super) fn section(&self, section: SectionType) -> Option<Section> {
        let range = self.directory.section(section)?;
        Some(Section { memory: Arc::clone(&self.memory), range })
    }
}

/// One section of an index: bytes that were authenticated, in a mapping that the sections of a file share.
#[derive(Clone, Debug)]
pub struct Section {
    memory: Arc<HostMemory>,
    range: std::ops::Range<usize>,
}

impl Section {
    /// The first `len` bytes of `memory` as a section, for sources that got them by another way.
    #[must_use]
    pub fn of_memory(memory: HostMemory, len: usize) -> Self {
        assert!(len <= memory.as_slice().len(), "{len} bytes of {}", memory.as_slice().len());
        Self { memory: Arc::new(memory), range: 0..len }
    }
}

impl Deref for Section {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.as_slice()[self.range.clone()]
    }
}

/// Reads a header without its key. Nothing of it is authenticated: for display alone.
///
/// # Errors
/// As [`Header::parse`], and as the file system says.
pub fn peek_header(path: &Path) -> Result<Header> {
    let mut bytes = Box::new([0; HEADER_BYTES]);
    let read = crate::device::read_prefix(path, &mut bytes[..])?;
    if read < HEADER_BYTES {
        return Err(truncated(to_u64(HEADER_BYTES), to_u64(read)).at(path));
    }
    Header::parse(&bytes).map(|(header, _)| header).map_err(|error| error.at(path))
}
