//! A sealed file in memory, opened block by block without a store: for tests that compare files, or change them.

use std::ops::Range;
use std::sync::Arc;

use tierstream_crypto::KeyProvider;

use crate::codec::{BlockCodec, Dictionary, Scratch, SealedHeader, open_header};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, HEADER_BYTES, Index, SectionType, block_count, plain_bytes, stored_bytes};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// One block of a [`SealedImage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBlock {
    /// Which sequence it belongs to.
    pub kind: BlockKind,
    /// Its number there.
    pub number: u64,
    /// Where it lies in the file.
    pub stored: Range<usize>,
    /// What it holds.
    pub plain: Vec<u8>,
}

/// A whole file and its keys.
#[derive(Debug)]
pub struct SealedImage {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its header, authenticated.
    pub sealed: SealedHeader,
}

impl SealedImage {
    /// Authenticates the header of `bytes`.
    ///
    /// # Errors
    /// As [`open_header`]; `Corrupt` when the length is not the header's.
    pub fn open(bytes: Vec<u8>, keys: &dyn KeyProvider) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "open", "not the length of a sealed file");
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(corrupt)?;
        let sealed = open_header(header, keys)?;
        if to_u64(bytes.len()) != sealed.header.file_bytes() {
            return Err(corrupt());
        }
        Ok(Self { bytes, sealed })
    }

    /// What seals and opens its blocks, with its dictionary.
    ///
    /// # Errors
    /// `Corrupt` when the index is damaged.
    pub fn codec(&self) -> Result<BlockCodec> {
        let codec = self.codec_of_index();
        Ok(match self.section(SectionType::DICTIONARY)? {
            Some(bytes) => codec.with_dictionary(Arc::new(Dictionary::for_sealing(&bytes)?)),
            None => codec,
        })
    }

    fn codec_of_index(&self) -> BlockCodec {
        BlockCodec::new(Arc::clone(&self.sealed.keys), &self.sealed.header.params)
    }

    /// A section of its index.
    ///
    /// # Errors
    /// `Corrupt` when the index is damaged.
    pub fn section(&self, section: SectionType) -> Result<Option<Vec<u8>>> {
        let index = self.plain(BlockKind::Index)?;
        if index.is_empty() {
            return Ok(None);
        }
        let range = Index::parse(&index, to_u64(index.len()))?.section(section);
        Ok(range.map(|range| index[to_usize(range.start)..to_usize(range.end)].to_vec()))
    }

    /// The whole index, or the whole payload.
    ///
    /// # Errors
    /// As [`SealedImage::blocks`].
    pub fn plain(&self, kind: BlockKind) -> Result<Vec<u8>> {
        Ok(self.blocks(kind)?.into_iter().flat_map(|block| block.plain).collect())
    }

    /// Its blocks of one kind, opened.
    ///
    /// # Errors
    /// `Corrupt` when one is damaged.
    pub fn blocks(&self, kind: BlockKind) -> Result<Vec<ImageBlock>> {
        let header = &self.sealed.header;
        let block_bytes = header.params.block_bytes;
        let (total, mut at, codec, table) = match kind {
            BlockKind::Index => {
                (header.index_bytes, to_usize(header.index_offset), self.codec_of_index(), None)
            }
            BlockKind::Data => {
                let table = match header.params.compressed {
                    true => self.section(SectionType::BLOCK_TABLE)?,
                    false => None,
                };
                (header.payload_bytes, HEADER_BYTES, self.codec()?, table)
            }
        };
        let mut scratch = Scratch::new()?;
        let mut blocks = Vec::new();
        for number in 0..block_count(total, block_bytes) {
            let len = plain_bytes(total, block_bytes, number);
            let end = match &table {
                None => at + to_usize(stored_bytes(len)),
                Some(table) => {
                    let entry = &table[to_usize(number) * 4..][..4];
                    let sectors = u32::from_le_bytes(entry.try_into().expect("4 bytes"));
                    HEADER_BYTES + to_usize(u64::from(sectors)) * ALIGN_BYTES
                }
            };
            let mut plain = vec![0; header.block_slot_bytes()];
            codec.open(kind, number, to_usize(len), &self.bytes[at..end], &mut plain, &mut scratch)?;
            plain.truncate(to_usize(len));
            blocks.push(ImageBlock { kind, number, stored: at..end, plain });
            at = end;
        }
        Ok(blocks)
    }
}
