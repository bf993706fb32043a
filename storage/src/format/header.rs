//! The header: 4096 bytes that say what the file is, how long it must be, and under which keys it opens.

use std::fmt;

use tierstream_crypto::{COMMITMENT_BYTES, Cipher, MAC_BYTES, WrappedKey};

use super::fields::{array, is_zero, put, u16_at, u32_at, u64_at};
use super::slots::{self, WRAP_SLOTS};
use super::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAYLOAD_BYTES_MAX, block_count, raw_stored_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ALIGN_BYTES, to_usize};

/// Length of the header.
pub const HEADER_BYTES: usize = 4096;
/// Length of the part that never changes once the first block is sealed; it enters the key derivation.
pub const PROLOGUE_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"TIERSEAL";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;
const COMMITMENT_AT: usize = 128;
const MAC_AT: usize = 2016;
const ALIGN: u64 = 4096;

/// Names one write of one file: random, so that no two files share it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub [u8; 16]);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a sealed file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of a data set.
    Shard,
    /// The list of a data set's shards.
    Manifest,
    /// A checkpoint, a tensor, any other single thing.
    Object,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Shard, Self::Manifest, Self::Object];

    fn id(self) -> u8 {
        match self {
            Self::Shard => 1,
            Self::Manifest => 2,
            Self::Object => 3,
        }
    }

    /// The word in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Manifest => "manifest",
            Self::Object => "object",
        }
    }
}

/// What is fixed before the first block of a file is sealed: the prologue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealParams {
    /// What the file is for.
    pub kind: Kind,
    /// How its blocks are sealed.
    pub cipher: Cipher,
    /// Whether its blocks may be compressed with zstd before they are sealed.
    pub compressed: bool,
    /// Names this write of this file.
    pub file_id: FileId,
    /// Names the data set it belongs to; zero for none.
    pub data_set_id: FileId,
    /// The data set's generation, from 1.
    pub generation: u64,
    /// Stored length of a full block.
    pub block_bytes: u32,
    /// Records start at multiples of this in the payload.
    pub record_align: u32,
}

/// A parsed header. Nothing in it is to be trusted before its MAC was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The prologue.
    pub params: SealParams,
    /// Minor version of the format it was written with.
    pub minor: u16,
    /// Length of the payload.
    pub payload_bytes: u64,
    /// Records in the payload.
    pub record_count: u64,
    /// Where the index blocks start.
    pub index_offset: u64,
    /// Plain length of the index; zero for none.
    pub index_bytes: u64,
    /// The key commitment.
    pub commitment: [u8; COMMITMENT_BYTES],
    /// The data key, under each key-encryption key that opens it.
    pub wraps: Vec<WrappedKey>,
    /// Wrap slots that are neither empty nor well formed, and why. Another slot may open the file.
    pub damaged_slots: Vec<String>,
}

