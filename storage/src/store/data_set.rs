//! What a data set is to those who read it: shards, sizes and the owner's schema.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::format::{FileId, Header, Manifest};

/// A data set that a source has open. Can be sent to another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSetInfo {
    /// The source's number for it; means nothing to another source.
    pub handle: u32,
    /// The data set's id, in hexadecimal.
    pub id: String,
    /// Raised by each pack of the same data set.
    pub generation: u64,
    /// What people call it.
    pub name: String,
    /// What a record looks like; the owner's business.
    pub schema: serde_json::Value,
    /// What it was made from; the packer's business.
    pub source: serde_json::Value,
    /// How its blocks are sealed.
    pub cipher: String,
    /// The code that opens them here.
    pub cipher_kernel: String,
    /// Whether blocks may be compressed.
    pub compressed: bool,
    /// Stored length of a full block, in bytes.
    pub block_bytes: u32,
    /// Records start at multiples of this in a shard's payload.
    pub record_align: u32,
    /// Payload bytes of all shards.
    pub payload_bytes: u64,
    /// Stored bytes of all shards.
    pub file_bytes: u64,
    /// Records of all shards.
    pub records: u64,
    /// Stored bytes that were on L2 already when the data set was opened.
    pub l2_warm_bytes: u64,
    /// The shards, in order.
    pub shards: Vec<ShardInfo>,
}

/// One shard of a [`DataSetInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// File name.
    pub file: String,
    /// Stored bytes.
    pub file_bytes: u64,
    /// Payload bytes.
    pub payload_bytes: u64,
    /// Records.
    pub records: u64,
}

impl DataSetInfo {
    pub(super) fn new(
        handle: u32,
        header: &Header,
        manifest: &Manifest,
        kernel: &str,
        l2_warm_bytes: u64,
    ) -> Self {
        let shards: Vec<ShardInfo> = manifest
            .shards
            .iter()
            .map(|shard| ShardInfo {
                file: shard.file.clone(),
                file_bytes: shard.file_bytes,
                payload_bytes: shard.payload_bytes,
                records: shard.records,
            })
            .collect();
        Self {
            handle,
            id: header.params.data_set_id.to_string(),
            generation: header.params.generation,
            name: manifest.name.clone(),
            schema: manifest.schema.clone(),
            source: manifest.source.clone(),
            cipher: header.params.cipher.name().to_owned(),
            cipher_kernel: kernel.to_owned(),
            compressed: manifest.compressed,
            block_bytes: manifest.block_bytes,
            record_align: manifest.record_align,
            payload_bytes: manifest.payload_bytes,
            file_bytes: shards.iter().map(|shard| shard.file_bytes).sum(),
            records: manifest.records,
            l2_warm_bytes,
            shards,
        }
    }
}

/// The highest generation of a data set that a catalog has seen, and the MAC of that manifest. Where the data set was is
/// kept behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) generation: u64,
    pub(super) mac: [u8; 32],
}

impl Seen {
    pub(super) fn key(data_set: FileId) -> [u8; 16] {
        data_set.0
    }

    pub(super) fn encode(&self, location: &Path) -> Vec<u8> {
        [&self.generation.to_le_bytes()[..], &self.mac, location.as_os_str().as_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, PathBuf)> {
        let (generation, rest) = bytes.split_first_chunk::<8>()?;
        let (mac, location) = rest.split_first_chunk::<32>()?;
        let seen = Self { generation: u64::from_le_bytes(*generation), mac: *mac };
        Some((seen, PathBuf::from(OsStr::from_bytes(location))))
    }
}
