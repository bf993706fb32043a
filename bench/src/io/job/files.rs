//! Which files, how large, and how they are synced.

use super::super::options::value::{self, Amount};
use super::super::options::{OptionSet, misuse};
use super::pattern::Distribution;
use crate::Result;

/// Which file an I/O goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ServiceKind {
    /// One after the other, so many I/Os in each.
    RoundRobin(u64),
    /// One until it is done.
    Sequential,
    /// Any, so many I/Os in each.
    Random(u64),
    /// Some more often than others.
    Skewed(Distribution),
}

/// The files of a job.
#[derive(Clone, Debug)]
pub(crate) struct FileOptions {
    pub(crate) filename: Vec<String>,
    pub(crate) directory: Vec<String>,
    pub(crate) format: String,
    pub(crate) opendir: Option<String>,
    pub(crate) nrfiles: usize,
    pub(crate) openfiles: Option<usize>,
    pub(crate) service: ServiceKind,
    pub(crate) size: Option<Amount>,
    pub(crate) io_size: Option<Amount>,
    pub(crate) filesize: Option<(u64, u64)>,
    pub(crate) offset: Amount,
    pub(crate) offset_increment: u64,
    pub(crate) number_ios: Option<u64>,
    pub(crate) overwrite: bool,
    pub(crate) create_only: bool,
    pub(crate) create: bool,
    pub(crate) mounted_write: bool,
    pub(crate) unlink: bool,
    pub(crate) pre_read: bool,
    pub(crate) invalidate: bool,
    pub(crate) advise: bool,
    pub(crate) direct: bool,
}

impl FileOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let list = |name| {
            set.text(name).map_or_else(Vec::new, |text: &str| text.split(':').map(str::to_owned).collect())
        };
        let base = set.kb_base()?;
        let amount = |name: &'static str| set.parsed(name, |text| value::amount(name, text, base));
        let buffered = set.switch("buffered")?.map(|buffered| !buffered);
        Ok(Self {
            filename: list("filename"),
            directory: list("directory"),
            format: set.text("filename_format").unwrap_or("$jobname.$jobnum.$filenum").to_owned(),
            opendir: set.text("opendir").map(str::to_owned),
            nrfiles: set.number("nrfiles")?.map_or(1, crate::to_usize),
            openfiles: set.number("openfiles")?.map(crate::to_usize),
            service: set.parsed("file_service_type", service)?.unwrap_or(ServiceKind::RoundRobin(1)),
            size: amount("size")?,
            io_size: amount("io_size")?,
            filesize: set.parsed("filesize", |text| value::range("filesize", text, base))?,
            offset: amount("offset")?.unwrap_or(Amount::Bytes(0)),
            offset_increment: set.bytes("offset_increment")?.unwrap_or(0),
            number_ios: set.number("number_ios")?.filter(|ios| *ios > 0),
            overwrite: set.switch("overwrite")?.unwrap_or(true),
            create_only: set.switch("create_only")?.unwrap_or(false),
            create: set.switch("allow_file_create")?.unwrap_or(true),
            mounted_write: set.switch("allow_mounted_write")?.unwrap_or(false),
            unlink: set.switch("unlink")?.unwrap_or(false),
            pre_read: set.switch("pre_read")?.unwrap_or(false),
            invalidate: set.switch("invalidate")?.unwrap_or(true),
            advise: !matches!(set.word("fadvise_hint")?, Some("0" | "none")),
            direct: set.switch("direct")?.or(buffered).unwrap_or(false),
        })
    }
}

fn service(text: &str) -> Result<ServiceKind> {
    let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
    let times = |rest: Option<&str>| match rest {
        Some(rest) => value::number("file_service_type", rest, 1..=u64::MAX),
        None => Ok(1),
    };
    match value::word(
        "file_service_type",
        word,
        &["roundrobin", "sequential", "random", "zipf", "pareto", "normal", "gauss"],
    )? {
        "roundrobin" => times(rest).map(ServiceKind::RoundRobin),
        "sequential" => Ok(ServiceKind::Sequential),
        "random" => times(rest).map(ServiceKind::Random),
        _ => Distribution::parse("file_service_type", text).map(ServiceKind::Skewed),
    }
}

/// When what was written is made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncOptions {
    /// Writes between two syncs; 0 for none.
    pub(crate) every: u64,
    /// Without metadata.
    pub(crate) data_only: bool,
    /// At the end, or on closing.
    pub(crate) at_end: bool,
    /// Open with O_SYNC.
    pub(crate) o_sync: bool,
    /// Open with O_DSYNC.
    pub(crate) o_dsync: bool,
}

impl SyncOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let fsync = set.number("fsync")?.unwrap_or(0);
        let fdatasync = set.number("fdatasync")?.unwrap_or(0);
        if fsync > 0 && fdatasync > 0 {
            return Err(misuse("fsync and fdatasync at the same time: give one of them"));
        }
        let at_end =
            set.switch("end_fsync")?.unwrap_or(false) | set.switch("fsync_on_close")?.unwrap_or(false);
        let sync = set.word("sync")?;
        Ok(Self {
            every: fsync.max(fdatasync),
            data_only: fdatasync > 0,
            at_end,
            o_sync: matches!(sync, Some("sync" | "1")),
            o_dsync: sync == Some("dsync"),
        })
    }
}
