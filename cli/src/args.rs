//! Flags that several verbs share, and the values they take.

use std::path::{Path, PathBuf};

use clap::Args;
use tierstream_loader::pack::DictionarySize;
use tierstream_storage::catalog::CatalogKind;
use tierstream_storage::format::MANIFEST_NAME;
use tierstream_storage::io::{EngineChoice, ServiceConfig};
use tierstream_storage::keys::Cipher;
use tierstream_storage::store::peek_header;
use tierstream_storage::tier::{L2Config, WriteRate};
use tierstream_storage::{Result, StoreConfig};

/// The tiers.
#[derive(Debug, Args)]
pub(crate) struct TierArgs {
    /// Memory for opened blocks (L1)
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub(crate) l1_size: u64,

    #[command(flatten)]
    pub(crate) l2: L2Args,

    /// What remembers the contents of L2: redb, or rocksdb where it was built in
    #[arg(long, value_name = "NAME", default_value = "redb", value_parser = parse::<CatalogKind>)]
    pub(crate) catalog: CatalogKind,

    /// Accept a data set older than one that this L2 has seen
    #[arg(long)]
    pub(crate) allow_rollback: bool,

    #[command(flatten)]
    pub(crate) io: IoArgs,
}

impl TierArgs {
    /// The store's settings for data sets with blocks of up to `block_bytes`.
    pub(crate) fn config(&self, block_bytes: u32) -> StoreConfig {
        StoreConfig {
            l1_bytes: self.l1_size,
            block_bytes,
            l2: self.l2.devices(),
            l2_write_rate: self.l2.l2_write_rate,
            catalog: self.catalog,
            io: self.io.config(),
            tells_status: true,
            allow_rollback: self.allow_rollback,
            ..StoreConfig::default()
        }
    }
}

/// The devices of L2.
#[derive(Debug, Args)]
pub(crate) struct L2Args {
    /// Existing directory, or block device, on fast storage for sealed blocks (L2). Given several times, blocks are
    /// striped over them; the first is a directory and keeps the catalog. Without it all is read from L3
    #[arg(long, value_name = "PATH")]
    pub(crate) l2: Vec<PathBuf>,

    /// What L2 may use of each device: once for all, or once for each --l2
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = parse_size)]
    pub(crate) l2_size: Vec<u64>,

    /// How fast L2 may be written in all, to spare its flash: 50M for 50 MiB a second, 2T/day for an endurance budget
    #[arg(long, value_name = "RATE", value_parser = parse_write_rate)]
    pub(crate) l2_write_rate: Option<WriteRate>,
}

impl L2Args {
    /// Each device with its size; the last size given holds for the devices behind it.
    pub(crate) fn devices(&self) -> Vec<L2Config> {
        let sizes = self.l2_size.iter().chain(std::iter::repeat(self.l2_size.last().unwrap_or(&0)));
        self.l2
            .iter()
            .zip(sizes)
            .map(|(path, bytes)| L2Config { path: path.clone(), bytes: *bytes })
            .collect()
    }
}

/// The I/O engine.
#[derive(Debug, Args)]
pub(crate) struct IoArgs {
    /// How to read and write: auto, io_uring or psync
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = parse::<EngineChoice>)]
    pub(crate) io_engine: EngineChoice,
}

impl IoArgs {
    pub(crate) fn config(&self) -> ServiceConfig {
        ServiceConfig { engine: self.io_engine, ..ServiceConfig::default() }
    }
}

/// How data is sealed.
#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    /// sm4-gcm or aes-256-gcm; or none: authenticated, but readable to all who can read the disk
    #[arg(long, value_name = "NAME", default_value = "sm4-gcm", value_parser = parse::<Cipher>)]
    pub(crate) cipher: Cipher,

    /// Compression before sealing: none or zstd. zstd makes stored lengths tell how well blocks compressed
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = parse::<Codec>)]
    pub(crate) codec: Codec,

    /// With --codec zstd, compress with a dictionary of this size trained on the input: a size, or auto. Helps where
    /// blocks are small
    #[arg(long, value_name = "SIZE", value_parser = parse_dictionary)]
    pub(crate) dictionary: Option<DictionarySize>,

    /// Stored length of a block: a multiple of 4K up to 16M. A sample costs at least one block of reading
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_block_size)]
    pub(crate) block_size: u32,

    /// Payload after which a new shard is begun, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=32768))]
    pub(crate) shard_mib: u64,
}

/// The length of the blocks of the data set at `path`, as its manifest says before it is authenticated: enough to size
/// buffers, and checked again when the store opens the data set.
pub(crate) fn block_bytes_of(path: &Path) -> Result<u32> {
    peek_header(&path.join(MANIFEST_NAME)).map(|header| header.params.block_bytes).map_err(|error| {
        error.hint(format!(
            "`{}` is no packed data set: `tierstream pack INPUT OUTPUT` makes one",
            path.display()
        ))
    })
}

/// Parses a value by its `FromStr`, keeping the error's own words.
pub(crate) fn parse<T>(text: &str) -> std::result::Result<T, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A size in bytes: a number with K, M, G or T for powers of 1024, as fio and dd count.
pub(crate) fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let bad =
        || format!("`{text}` is no size; write a number with K, M, G or T for powers of 1024: 64K, 10G");
    let trimmed = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let digits = trimmed.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match trimmed[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// A size per second, or per day with `/day`.
pub(crate) fn parse_write_rate(text: &str) -> std::result::Result<WriteRate, String> {
    let (size, per) = text.split_once('/').unwrap_or((text, "s"));
    format!("{}/{per}", parse_size(size)?)
        .parse()
        .map_err(|error: tierstream_storage::Error| error.to_string())
}

pub(crate) fn parse_block_size(text: &str) -> std::result::Result<u32, String> {
    let size = parse_size(text)?;
    u32::try_from(size)
        .ok()
        .filter(|size| size.is_multiple_of(4096) && (4096..=16 << 20).contains(size))
        .ok_or_else(|| format!("a block of {size} bytes; use a multiple of 4K up to 16M"))
}

pub(crate) fn parse_dictionary(text: &str) -> std::result::Result<DictionarySize, String> {
    match text {
        "auto" => Ok(DictionarySize::Auto),
        _ => parse_size(text).map(DictionarySize::Bytes).map_err(|error| format!("{error}; or `auto`")),
    }
}

/// Compression before sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Zstd,
}

impl std::str::FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "zstd" => Ok(Self::Zstd),
            _ => Err(format!("unknown codec `{text}`, expected none or zstd")),
        }
    }
}

/// A positive number.
pub(crate) fn parse_positive(text: &str) -> std::result::Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) => Err("0 is too small\n\nhint: use 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65536), ("64k", 65536), ("1M", 1 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("2TB"), Ok(2 << 40));
        for text in ["", "K", "-1", "1.5G", "1X", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_block_size("64K"), Ok(65536));
        assert!(parse_block_size("5000").is_err() && parse_block_size("32M").is_err());
        assert_eq!(parse_dictionary("64K"), Ok(DictionarySize::Bytes(65536)));
        assert_eq!(parse_dictionary("auto"), Ok(DictionarySize::Auto));
        assert!(parse_dictionary("big").unwrap_err().contains("auto"));
        assert!(parse_positive("0").unwrap_err().contains("hint"));
        assert_eq!(parse_write_rate("50M"), Ok(WriteRate::per_second(50 << 20)));
        assert_eq!(parse_write_rate("2T/day"), Ok(WriteRate::per_day(2 << 40)));
        assert!(parse_write_rate("2T/week").is_err() && parse_write_rate("0").is_err());
    }
}
