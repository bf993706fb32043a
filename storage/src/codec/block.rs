//! One block: plain bytes to stored bytes and back.

use std::sync::Arc;

use tierstream_crypto::{Cipher, FileKeys, Nonce, TAG_BYTES};
use zstd::zstd_safe::{CCtx, DCtx};

use super::dictionary::Dictionary;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, Coding, FileId, SealParams, TRAILER_BYTES, Trailer, stored_bytes};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// zstd level: 1 decompresses as fast as the higher ones and compresses far faster; blocks of 64 KiB leave little for a
/// higher level to find.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Seals and opens the blocks of one file.
#[derive(Clone, Debug)]
pub struct BlockCodec {
    keys: Arc<FileKeys>,
    file_id: FileId,
    compressed: bool,
    // Whether the cipher hides anything; without, bodies lie as they are and the tag covers them as AAD.
    encrypts: bool,
    block_bytes: usize,
    dictionary: Option<Arc<Dictionary>>,
}

/// Working memory of one thread: compression contexts and a block between the two steps.
pub struct Scratch {
    bytes: Vec<u8>,
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} bytes)", self.bytes.len())
    }
}

impl Scratch {
    /// Working memory for one thread.
    ///
    /// # Errors
    /// `Full` without memory.
    pub fn new() -> Result<Self> {
        let full = || Error::new(ErrorKind::Full, "allocate", "no memory for zstd");
        Ok(Self {
            bytes: Vec::new(),
            compressor: CCtx::try_create().ok_or_else(full)?,
            decompressor: DCtx::try_create().ok_or_else(full)?,
        })
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        &mut self.bytes[..len]
    }
}

impl BlockCodec {
    /// The codec of the file that `params` describe.
    #[must_use]
    pub fn new(keys: Arc<FileKeys>, params: &SealParams) -> Self {
        Self {
            keys,
            file_id: params.file_id,
            compressed: params.compressed,
            encrypts: params.cipher != Cipher::AuthOnly,
            block_bytes: to_usize(u64::from(params.block_bytes)),
            dictionary: None,
        }
    }

    /// The same codec with the file's dictionary. It must have been made for what the codec is to do.
    #[must_use]
    pub fn with_dictionary(self, dictionary: Arc<Dictionary>) -> Self {
        Self { dictionary: Some(dictionary), ..self }
    }

