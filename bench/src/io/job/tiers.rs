//! The store's tiers and the job on them.

use std::path::PathBuf;

use super::super::options::OptionSet;
use crate::Result;

/// What a training job or server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Tokens,
    Images,
    Unet3d,
    Resnet50,
    KvCache,
    Checkpoint,
}

impl Workload {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("tokens", Self::Tokens),
        ("images", Self::Images),
        ("unet3d", Self::Unet3d),
        ("resnet50", Self::Resnet50),
        ("kvcache", Self::KvCache),
        ("checkpoint", Self::Checkpoint),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, of)| *of == self).map_or("", |(word, _)| word)
    }
}

/// Options of `tier` and `loader`; what is none is the workload's own.
#[derive(Clone, Debug)]
pub(crate) struct TierOptions {
    pub(crate) workload: Option<Workload>,
    pub(crate) samples: Option<u64>,
    pub(crate) sample_bytes: Option<u64>,
    pub(crate) sample_stdev: Option<u64>,
    pub(crate) batch_size: Option<u64>,
    pub(crate) compute_nanos: Option<u64>,
    pub(crate) epochs: u64,
    pub(crate) shuffle: bool,
    pub(crate) prefetch: bool,
    pub(crate) prefetch_factor: Option<usize>,
    pub(crate) cipher: &'static str,
    pub(crate) zstd: bool,
    pub(crate) block_bytes: u64,
    pub(crate) l1_bytes: u64,
    pub(crate) l2: Option<PathBuf>,
    pub(crate) l2_bytes: u64,
    pub(crate) l3: Option<PathBuf>,
    pub(crate) au_target: Option<f64>,
    pub(crate) cold: bool,
    pub(crate) keep: bool,
}

impl TierOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let word = set.word("workload")?;
        Ok(Self {
            workload: word
                .and_then(|word| Workload::ALL.iter().find(|(of, _)| *of == word).map(|(_, is)| *is)),
            samples: set.number("samples")?,
            sample_bytes: set.bytes("sample_size")?.filter(|bytes| *bytes > 0),
            sample_stdev: set.bytes("sample_size_stdev")?,
            batch_size: set.number("batch_size")?,
            compute_nanos: set.nanos("compute_time")?,
            epochs: set.number("epochs")?.unwrap_or(1),
            shuffle: set.switch("shuffle")?.unwrap_or(true),
            prefetch: set.switch("prefetch")?.unwrap_or(true),
            prefetch_factor: set.number("prefetch_factor")?.map(crate::to_usize),
            cipher: set.word("cipher")?.unwrap_or("sm4-gcm"),
            zstd: set.word("codec")? == Some("zstd"),
            block_bytes: set.bytes("block_size")?.unwrap_or(64 << 10),
            l1_bytes: set.bytes("l1_size")?.unwrap_or(256 << 20),
            l2: set.text("l2").map(Into::into),
            l2_bytes: set.bytes("l2_size")?.unwrap_or(10 << 30),
            l3: set.text("l3").map(Into::into),
            au_target: set.float("au_target")?,
            cold: set.switch("cold")?.unwrap_or(true),
            keep: set.switch("keep")?.unwrap_or(false),
        })
    }
}
