//! Pinned host memory: what the GPU copies from without a detour.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use tierstream_storage::buf::{HostAllocator, HostMemory};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::cuda::{self, Registration};
use crate::probe::GpuReport;

/// Gives memory that is registered with the CUDA driver. Made only where the probe found a GPU.
#[derive(Clone)]
pub struct PinnedAllocator {
    context: Arc<CudaContext>,
}

impl fmt::Debug for PinnedAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedAllocator(GPU {})", self.context.ordinal())
    }
}

impl PinnedAllocator {
    /// An allocator for the first GPU of `report`.
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
        Ok(Self { context })
    }
}

impl HostAllocator for PinnedAllocator {
    fn allocate(&self, bytes: usize) -> Result<HostMemory> {
        let mut memory = HostMemory::anonymous(bytes)?;
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
    use super::*;

    #[test]
    fn pinned_memory_is_writable_and_goes_back() {
        let report = crate::probe();
        let allocator = match PinnedAllocator::new(&report) {
            Ok(allocator) => allocator,
            Err(error) => {
                assert_eq!((error.kind(), report.is_present()), (ErrorKind::Unsupported, false));
                return tierstream_storage::testing::skip("gpu", &error.to_string());
            }
        };
        for bytes in [1, 4096, 10 << 20] {
            let mut memory = allocator.allocate(bytes).unwrap();
            memory.as_mut_slice().fill(7);
            assert!(memory.as_slice().iter().all(|byte| *byte == 7));
        }
    }
}
