//! One sealed file opened for reading: its header authenticated, its blocks located.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use tierstream_crypto::{KeyProvider, MAC_BYTES};

use super::index;
use super::stream::Reader;
use crate::codec::{BlockCodec, Dictionary, SealedHeader, open_header};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, FileId, HEADER_BYTES, Header, Index, plain_bytes};
use crate::home::{ShardFile, ShardHome};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

const SECTOR: u64 = ALIGN_BYTES as u64;

/// What a file must be, as its data set's manifest says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) id: FileId,
    pub(super) mac: [u8; MAC_BYTES],
}

/// Where stored bytes of a sealed file lie.
#[derive(Clone, Debug)]
pub(super) struct ShardPlace {
    pub(super) file: Arc<dyn ShardFile>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// A sealed file that was authenticated up to its header, and to its block table where it has one.
#[derive(Debug)]
pub(super) struct SealedFile {
    file: Arc<dyn ShardFile>,
    sealed: SealedHeader,
    codec: BlockCodec,
    // Ends of the stored blocks in sectors behind the header, for files whose blocks vary in length.
    table: Option<Vec<u32>>,
    // Read when a section is first asked for.
    directory: OnceLock<Index>,
    on_l2: bool,
}

impl SealedFile {
    /// Opens and authenticates `name` in `home`.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, cut short, or another file than `expected`; `Missing` without its key; else as the
    /// file system says.
    pub(super) fn open(
        reader: &Reader<'_>,
        home: &dyn ShardHome,
        name: &str,
        provider: &dyn KeyProvider,
        expected: Option<Expected>,
    ) -> Result<Self> {
        let file = home.open(name)?;
        Self::of_file(reader, Arc::clone(&file), provider, expected).map_err(|error| error.at(file.path()))
    }

    fn of_file(
        reader: &Reader<'_>,
        file: Arc<dyn ShardFile>,
        provider: &dyn KeyProvider,
        expected: Option<Expected>,
    ) -> Result<Self> {
        let found_bytes = file.size_bytes()?;
        if found_bytes < to_u64(HEADER_BYTES) {
            return Err(truncated(to_u64(HEADER_BYTES), found_bytes));
        }
        let bytes = reader.read(&*file, 0, HEADER_BYTES)?;
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
        // Before anything is sized by it: a block is read into one buffer.
        if header.block_slot_bytes() > reader.arena.slot_bytes() {
            let (found, most) = (header.params.block_bytes, reader.arena.slot_bytes());
            let why = format!("blocks of {found} bytes, but buffers have {most}");
            return Err(Error::new(ErrorKind::Misuse, "open", why)
                .hint(format!("open the store with blocks of {found} bytes or more")));
        }
        let codec = BlockCodec::new(Arc::clone(&sealed.keys), &header.params);
        let directory = OnceLock::new();
        let mut opened = Self { file, sealed, codec, table: None, directory, on_l2: false };
        if opened.header().params.compressed {
            opened.table = Some(index::read_block_table(&opened, reader)?);
            if let Some(dictionary) = index::read_dictionary(&opened, reader)? {
                opened.codec = opened.codec.with_dictionary(Arc::new(dictionary));
            }
        }
        Ok(opened)
    }

    /// The same file, whose home is L2 for now: an object that was written there.
    #[must_use]
    pub(super) fn on_l2(self) -> Self {
        Self { on_l2: true, ..self }
    }

    /// Whether it lies on L2.
    #[must_use]
    pub(super) fn is_on_l2(&self) -> bool {
        self.on_l2
    }

    /// The open file.
    #[must_use]
    pub(super) fn file(&self) -> &dyn ShardFile {
        &*self.file
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

    /// Takes the dictionary of another file in `known` in the place of one of the same bytes, so that the shards of a
    /// data set share one; adds one that is new.
    pub(super) fn share_dictionary(&mut self, known: &mut Vec<Weak<Dictionary>>) {
        let Some(own) = self.codec.dictionary().cloned() else { return };
        known.retain(|dictionary| dictionary.strong_count() > 0);
        let same = known.iter().filter_map(Weak::upgrade).find(|other| other.bytes() == own.bytes());
        match same {
            Some(shared) => self.codec = self.codec.clone().with_dictionary(shared),
            None => known.push(Arc::downgrade(&own)),
        }
    }

    /// Where the sections of its index lie. The file must have an index.
    ///
    /// # Errors
    /// `Corrupt` when the index is damaged, else as the device says.
    pub(super) fn directory(&self, reader: &Reader<'_>) -> Result<&Index> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let read = index::read_directory(self, reader)?;
        Ok(self.directory.get_or_init(|| read))
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
    pub(super) fn place(&self, kind: BlockKind, number: u64) -> Result<ShardPlace> {
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
        Ok(ShardPlace { file: Arc::clone(&self.file), offset, len })
    }
}

pub(super) fn truncated(expected: u64, found: u64) -> Error {
    let (kind, verb) =
        (ErrorKind::Corrupt, if found < expected { "cut short" } else { "longer than it was written" });
    Error::new(kind, "open", format!("the file is {verb}: {found} bytes, expected {expected}"))
        .hint("copy the file again from where it was packed, or pack the data set again")
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
