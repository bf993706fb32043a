//! Memory that I/O lands in: page-aligned regions cut into fixed slots.
//!
//! A [`Slot`] has one owner at a time: the caller, the I/O engine while an operation is in flight, or a cache. It goes
//! back to its [`Arena`] when the owner drops it. Storage never hears of CUDA: pinned memory comes through
//! [`HostAllocator`].

mod arena;
mod shared;

pub use arena::{Arena, Slot};
pub use shared::{PageKind, SharedAllocator};

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::MmapMut;

use crate::error::{Error, ErrorKind, Result};

/// Gives regions of host memory; implemented here for plain memory and in `gpu-direct` for pinned memory.
pub trait HostAllocator: Send + Sync + fmt::Debug {
    /// A zeroed region of `bytes` bytes, page aligned.
    ///
    /// # Errors
    /// `Full` when the system has no memory for it.
    fn allocate(&self, bytes: usize) -> Result<HostMemory>;

    /// The kind of memory it gives, for reports: "heap", "pinned".
    fn name(&self) -> &'static str;
}

/// Plain anonymous memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapAllocator;

impl HostAllocator for HeapAllocator {
    fn allocate(&self, bytes: usize) -> Result<HostMemory> {
        HostMemory::anonymous(bytes)
    }

    fn name(&self) -> &'static str {
        "heap"
    }
}

/// An owned, page-aligned, zeroed region of memory.
pub struct HostMemory {
    // Dropped before the map: whoever registered the region with a device takes it back first.
    guard: Option<Box<dyn Send + Sync>>,
    map: MmapMut,
    pages: PageKind,
    // The file behind the map, where there is one: who maps it sees the same bytes.
    file: Option<OwnedFd>,
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMemory({} bytes, guarded: {})", self.map.len(), self.guard.is_some())
    }
}

impl HostMemory {
    /// Maps `bytes` (at least one page) of anonymous memory.
    ///
    /// # Errors
    /// `Full` when the system has no memory for it.
    pub fn anonymous(bytes: usize) -> Result<Self> {
        let map = MmapMut::map_anon(bytes.max(crate::units::ALIGN_BYTES)).map_err(|error| {
            Error::new(ErrorKind::Full, "allocate", format!("{bytes} bytes of memory: {error}"))
                .hint("lower --l1-size, or raise the memory limit of this process")
                .caused_by(error)
        })?;
        // Huge pages halve the CPU cost of large reads; a kernel without them says no and nothing is lost.
        let _refused = map.advise(memmap2::Advice::HugePage);
        Ok(Self { guard: None, map, pages: PageKind::Anonymous, file: None })
    }

    /// What its pages are.
    #[must_use]
    pub fn pages(&self) -> PageKind {
        self.pages
    }

    /// The sealed file behind it, for another process to map read only; none for memory of this process alone.
    #[must_use]
    pub fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(OwnedFd::as_fd)
    }

    /// The same memory with a `guard` that is dropped just before it is unmapped.
    #[must_use]
    pub fn guarded(mut self, guard: Box<dyn Send + Sync>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }

    /// Its bytes, to write.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.map
    }
}
