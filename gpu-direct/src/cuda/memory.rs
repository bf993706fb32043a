//! Host memory registered with the driver, and memory of the device.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use tierstream_storage::Result;
use tierstream_storage::units::to_u64;

use super::{Context, bind, failed};

/// Memory that the driver may copy from directly. Given back on drop.
pub(crate) struct Registration {
    context: Context,
    address: usize,
}

impl Registration {
    /// Pins `memory`, which must stay mapped as long as the registration lives.
    pub(crate) fn new(context: &Context, memory: &mut [u8]) -> std::result::Result<Self, String> {
        context.bind_to_thread().map_err(|error| error.to_string())?;
        let start = memory.as_mut_ptr();
        // SAFETY: the range is one live mapping, which the caller keeps until this registration is dropped: the guard
        // of a `HostMemory` is dropped before its map. PORTABLE lets every context use it.
        let code = unsafe {
            sys::cuMemHostRegister_v2(start.cast(), memory.len(), sys::CU_MEMHOSTREGISTER_PORTABLE)
        };
        code.result().map_err(|error| error.to_string())?;
        Ok(Self { context: Arc::clone(context), address: start.addr() })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let bound = self.context.bind_to_thread().map_err(|error| error.to_string());
        let start = std::ptr::without_provenance_mut(self.address);
        let ended = bound.and_then(|()| {
            // SAFETY: `start` is what was registered, and it is still mapped.
            let code = unsafe { sys::cuMemHostUnregister(start) };
            code.result().map_err(|error| error.to_string())
        });
        if let Err(why) = ended {
            tracing::warn!(why, "pinned memory could not be given back to the CUDA driver");
        }
    }
}

/// Memory of a device. Freed on drop, by a call that waits for what the device still does.
pub(crate) struct DeviceMemory {
    context: Context,
    address: u64,
    bytes: usize,
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({} bytes of GPU {})", self.bytes, self.context.ordinal())
    }
}

impl DeviceMemory {
    /// Allocates at least one byte, aligned to 256.
    pub(crate) fn new(context: &Context, bytes: usize) -> Result<Arc<Self>> {
        bind(context, "allocate on the GPU")?;
        // SAFETY: a plain allocation; the address is kept here alone and freed once.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| {
            failed("allocate on the GPU")(error).hint(format!(
                "{bytes} bytes were asked for; use smaller batches, fewer slots, or leave the GPU more memory"
            ))
        })?;
        Ok(Arc::new(Self { context: Arc::clone(context), address, bytes }))
    }

    /// Where it lies on the device.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The address of `at`, when `bytes` from there on are inside.
    ///
    /// # Panics
    /// When they are not.
    pub(super) fn range(&self, at: usize, bytes: usize) -> u64 {
        let inside = at.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{bytes} bytes at {at} of {} on the device", self.bytes);
        self.address + to_u64(at)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let freed = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: allocated by `new` and freed here alone; the driver waits for work that was handed to it.
            unsafe { result::free_sync(self.address) }
        });
        if let Err(error) = freed {
            tracing::warn!(%error, "memory of the GPU could not be freed");
        }
    }
}
