//! One buffer for each I/O in flight, in the memory that the job asks for.

use memmap2::MmapMut;
use tierstream_storage::buf::{HostAllocator, HostMemory, PageKind, SharedAllocator};
use tierstream_storage::units::ALIGN_BYTES;

use super::super::job::MemoryKind;
use super::Setup;
use crate::{Error, ErrorKind, Result};

/// Buffers by tag.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: Memory,
    slot_bytes: usize,
}

#[derive(Debug)]
enum Memory {
    /// Anonymous memory as malloc(3) gives it: on small pages, unlike the store's, so that results compare with fio's.
    Plain(MmapMut),
    Host(HostMemory),
}

impl Memory {
    #[inline]
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Plain(map) => map,
            Self::Host(memory) => memory.as_mut_slice(),
        }
    }
}

impl Buffers {
    pub(super) fn new(setup: &Setup<'_>, notes: &mut Vec<String>) -> Result<Self> {
        let slot_bytes = setup.slot_bytes.next_multiple_of(ALIGN_BYTES);
        let bytes =
            slot_bytes.checked_mul(setup.depth).filter(|bytes| *bytes <= 64 << 30).ok_or_else(|| {
                let why = format!("{} buffers of {slot_bytes} bytes", setup.depth);
                Error::new(ErrorKind::Misuse, "allocate", why).hint("use a smaller bs or iodepth")
            })?;
        let mut memory = match setup.job.engine.memory {
            MemoryKind::Malloc => Memory::Plain(MmapMut::map_anon(bytes).map_err(|error| {
                let why = format!("{bytes} bytes of memory: {error}");
                Error::new(ErrorKind::Full, "allocate", why)
                    .hint("use a smaller bs or iodepth")
                    .caused_by(error)
            })?),
            MemoryKind::Huge => {
                // Small regions would not get a page of the pool.
                let memory = SharedAllocator { prefer_huge: true }.allocate(bytes.max(2 << 20))?;
                if memory.pages() != PageKind::SharedHuge {
                    notes.push(format!(
                        "no huge pages from the pool (sysctl vm.nr_hugepages): buffers lie on {}",
                        memory.pages()
                    ));
                }
                Memory::Host(memory)
            }
            MemoryKind::Memfd => Memory::Host(SharedAllocator { prefer_huge: false }.allocate(bytes)?),
            MemoryKind::Pinned => {
                let why = "mem=pinned needs a CUDA driver, and this build of the bench has no GPU path";
                return Err(Error::new(ErrorKind::Unsupported, "allocate", why)
                    .hint("use mem=huge or mem=memfd; `tierstream doctor` shows the GPU path"));
            }
        };
        if setup.job.engine.pretouch {
            let page = memory.bytes().iter_mut().step_by(ALIGN_BYTES);
            page.for_each(|byte| *byte = 1);
        }
        Ok(Self { memory, slot_bytes })
    }

    /// The buffer of `tag`.
    #[inline]
    pub(super) fn slot(&mut self, tag: usize) -> &mut [u8] {
        let from = tag * self.slot_bytes;
        &mut self.memory.bytes()[from..from + self.slot_bytes]
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    pub(super) fn pages(&self) -> String {
        match &self.memory {
            Memory::Plain(_) => "anonymous memory".to_owned(),
            Memory::Host(memory) => memory.pages().to_string(),
        }
    }
}