impl Header {
    /// Data blocks in the file.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        block_count(self.payload_bytes, self.params.block_bytes)
    }

    /// Index blocks in the file.
    #[must_use]
    pub fn index_block_count(&self) -> u64 {
        block_count(self.index_bytes, self.params.block_bytes)
    }

    /// Length the whole file must have.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.index_offset + raw_stored_bytes(self.index_bytes, self.params.block_bytes)
    }

    /// Stored length of a full block, as a buffer size.
    #[must_use]
    pub fn block_slot_bytes(&self) -> usize {
        to_usize(u64::from(self.params.block_bytes))
    }

    /// Stored length of index block `number` and its offset in the file.
    #[must_use]
    pub fn index_block(&self, number: u64) -> (u64, usize) {
        let block_bytes = self.params.block_bytes;
        let offset = self.index_offset + number * u64::from(block_bytes);
        let stored = super::stored_bytes(super::plain_bytes(self.index_bytes, block_bytes, number));
        debug_assert!(offset + stored <= self.file_bytes() && stored <= u64::from(block_bytes));
        (offset, to_usize(stored))
    }

    /// Parses 4096 bytes and checks everything that can be checked without a key. The MAC at the end is returned
    /// beside the header, to be checked over the first [`Header::maced`] bytes.
    ///
    /// # Errors
    /// `Misuse` when this is no sealed file at all, `Unsupported` for another version or algorithm, `Corrupt` for
    /// fields that contradict each other.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, [u8; MAC_BYTES])> {
        if array::<8>(bytes, 0) != *MAGIC {
            return Err(Error::new(
                ErrorKind::Misuse,
                "open",
                "not a sealed file: the first 8 bytes are not `TIERSEAL`",
            ));
        }
        let major = u16_at(bytes, 8);
        if major != MAJOR {
            return Err(unsupported(format!("format version {major}, this program reads version {MAJOR}"))
                .hint("use a newer tierstream"));
        }
        let params = parse_prologue(bytes)?;
        let [blocks, payload_bytes, record_count, index_offset, index_bytes, file_bytes] =
            [64, 72, 80, 88, 96, 104].map(|offset| u64_at(bytes, offset));
        if !is_zero(&bytes[112..COMMITMENT_AT]) || !is_zero(&bytes[COMMITMENT_AT + COMMITMENT_BYTES..MAC_AT])
        {
            return Err(corrupt("reserved bytes of the header are not zero"));
        }
        if payload_bytes > PAYLOAD_BYTES_MAX || index_bytes > PAYLOAD_BYTES_MAX {
            return Err(corrupt(format!(
                "payload of {payload_bytes} and index of {index_bytes} bytes are over the limit"
            )));
        }
        let count = block_count(payload_bytes, params.block_bytes);
        if blocks != count || u32::try_from(count).is_err() {
            return Err(corrupt(format!(
                "{blocks} blocks for {payload_bytes} bytes of payload, expected {count}"
            )));
        }
        let lowest = ALIGN + ALIGN * count;
        let highest = ALIGN + u64::from(params.block_bytes) * count;
        if !index_offset.is_multiple_of(ALIGN) || !(lowest..=highest).contains(&index_offset) {
            return Err(corrupt(format!(
                "index at {index_offset}, expected a multiple of 4096 in {lowest}..={highest}"
            )));
        }
        let (wraps, damaged_slots) = slots::parse(bytes);
        let header = Self {
            params,
            minor: u16_at(bytes, 10),
            payload_bytes,
            record_count,
            index_offset,
            index_bytes,
            commitment: array(bytes, COMMITMENT_AT),
            wraps,
            damaged_slots,
        };
        if file_bytes != header.file_bytes() {
            return Err(corrupt(format!("file length {file_bytes}, expected {}", header.file_bytes())));
        }
        Ok((header, array(bytes, MAC_AT)))
    }

    /// The part of the header that the MAC covers.
    #[must_use]
    pub fn maced(bytes: &[u8; HEADER_BYTES]) -> &[u8] {
        &bytes[..MAC_AT]
    }

    /// The header's bytes, with the MAC that `mac` gives for those it covers.
    ///
    /// # Panics
    /// With more than [`WRAP_SLOTS`] wraps.
    #[must_use]
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES]) -> Box<[u8; HEADER_BYTES]> {
        assert!(self.wraps.len() <= WRAP_SLOTS, "{} wraps, at most {WRAP_SLOTS} fit", self.wraps.len());
        let mut bytes = Box::new([0; HEADER_BYTES]);
        put(&mut *bytes, 0, &self.params.prologue(self.minor));
        let counts = [
            self.block_count(),
            self.payload_bytes,
            self.record_count,
            self.index_offset,
            self.index_bytes,
            self.file_bytes(),
        ];
        for (value, offset) in counts.into_iter().zip((64..).step_by(8)) {
            put(&mut *bytes, offset, &value.to_le_bytes());
        }
        put(&mut *bytes, COMMITMENT_AT, &self.commitment);
        let mac = mac(Self::maced(&bytes));
        put(&mut *bytes, MAC_AT, &mac);
        for (number, wrap) in self.wraps.iter().enumerate() {
            slots::put_wrap(&mut bytes, number, Some(wrap));
        }
        bytes
    }
}

