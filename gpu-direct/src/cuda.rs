#![expect(unsafe_code, reason = "the CUDA driver is C; this module is the only one that calls it")]
//! Safe calls of the CUDA driver API (libcuda), loaded at run time by `cudarc`.
//!
//! Every function but [`is_library_present`] must be called only after it returned true: cudarc panics when it cannot
//! load the library.

use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};
use tierstream_storage::units::to_u64;

use crate::probe::DeviceReport;

/// Whether libcuda can be loaded.
pub(crate) fn is_library_present() -> bool {
    // SAFETY: loads the library and drops the handle again; the NVIDIA library may be loaded and unloaded at any time.
    unsafe { sys::is_culib_present() }
}

/// Starts the driver; returns its CUDA version.
pub(crate) fn start() -> Result<i32, String> {
    result::init().map_err(|error| error.to_string())?;
    let mut version = 0;
    // SAFETY: the argument points to a c_int that the driver writes.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    code.result().map_err(|error| error.to_string())?;
    Ok(version)
}

/// The devices of a started driver.
pub(crate) fn devices() -> Result<Vec<DeviceReport>, String> {
    let count = result::device::get_count().map_err(|error| error.to_string())?;
    (0..count).map(|ordinal| device(ordinal).map_err(|error| error.to_string())).collect()
}

fn device(ordinal: i32) -> Result<DeviceReport, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is a handle the driver just gave for a valid ordinal.
    let memory = unsafe { result::device::total_mem(device) }?;
    // SAFETY: as above.
    let major = unsafe { result::device::get_attribute(device, MAJOR) }?;
    // SAFETY: as above.
    let minor = unsafe { result::device::get_attribute(device, MINOR) }?;
    Ok(DeviceReport {
        ordinal: u32::try_from(ordinal).unwrap_or(0),
        name: result::device::get_name(device)?,
        compute_capability: (major, minor),
        memory_bytes: to_u64(memory),
    })
}

/// Memory that the driver may copy from directly. Given back on drop.
pub(crate) struct Registration {
    context: Arc<CudaContext>,
    address: usize,
}

/// Opens the primary context of a device.
pub(crate) fn context(ordinal: u32) -> Result<Arc<CudaContext>, String> {
    CudaContext::new(usize::try_from(ordinal).unwrap_or(0)).map_err(|error| error.to_string())
}

impl Registration {
    /// Pins `memory`, which must stay mapped as long as the registration lives.
    pub(crate) fn new(context: &Arc<CudaContext>, memory: &mut [u8]) -> Result<Self, String> {
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
