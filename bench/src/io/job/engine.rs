//! The engine and its depth.

use super::super::options::OptionSet;
use super::super::options::value;
use crate::Result;

/// fio's `ioengine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineName {
    Psync,
    Mmap,
    IoUring,
    Libaio,
    TokioUring,
    Null,
    Tier,
    Loader,
}

impl EngineName {
    /// Whether it completes each I/O before it takes the next.
    pub(crate) fn is_synchronous(self) -> bool {
        matches!(self, Self::Psync | Self::Mmap | Self::Null)
    }
}

/// Where buffers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// Anonymous memory.
    Malloc,
    /// Pages of the machine's pool of huge pages.
    Huge,
    /// A memfd, on small pages.
    Memfd,
    /// Pinned for a GPU.
    Pinned,
}

/// How I/O is carried out.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    pub(crate) name: EngineName,
    /// As given.
    pub(crate) word: &'static str,
    pub(crate) depth: usize,
    pub(crate) batch: usize,
    pub(crate) complete_min: usize,
    pub(crate) complete_max: usize,
    pub(crate) low: usize,
    pub(crate) fixedbufs: bool,
    pub(crate) registerfiles: bool,
    pub(crate) nonvectored: bool,
    pub(crate) sqthread_poll: bool,
    pub(crate) sqthread_cpu: Option<u64>,
    pub(crate) hipri: bool,
    pub(crate) uncached: bool,
    pub(crate) force_async: bool,
    pub(crate) nowait: bool,
    pub(crate) memory: MemoryKind,
    pub(crate) pretouch: bool,
}

impl EngineOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let word = set.word("ioengine")?.unwrap_or("psync");
        let number = |name| Ok::<_, crate::Error>(set.number(name)?.map(crate::to_usize));
        let depth = number("iodepth")?.unwrap_or(1);
        let batch = number("iodepth_batch")?.unwrap_or(1).min(depth);
        let complete_min = number("iodepth_batch_complete_min")?.unwrap_or(1).min(depth);
        let complete_max = number("iodepth_batch_complete_max")?.unwrap_or(complete_min).min(depth);
        Ok(Self {
            name: match word {
                "mmap" => EngineName::Mmap,
                "io_uring" => EngineName::IoUring,
                "libaio" => EngineName::Libaio,
                "tokio-uring" => EngineName::TokioUring,
                "null" => EngineName::Null,
                "tier" => EngineName::Tier,
                "loader" => EngineName::Loader,
                _ => EngineName::Psync,
            },
            word,
            depth,
            batch,
            complete_min,
            complete_max: complete_max.max(complete_min),
            low: number("iodepth_low")?.filter(|low| *low > 0).unwrap_or(depth).min(depth),
            fixedbufs: set.switch("fixedbufs")?.unwrap_or(false),
            registerfiles: set.switch("registerfiles")?.unwrap_or(false),
            nonvectored: set.switch("nonvectored")?.unwrap_or(true),
            sqthread_poll: set.switch("sqthread_poll")?.unwrap_or(false),
            sqthread_cpu: set.number("sqthread_poll_cpu")?,
            hipri: set.switch("hipri")?.unwrap_or(false),
            uncached: set.switch("uncached")?.unwrap_or(false),
            force_async: set.number("force_async")?.unwrap_or(0) > 0,
            nowait: set.switch("nowait")?.unwrap_or(false),
            memory: set.parsed("mem", memory)?.unwrap_or(MemoryKind::Malloc),
            pretouch: set.switch("pretouch")?.unwrap_or(true),
        })
    }
}

fn memory(text: &str) -> Result<MemoryKind> {
    // fio takes a path after a colon for some kinds.
    let word = text.split(':').next().unwrap_or(text);
    let words = [
        "malloc",
        "mmap",
        "shm",
        "memfd",
        "mmapshared",
        "huge",
        "mmaphuge",
        "shmhuge",
        "pinned",
        "cudamalloc",
    ];
    Ok(match value::word("mem", word, &words)? {
        "huge" | "mmaphuge" | "shmhuge" => MemoryKind::Huge,
        "memfd" | "shm" | "mmapshared" => MemoryKind::Memfd,
        "pinned" | "cudamalloc" => MemoryKind::Pinned,
        _ => MemoryKind::Malloc,
    })
}
