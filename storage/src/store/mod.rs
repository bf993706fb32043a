//! The store: blocks of sealed data sets and objects, read through the tiers; objects written to them.
//!
//! A block is looked for in L1, then L2, then L3; it is authenticated and opened on the way up, kept in L1, and its
//! sealed bytes are offered to L2 when they came from L3. A block that is damaged or unreadable on L2 is dropped there
//! and read from L3; only L3's own failure reaches the caller, with device, file and offset.
//!
//! Knows payloads, blocks and byte ranges; no samples, no epochs.

mod config;
mod core;
mod data_set;
mod error_list;
mod fetch;
mod index;
mod load;
pub mod object;
mod open;
mod publish;
mod read;
mod read_log;
mod resume;
mod rewrap;
mod scrub;
mod sealed_file;
mod source;
mod status;
mod stream;
mod verify;
mod views;
mod write;

pub use config::StoreConfig;
pub use core::{Store, Urgency};
pub use data_set::{DataSetInfo, ShardInfo};
pub use fetch::RUN_BYTES;
pub use index::Section;
pub use object::{Object, ObjectConfig, ObjectInfo, Payload, PutOptions};
pub use publish::{DataSetWriter, SealedShard};
pub use read_log::{ReadEvent, ReadLog};
pub use resume::Groups;
pub use rewrap::{FileWraps, Rewrap, RewrapProgress, RewrapReport, SealedFiles, list_wraps, sealed_files};
pub use scrub::{KnownDataSet, L2Scrub, known_data_sets};
pub use sealed_file::peek_header;
pub use source::{RangeRead, RangeSource};
pub use status::{StatusReport, ask_status};
pub use verify::{VerifyProgress, VerifyReport, verify};
pub use views::{View, Views};
pub use write::{SealedWriter, WriteContext};

#[cfg(test)]
mod tests;
