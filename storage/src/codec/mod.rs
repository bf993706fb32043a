//! The chain between stored and plain bytes: compress and seal on the way down, authenticate, open and decompress on
//! the way up.
//!
//! Guarantees that nothing unverified leaves it: no layer above checks again. Knows one file's keys at a time; neither
//! where the bytes came from nor who wants them.

mod block;
mod dictionary;
mod header;
mod rewrap;

pub use block::{BlockCodec, Scratch};
pub use dictionary::{DICTIONARY_BYTES_MIN, Dictionary};
pub use header::{FinalSizes, SealedHeader, Sealer, open_header, seal_header};
pub use rewrap::{add_wrap, remove_wraps};
