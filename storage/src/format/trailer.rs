//! The last 64 bytes of every stored block: which block of which file this is, and its tag.

use tierstream_crypto::{TAG_BYTES, Tag};

use super::FileId;
use super::fields::{array, is_zero, put, u32_at, u64_at};

/// Length of a trailer.
pub const TRAILER_BYTES: usize = 64;
/// The part that is authenticated as AAD; the tag follows it.
const AAD_BYTES: usize = TRAILER_BYTES - TAG_BYTES;
const MAGIC: &[u8; 4] = b"TSB1";

/// Which of a file's two sequences a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Payload.
    Data,
    /// Index.
    Index,
}

impl BlockKind {
    /// The number in trailers and nonces.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Index => 1,
        }
    }

    /// The word in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Index => "index",
        }
    }
}

/// How a block's bytes were coded before they were sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// A parsed trailer. Nothing in it is to be trusted before its tag was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Which sequence.
    pub kind: BlockKind,
    /// How it is coded.
    pub coding: Coding,
    /// Number within its sequence, from 0.
    pub number: u64,
    /// The file it was written for.
    pub file_id: FileId,
    /// Payload bytes in the block.
    pub plain_bytes: u32,
    /// Bytes of the body that count.
    pub coded_bytes: u32,
}

impl Trailer {
    /// The trailer without its tag: what is authenticated beside the body.
    #[must_use]
    pub fn aad(&self) -> [u8; AAD_BYTES] {
        let mut bytes = [0; AAD_BYTES];
        put(&mut bytes, 0, MAGIC);
        bytes[4] = self.kind.id();
        bytes[5] = match self.coding {
            Coding::Raw => 0,
            Coding::Zstd => 1,
        };
        put(&mut bytes, 8, &self.number.to_le_bytes());
        put(&mut bytes, 16, &self.file_id.0);
        put(&mut bytes, 32, &self.plain_bytes.to_le_bytes());
        put(&mut bytes, 36, &self.coded_bytes.to_le_bytes());
        bytes
    }

    /// Writes trailer and tag into the last 64 bytes of a block.
    pub fn write(&self, tag: &Tag, bytes: &mut [u8; TRAILER_BYTES]) {
        put(bytes, 0, &self.aad());
        put(bytes, AAD_BYTES, tag);
    }

    /// Reads trailer and tag.
    ///
    /// # Errors
    /// What is wrong with it, for a `Corrupt` error that knows the place.
    pub fn parse(bytes: &[u8; TRAILER_BYTES]) -> std::result::Result<(Self, Tag), &'static str> {
        if array::<4>(bytes, 0) != *MAGIC {
            return Err("the trailer does not begin with `TSB1`");
        }
        let kind = match bytes[4] {
            0 => BlockKind::Data,
            1 => BlockKind::Index,
            _ => return Err("the trailer names an unknown kind of block"),
        };
        let coding = match bytes[5] {
            0 => Coding::Raw,
            1 => Coding::Zstd,
            _ => return Err("the trailer names an unknown coding"),
        };
        if !is_zero(&bytes[6..8]) || !is_zero(&bytes[40..AAD_BYTES]) {
            return Err("reserved bytes of the trailer are not zero");
        }
        let trailer = Self {
            kind,
            coding,
            number: u64_at(bytes, 8),
            file_id: FileId(array(bytes, 16)),
            plain_bytes: u32_at(bytes, 32),
            coded_bytes: u32_at(bytes, 36),
        };
        Ok((trailer, array(bytes, AAD_BYTES)))
    }
}