    /// The file's dictionary, if it has one.
    #[must_use]
    pub fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        self.dictionary.as_ref()
    }

    /// The kernel that seals and opens.
    #[must_use]
    pub fn kernel(&self) -> &'static str {
        self.keys.block_cipher().kernel()
    }

    /// Seals the first `plain_bytes` bytes of `block` in place as block `number` of `kind`, compressed first where the
    /// file allows it and it pays. Returns the stored length: a multiple of 4096, at most the length of `block`.
    ///
    /// # Panics
    /// When `plain_bytes` does not leave room for the trailer.
    pub fn seal(
        &self,
        kind: BlockKind,
        number: u64,
        plain_bytes: usize,
        block: &mut [u8],
        scratch: &mut Scratch,
    ) -> usize {
        let raw_stored = to_usize(stored_bytes(to_u64(plain_bytes)));
        assert!(raw_stored <= block.len(), "{plain_bytes} bytes do not fit a block of {}", block.len());
        let (coding, coded_bytes) = match self.compress(kind, &mut block[..plain_bytes], raw_stored, scratch)
        {
            Some(coded) => (Coding::Zstd, coded),
            None => (Coding::Raw, plain_bytes),
        };
        let stored = to_usize(stored_bytes(to_u64(coded_bytes)));
        let block = &mut block[..stored];
        let (body, trailer_bytes) = block.split_at_mut(stored - TRAILER_BYTES);
        // Stale bytes of an earlier block must not be sealed into this one.
        body[coded_bytes..].fill(0);
        let trailer = Trailer {
            kind,
            coding,
            number,
            file_id: self.file_id,
            plain_bytes: u32_of(plain_bytes),
            coded_bytes: u32_of(coded_bytes),
        };
        let (cipher, nonce) = (self.keys.block_cipher(), nonce(kind, number));
        if self.encrypts {
            let tag = cipher.seal_in_place(&nonce, &trailer.aad(), body);
            trailer.write(&tag, trailer_bytes.try_into().expect("64 bytes"));
        } else {
            trailer.write(&[0; TAG_BYTES], trailer_bytes.try_into().expect("64 bytes"));
            let (covered, tag) = block.split_at_mut(stored - TAG_BYTES);
            tag.copy_from_slice(&cipher.seal_in_place(&nonce, covered, &mut []));
        }
        stored
    }

    /// The compressed length, now at the start of `plain`, if that saves at least one sector.
    fn compress(
        &self,
        kind: BlockKind,
        plain: &mut [u8],
        raw_stored: usize,
        scratch: &mut Scratch,
    ) -> Option<usize> {
        if !self.compressed || kind != BlockKind::Data || raw_stored <= ALIGN_BYTES {
            return None;
        }
        // Room for a result that is just good enough: zstd stops early when it does not fit.
        let limit = raw_stored - ALIGN_BYTES - TRAILER_BYTES;
        scratch.bytes(limit);
        let (compressor, room) = (&mut scratch.compressor, &mut scratch.bytes[..limit]);
        let coded = match self.dictionary.as_ref().and_then(|dictionary| dictionary.encoder()) {
            Some(dictionary) => compressor.compress_using_cdict(room, plain, dictionary),
            None => compressor.compress(room, plain, ZSTD_LEVEL),
        };
        let coded = coded.ok()?;
        plain.get_mut(..coded)?.copy_from_slice(&scratch.bytes[..coded]);
        Some(coded)
    }

    /// Authenticates `stored` as block `number` of `kind` with `plain_bytes` bytes of payload and writes these to the
    /// start of `plain`. `stored` is not changed. A raw block is opened with its padding, in place where `plain` has room
    /// for that too, else aside and then copied.
    ///
    /// # Errors
    /// `Corrupt` when the block is damaged, cut short, or not the block asked for; `plain` then holds no plaintext.
    pub fn open(
        &self,
        kind: BlockKind,
        number: u64,
        plain_bytes: usize,
        stored: &[u8],
        plain: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, "open", why).at_block(kind.name(), number);
        if stored.len() < ALIGN_BYTES
            || !stored.len().is_multiple_of(ALIGN_BYTES)
            || stored.len() > self.block_bytes
        {
            return Err(corrupt("the stored length is not that of a block"));
        }
        let (body, trailer_bytes) = stored.split_at(stored.len() - TRAILER_BYTES);
        let (trailer, tag) = Trailer::parse(trailer_bytes.try_into().expect("64 bytes")).map_err(corrupt)?;
        let expected = Trailer {
            kind,
            number,
            file_id: self.file_id,
            plain_bytes: u32_of(plain_bytes),
            coding: trailer.coding,
            coded_bytes: trailer.coded_bytes,
        };
        if trailer != expected {
            return Err(corrupt(&format!(
                "another block is in its place: {} block {} of file {}",
                trailer.kind.name(),
                trailer.number,
                trailer.file_id
            )));
        }
        let coded_bytes = to_usize(u64::from(trailer.coded_bytes));
        let lengths_fit = to_usize(stored_bytes(to_u64(coded_bytes))) == stored.len()
            && match trailer.coding {
                Coding::Raw => coded_bytes == plain_bytes,
                Coding::Zstd => self.compressed && kind == BlockKind::Data,
            };
        if !lengths_fit {
            return Err(corrupt("the lengths in the trailer contradict each other"));
        }
        let (cipher, nonce, aad) = (self.keys.block_cipher(), nonce(kind, number), trailer.aad());
        let mismatch = |_| corrupt("tag mismatch");
        if !self.encrypts {
            let covered = &stored[..stored.len() - TAG_BYTES];
            if let Err(error) = cipher.open_in_place(&nonce, covered, &mut [], &tag) {
                plain.fill(0);
                return Err(mismatch(error));
            }
        }
        match (trailer.coding, self.encrypts) {
            (Coding::Raw, true) if plain.len() < body.len() => {
                let aside = scratch.bytes(body.len());
                cipher.open_into(&nonce, &aad, body, aside, &tag).map_err(mismatch)?;
                plain[..plain_bytes].copy_from_slice(&aside[..plain_bytes]);
                Ok(())
            }
            (Coding::Raw, true) => {
                cipher.open_into(&nonce, &aad, body, &mut plain[..body.len()], &tag).map_err(mismatch)
            }
            (Coding::Raw, false) => {
                plain[..plain_bytes].copy_from_slice(&body[..plain_bytes]);
                Ok(())
            }
            (Coding::Zstd, true) => {
                let coded = scratch.bytes(body.len());
                cipher.open_into(&nonce, &aad, body, coded, &tag).map_err(mismatch)?;
                let Scratch { bytes, decompressor, .. } = scratch;
                self.decompress(decompressor, &bytes[..coded_bytes], &mut plain[..plain_bytes])
                    .map_err(|why| corrupt(&why))
            }
            (Coding::Zstd, false) => self
                .decompress(&mut scratch.decompressor, &body[..coded_bytes], &mut plain[..plain_bytes])
                .map_err(|why| corrupt(&why)),
        }
    }

    /// Fills `plain` from the zstd frame `coded`, which was authenticated: one that does not give exactly as many bytes
    /// was written by a faulty writer. zstd writes to `plain` alone and takes no memory by what a frame claims.
    fn decompress(
        &self,
        decompressor: &mut DCtx<'static>,
        coded: &[u8],
        plain: &mut [u8],
    ) -> std::result::Result<(), String> {
        let outcome = match &self.dictionary {
            Some(dictionary) => decompressor.decompress_using_ddict(plain, coded, dictionary.decoder()),
            None => decompressor.decompress(plain, coded),
        };
        let found = match outcome {
            Ok(len) if len == plain.len() => return Ok(()),
            Ok(len) => format!("{len} bytes"),
            Err(code) => zstd::zstd_safe::get_error_name(code).to_owned(),
        };
        plain.fill(0);
        Err(format!("zstd: {found}, expected {} bytes", plain.len()))
    }
}

/// Unique in a file: a block is sealed once, under a key drawn for this write of this file (format.md, section 5).
fn nonce(kind: BlockKind, number: u64) -> Nonce {
    Nonce::block(u32::from(kind.id()), number)
}

fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a block of at most 16 MiB")
}

#[cfg(test)]
mod tests;
