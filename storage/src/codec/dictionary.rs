//! A zstd dictionary that the blocks of a file are compressed with: trained when a data set is packed, sealed in the
//! index of each shard (docs/specs/format.md, section 6).
//!
//! Guarantees that a dictionary of any bytes does no harm: it is of bounded length, what zstd refuses is an error, and
//! what zstd takes changes the bytes of a block at most, never how many there are.

use std::fmt;

use zstd::zstd_safe::{CDict, DDict};

use super::block::ZSTD_LEVEL;
use crate::error::{Error, ErrorKind, Result};
use crate::format::DICTIONARY_BYTES_MAX;
use crate::units::to_u64;

/// Shortest dictionary that zstd trains.
pub const DICTIONARY_BYTES_MIN: usize = 256;

/// A dictionary, ready for use by any number of threads.
pub struct Dictionary {
    bytes: Vec<u8>,
    open: DDict<'static>,
    // Costs several times the dictionary's length, and only writers need it.
    seal: Option<CDict<'static>>,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are pieces of somebody's plaintext.
        write!(f, "Dictionary({} bytes)", self.bytes.len())
    }
}

impl Dictionary {
    /// The dictionary of a file that is read.
    ///
    /// # Errors
    /// `Corrupt` when it is empty, longer than a dictionary may be, or claims to be one of zstd's and is not.
    pub fn for_opening(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || to_u64(bytes.len()) > DICTIONARY_BYTES_MAX {
            let why = format!("dictionary of {} bytes, expected 1 to {DICTIONARY_BYTES_MAX}", bytes.len());
            return Err(Error::new(ErrorKind::Corrupt, "open", why));
        }
        let open = DDict::try_create(bytes)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "open", "zstd refuses the dictionary"))?;
        Ok(Self { bytes: bytes.to_vec(), open, seal: None })
    }

    /// The dictionary of a file that is written.
    ///
    /// # Errors
    /// `Misuse` when zstd refuses it, or it is longer than a dictionary may be.
    pub fn for_sealing(bytes: &[u8]) -> Result<Self> {
        let dictionary = Self::for_opening(bytes)
            .map_err(|error| Error::new(ErrorKind::Misuse, "seal", error.to_string()))?;
        let seal = CDict::try_create(bytes, ZSTD_LEVEL)
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "seal", "zstd refuses the dictionary"))?;
        Ok(Self { seal: Some(seal), ..dictionary })
    }

    /// Trains a dictionary of at most `bytes_max` bytes on `samples`, pieces of what will be compressed laid end to
    /// end with the length of each in `lens`. `None` when there is too little, or nothing that repeats, to learn from.
    ///
    /// # Errors
    /// `Misuse` when `bytes_max` is out of range.
    pub fn train(samples: &[u8], lens: &[usize], bytes_max: usize) -> Result<Option<Vec<u8>>> {
        if bytes_max < DICTIONARY_BYTES_MIN || to_u64(bytes_max) > DICTIONARY_BYTES_MAX {
            let why = format!("dictionary of {bytes_max} bytes");
            let hint = format!("use --dictionary between {DICTIONARY_BYTES_MIN} and {DICTIONARY_BYTES_MAX}");
            return Err(Error::new(ErrorKind::Misuse, "train dictionary", why).hint(hint));
        }
        // zstd's own word for "too few samples" and "no gain" is an error code; both mean to go without.
        Ok(zstd::dict::from_continuous(samples, lens, bytes_max).ok().filter(|bytes| !bytes.is_empty()))
    }

    /// Its bytes, as they lie in an index.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn decoder(&self) -> &DDict<'static> {
        &self.open
    }

    pub(super) fn encoder(&self) -> Option<&CDict<'static>> {
        self.seal.as_ref()
    }
}
