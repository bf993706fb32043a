//! Pinned host memory: what the GPU copies from without a detour.
//!
//! The region is that of [`SharedAllocator`]: a sealed memfd on huge pages where the machine has some, which io_uring
//! registers as well. So bytes go from the device into memory that the GPU copies from, with no copy between. Threads
//! that fill it first decide on which NUMA node its pages lie: pin them to the GPU's ([`PinnedAllocator::numa_node`]).

use std::fmt;

use tierstream_storage::buf::{HostAllocator, HostMemory, SharedAllocator};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::cuda::{self, Context, Registration};
use crate::gpu::Gpu;
use crate::probe::{DeviceReport, GpuReport};

/// Gives memory that is registered with the CUDA driver. Made only where the probe found a GPU.
#[derive(Clone)]
pub struct PinnedAllocator {
    context: Context,
    numa_node: Option<u32>,
}

impl fmt::Debug for PinnedAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedAllocator(GPU {})", self.context.ordinal())
    }
}

impl PinnedAllocator {
    /// An allocator for the first GPU of `report`. What it gives serves all GPUs.
    ///
    /// # Errors
    /// `Unsupported` when there is none, `Device` when its context cannot be opened.
    pub fn new(report: &GpuReport) -> Result<Self> {
        let Some(device) = report.devices.first() else {
            let why = report.absent_because.clone().unwrap_or_else(|| "no GPU".to_owned());
            return Err(Error::new(ErrorKind::Unsupported, "pin memory", why));
        };
        let context = cuda::context(device.ordinal).map_err(|why| {
            Error::new(ErrorKind::Device, "pin memory", format!("GPU {}: {why}", device.ordinal))
        })?;
        Ok(Self::with(context, device))
    }

    /// An allocator for `gpu`.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        Self::with(gpu.context().clone(), gpu.report())
    }

    fn with(context: Context, device: &DeviceReport) -> Self {
        Self { context, numa_node: device.numa_node }
    }

    /// The NUMA node that the GPU hangs on, on machines with several.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }
}

impl HostAllocator for PinnedAllocator {
    fn allocate(&self, bytes: usize) -> Result<HostMemory> {
        let mut memory = SharedAllocator { prefer_huge: true }.allocate(bytes)?;
        let registration = Registration::new(&self.context, memory.as_mut_slice()).map_err(|why| {
            Error::new(ErrorKind::Full, "pin memory", format!("{bytes} bytes: {why}"))
                .hint("lower the batch size, or raise the limit on locked memory (ulimit -l)")
        })?;
        Ok(memory.guarded(Box::new(registration)))
    }

    fn name(&self) -> &'static str {
        "pinned"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tierstream_storage::buf::Arena;
    use tierstream_storage::io::{EngineChoice, ladder};

    use super::*;

    fn allocator() -> std::result::Result<PinnedAllocator, String> {
        let report = crate::probe();
        PinnedAllocator::new(&report).map_err(|error| {
            assert_eq!((error.kind(), report.is_present()), (ErrorKind::Unsupported, false));
            error.to_string()
        })
    }

    #[test]
    fn pinned_memory_is_writable_and_goes_back() {
        let allocator = match allocator() {
            Ok(allocator) => allocator,
            Err(why) => return tierstream_storage::testing::skip("gpu", &why),
        };
        for bytes in [1, 4096, 10 << 20] {
            let mut memory = allocator.allocate(bytes).unwrap();
            memory.as_mut_slice().fill(7);
            assert!(memory.as_slice().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn one_arena_is_registered_with_io_uring_and_cuda() {
        let allocator = match allocator() {
            Ok(allocator) => allocator,
            Err(why) => return tierstream_storage::testing::skip("gpu", &why),
        };
        let arena = Arena::new("pinned", 64 << 10, 32, &allocator).unwrap();
        let (_engine, report) = ladder::open(EngineChoice::Auto, 32, Some(&Arc::clone(&arena))).unwrap();
        assert!(report.fallback.is_empty(), "{:?}", report.fallback);
        arena.try_take(0).unwrap().fill(3);
    }
}