impl SealParams {
    /// The 64 bytes that enter the key derivation of a file written with minor version `minor`.
    #[must_use]
    pub fn prologue(&self, minor: u16) -> [u8; PROLOGUE_BYTES] {
        let mut bytes = [0; PROLOGUE_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &MAJOR.to_le_bytes());
        put(&mut bytes, 10, &minor.to_le_bytes());
        bytes[12] = self.kind.id();
        bytes[13] = self.cipher.id();
        bytes[14] = kdf_id(self.cipher);
        bytes[15] = u8::from(self.compressed);
        put(&mut bytes, 16, &self.file_id.0);
        put(&mut bytes, 32, &self.data_set_id.0);
        put(&mut bytes, 48, &self.generation.to_le_bytes());
        put(&mut bytes, 56, &self.block_bytes.to_le_bytes());
        put(&mut bytes, 60, &self.record_align.to_le_bytes());
        bytes
    }

    /// Minor version that this program writes.
    #[must_use]
    pub fn minor() -> u16 {
        MINOR
    }

    /// Checks the limits on what a caller chose.
    ///
    /// # Errors
    /// `Misuse` with found and expected.
    pub fn check(&self) -> Result<()> {
        check_sizes(self.block_bytes, self.record_align)
            .map_err(|why| Error::new(ErrorKind::Misuse, "seal", why))
    }
}

/// SM4 keys are derived with SM3 (1), AES keys with SHA-256 (2).
fn kdf_id(cipher: Cipher) -> u8 {
    match cipher {
        Cipher::Sm4Gcm | Cipher::AuthOnly => 1,
        Cipher::Aes256Gcm => 2,
    }
}

/// Checks the limits on the lengths of blocks and the alignment of records.
pub(super) fn check_sizes(block_bytes: u32, record_align: u32) -> std::result::Result<(), String> {
    let sector = u32::try_from(ALIGN_BYTES).expect("4096");
    if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) || !block_bytes.is_multiple_of(sector) {
        return Err(format!(
            "block of {block_bytes} bytes, expected a multiple of 4096 up to {BLOCK_BYTES_MAX}"
        ));
    }
    if !record_align.is_power_of_two() || record_align > sector {
        return Err(format!("record alignment {record_align}, expected a power of two up to 4096"));
    }
    Ok(())
}

fn parse_prologue(bytes: &[u8]) -> Result<SealParams> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.id() == bytes[12]);
    let kind = kind.ok_or_else(|| unsupported(format!("file kind {}", bytes[12])))?;
    let cipher = Cipher::from_id(bytes[13]).ok_or_else(|| unsupported(format!("cipher {}", bytes[13])))?;
    if bytes[14] != kdf_id(cipher) {
        return Err(unsupported(format!("key derivation {} with cipher {cipher}", bytes[14])));
    }
    if bytes[15] > 1 {
        return Err(unsupported(format!("codec {}", bytes[15])));
    }
    let (block_bytes, record_align) = (u32_at(bytes, 56), u32_at(bytes, 60));
    check_sizes(block_bytes, record_align).map_err(corrupt)?;
    Ok(SealParams {
        kind,
        cipher,
        compressed: bytes[15] == 1,
        file_id: FileId(array(bytes, 16)),
        data_set_id: FileId(array(bytes, 32)),
        generation: u64_at(bytes, 48),
        block_bytes,
        record_align,
    })
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "open", why)
}

fn unsupported(why: String) -> Error {
    Error::new(ErrorKind::Unsupported, "open", why)
}

const _: () = assert!(ALIGN_BYTES as u64 == ALIGN);
