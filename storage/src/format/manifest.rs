//! The manifest: which shards make a data set, each bound by its file id and header MAC.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tierstream_crypto::MAC_BYTES;

use super::FileId;
use super::header::check_sizes;
use crate::error::{Error, ErrorKind, Result};

/// The manifest's file name in a data set's directory.
pub const MANIFEST_NAME: &str = "manifest.tsm";
/// Longest manifest.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const SHARDS_MAX: usize = 65_536;
const VERSION: u32 = 1;

/// The list of a data set's shards and what their owner says of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this JSON.
    pub version: u32,
    /// What people call the data set.
    pub name: String,
    /// What a record looks like; the owner's business.
    pub schema: serde_json::Value,
    /// What the data set was made from; the packer's business.
    #[serde(default)]
    pub source: serde_json::Value,
    /// Whether the shards' blocks may be compressed.
    #[serde(default)]
    pub compressed: bool,
    /// Stored length of a full block in every shard.
    pub block_bytes: u32,
    /// Records start at multiples of this in every shard.
    pub record_align: u32,
    /// Payload bytes of all shards.
    pub payload_bytes: u64,
    /// Records of all shards.
    pub records: u64,
    /// The shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// One shard of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// File name in the manifest's directory.
    pub file: String,
    /// The shard's file id.
    #[serde(with = "hex")]
    pub id: [u8; 16],
    /// The shard's header MAC.
    #[serde(with = "hex")]
    pub mac: [u8; MAC_BYTES],
    /// Length of the whole file.
    pub file_bytes: u64,
    /// Payload bytes.
    pub payload_bytes: u64,
    /// Records.
    pub records: u64,
}

impl ShardEntry {
    /// The shard's file id.
    #[must_use]
    pub fn file_id(&self) -> FileId {
        FileId(self.id)
    }
}

impl Manifest {
    /// An empty manifest of this version.
    #[must_use]
    pub fn new(name: String, schema: serde_json::Value, block_bytes: u32, record_align: u32) -> Self {
        Self {
            version: VERSION,
            name,
            schema,
            source: serde_json::Value::Null,
            compressed: false,
            block_bytes,
            record_align,
            payload_bytes: 0,
            records: 0,
            shards: Vec::new(),
        }
    }

    /// Adds a shard and its sizes.
    pub fn push(&mut self, shard: ShardEntry) {
        self.payload_bytes += shard.payload_bytes;
        self.records += shard.records;
        self.shards.push(shard);
    }

    /// Reads the JSON, which was authenticated before, and checks its limits.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed, `Unsupported` for another version.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let corrupt = |why: String| Error::new(ErrorKind::Corrupt, "open", why);
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| corrupt(format!("manifest: {error}")))?;
        if manifest.version != VERSION {
            let why = format!("manifest version {}, this program reads version {VERSION}", manifest.version);
            return Err(Error::new(ErrorKind::Unsupported, "open", why).hint("use a newer tierstream"));
        }
        if manifest.shards.len() > SHARDS_MAX {
            return Err(corrupt(format!(
                "manifest of {} shards, at most {SHARDS_MAX}",
                manifest.shards.len()
            )));
        }
        let sum = |of: fn(&ShardEntry) -> u64| {
            manifest.shards.iter().try_fold(0_u64, |sum, shard| sum.checked_add(of(shard)))
        };
        if sum(|shard| shard.payload_bytes) != Some(manifest.payload_bytes)
            || sum(|shard| shard.records) != Some(manifest.records)
            || sum(|shard| shard.file_bytes).is_none()
        {
            return Err(corrupt("the manifest's sums are not those of its shards".to_owned()));
        }
        check_sizes(manifest.block_bytes, manifest.record_align).map_err(corrupt)?;
        let mut names = HashSet::new();
        for shard in &manifest.shards {
            if !names.insert(&shard.file) {
                return Err(corrupt(format!("two shards are named `{}`", shard.file.escape_debug())));
            }
            if shard.file.is_empty() || shard.file.starts_with('.') || shard.file.contains(['/', '\0']) {
                return Err(corrupt(format!("shard file name `{}`", shard.file.escape_debug())));
            }
        }
        Ok(manifest)
    }

    /// The JSON.
    ///
    /// # Errors
    /// `Misuse` when it would be over the limit.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::new(ErrorKind::Misuse, "seal", format!("manifest: {error}")))?;
        if crate::units::to_u64(json.len()) > MANIFEST_BYTES_MAX || self.shards.len() > SHARDS_MAX {
            let why = format!(
                "manifest of {} shards and {} bytes is over the limit",
                self.shards.len(),
                json.len()
            );
            return Err(Error::new(ErrorKind::Misuse, "seal", why).hint("raise --shard-mib"));
        }
        Ok(json)
    }
}

/// Byte arrays as hexadecimal strings.
mod hex {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        let bad = || D::Error::custom(format!("expected {} hexadecimal digits", N * 2));
        if text.len() != N * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; N];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(bytes)
    }
}
