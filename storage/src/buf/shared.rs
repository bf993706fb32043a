#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe for who does not own it: this module makes its own"
)]
//! Memory that other processes can map: one sealed memfd, on huge pages where the machine has them.
//!
//! The file can neither grow nor shrink, and nobody who is handed it can map it writable (F_SEAL_FUTURE_WRITE): readers
//! in other processes see the bytes, without a copy and without the power to change them. The same memory can be
//! registered with io_uring and pinned for a GPU.
//!
//! Huge pages halve the CPU cost of large reads. They come from the pool of the machine (vm.nr_hugepages), else from
//! transparent huge pages for shared memory, which kernels ship switched off; else the pages are small.

use std::fmt;

use memmap2::MmapMut;
use rustix::fs::{MemfdFlags, SealFlags};

use super::{HostAllocator, HostMemory};
use crate::error::{Error, ErrorKind, Result};
use crate::units::to_u64;

/// Size of the huge pages asked for: the default of x86-64 and of arm64 with small pages of 4 KiB.
const HUGE_BYTES: usize = 2 << 20;

/// What the pages of a region are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Memory of this process alone, on transparent huge pages where the kernel gives them to who asks.
    Anonymous,
    /// A memfd on huge pages of the machine's pool.
    SharedHuge,
    /// A memfd; transparent huge pages where the kernel gives them to shared memory.
    Shared,
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous memory",
            Self::SharedHuge => "memfd on huge pages",
            Self::Shared => "memfd",
        })
    }
}

/// Memory that other processes can map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedAllocator {
    /// Without huge pages from the pool, take memory of this process alone on transparent huge pages rather than a
    /// memfd on small ones: for who reads much and shares nothing.
    pub prefer_huge: bool,
}

impl HostAllocator for SharedAllocator {
    fn allocate(&self, bytes: usize) -> Result<HostMemory> {
        // A pool page is given whole: smaller regions would waste most of it.
        if bytes >= HUGE_BYTES {
            match sealed(bytes.next_multiple_of(HUGE_BYTES), MemfdFlags::HUGETLB) {
                Ok(map) => return Ok(map),
                Err(error) => tracing::debug!(%error, bytes, "no huge pages from the pool"),
            }
        }
        if self.prefer_huge {
            return HostMemory::anonymous(bytes);
        }
        sealed(
            bytes.next_multiple_of(crate::units::ALIGN_BYTES).max(crate::units::ALIGN_BYTES),
            MemfdFlags::empty(),
        )
        .or_else(|error| {
            tracing::info!(%error, "no memfd: buffers cannot be shared with other processes");
            HostMemory::anonymous(bytes)
        })
    }

    fn name(&self) -> &'static str {
        "shared"
    }
}

fn sealed(bytes: usize, kind: MemfdFlags) -> Result<HostMemory> {
    let failed = |what: &'static str| {
        move |error: std::io::Error| {
            Error::new(ErrorKind::Full, "allocate", format!("{bytes} bytes: {what}: {error}"))
                .caused_by(error)
        }
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | kind;
    let file = rustix::fs::memfd_create("tierstream", flags)
        .map_err(|error| failed("memfd_create")(error.into()))?;
    rustix::fs::ftruncate(&file, to_u64(bytes)).map_err(|error| failed("ftruncate")(error.into()))?;
    // SAFETY: the file was made above and is known to nobody else: its length is fixed by the seals below before anybody
    // can be handed it, and they let no other mapping write. Pool pages are reserved by this call, which fails without.
    let map = unsafe { MmapMut::map_mut(&file) }.map_err(failed("mmap"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|error| failed("seal")(error.into()))?;
    if kind.is_empty() {
        // Without effect where the kernel gives no transparent huge pages to shared memory.
        let _refused = map.advise(memmap2::Advice::HugePage);
    }
    let pages = if kind.is_empty() { PageKind::Shared } else { PageKind::SharedHuge };
    Ok(HostMemory { guard: None, map, pages, file: Some(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_sees_the_bytes_and_cannot_write_or_resize() {
        for bytes in [4096, 5 << 20] {
            let mut memory = SharedAllocator::default().allocate(bytes).unwrap();
            assert!(memory.as_slice().len() >= bytes && memory.as_slice().iter().all(|byte| *byte == 0));
            assert!(memory.pages() == PageKind::Shared || memory.pages() == PageKind::SharedHuge);
            memory.as_mut_slice()[bytes - 1] = 7;
            let file = memory.shared_file().unwrap();
            // SAFETY: a private mapping of a file whose length is sealed, read while `memory` lives.
            let seen = unsafe { memmap2::MmapOptions::new().len(bytes).map(&file) }.unwrap();
            assert_eq!(seen[bytes - 1], 7);
            // SAFETY: never succeeds, as the next line checks.
            let writable = unsafe { MmapMut::map_mut(&file) };
            assert!(writable.is_err(), "a second writable mapping");
            assert!(rustix::fs::ftruncate(file, 1).is_err(), "the file shrank under its mappings");
        }
    }

    #[test]
    fn without_a_pool_the_preference_decides() {
        let memory = SharedAllocator { prefer_huge: true }.allocate(4096).unwrap();
        assert_eq!(memory.pages(), PageKind::Anonymous);
        assert!(memory.shared_file().is_none());
    }
}
