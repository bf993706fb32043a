//! What fio has no words for: the store's tiers, samples, batches, an accelerator.

use super::{Key, Kind, Unit, ours};

pub(super) const KEYS: &[Key] = &[
    ours(
        "workload",
        Kind::Word(&["tokens", "images", "unet3d", "resnet50", "kvcache", "checkpoint"]),
        "",
        "what a job reads or writes: a distribution of sample sizes, a batch, a compute time; each can be overridden",
    ),
    ours("samples", Kind::Number(1, u64::MAX), "by workload", "samples of the data set that is made"),
    ours("sample_size", Kind::Size, "by workload", "mean bytes of a sample"),
    ours("sample_size_stdev", Kind::Size, "by workload", "standard deviation of that, normally distributed"),
    ours("batch_size", Kind::Number(1, 1 << 20), "by workload", "samples of a batch"),
    ours(
        "compute_time",
        Kind::Time(Unit::Millis),
        "by workload",
        "time the emulated accelerator computes on a batch",
    ),
    ours("epochs", Kind::Number(1, u64::MAX), "1", "how often the data set is read; the first is cold"),
    ours("shuffle", Kind::Switch, "1", "read in shuffled order"),
    ours("prefetch", Kind::Switch, "1", "announce the order to the prefetcher"),
    ours("prefetch_factor", Kind::Number(1, 4096), "the loader's", "batches made ahead"),
    ours("cipher", Kind::Word(&["sm4-gcm", "aes-256-gcm", "none"]), "sm4-gcm", "how data is sealed"),
    ours("codec", Kind::Word(&["none", "zstd"]), "none", "how data is compressed"),
    ours("block_size", Kind::Size, "64k", "stored length of a block"),
    ours("l1_size", Kind::Size, "256m", "memory for opened blocks"),
    ours("l2", Kind::Text, "", "directory on fast storage for sealed blocks"),
    ours("l2_size", Kind::Size, "10g", "what L2 may use"),
    ours("l3", Kind::Text, "directory", "directory of the data sets"),
    ours("au_target", Kind::Float, "90", "accelerator utilisation in percent that counts as enough"),
    ours("cold", Kind::Switch, "1", "begin with empty tiers and an empty page cache"),
    ours("keep", Kind::Switch, "0", "keep the data set that was made for the next run"),
];
