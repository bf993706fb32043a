#![expect(unsafe_code, reason = "the CUDA driver is C; this module is the only one that calls it")]
//! Safe calls of the CUDA driver API (libcuda), loaded at run time by `cudarc`, and of NVRTC.
//!
//! Every function but [`is_library_present`] must be called only after it returned true: cudarc panics when it cannot
//! load the library. Everything that needs a device takes a [`Context`], which only [`context`] makes.
//!
//! Calls are limited to those that every driver since CUDA 11.4 has, because cudarc panics for a missing symbol too.
//!
//! Host memory that a device copies from or to is owned by the copy until its event has come ([`Upload`], [`Download`]);
//! device memory is freed by a call that waits for the device. What kernels do with addresses they are given is for those
//! who launch them to get right: it cannot touch memory of this process that is not registered.

mod memory;
mod module;
mod nvrtc;
mod stream;

pub(crate) use memory::{DeviceMemory, Registration};
pub(crate) use module::{Argument, Function, Module};
pub(crate) use nvrtc::Nvrtc;
pub(crate) use stream::{Event, Source, Stream, Upload};

use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::probe::DeviceReport;

/// The primary context of a device.
pub(crate) type Context = Arc<CudaContext>;

/// Whether libcuda can be loaded.
pub(crate) fn is_library_present() -> bool {
    // SAFETY: loads the library and drops the handle again; the NVIDIA library may be loaded and unloaded at any time.
    unsafe { sys::is_culib_present() }
}

/// Whether NVIDIA's library for GPUDirect Storage can be loaded. cudarc does not try its name.
pub(crate) fn is_cufile_present() -> bool {
    // SAFETY: loads the library and drops the handle again; it starts nothing before cuFileDriverOpen.
    unsafe { libloading::Library::new("libcufile.so.0") }.is_ok()
}

/// The version of NVRTC, or why there is none.
pub(crate) fn nvrtc_version() -> String {
    Nvrtc::load(None).map_or_else(
        |why| format!("absent: {why}"),
        |nvrtc| format!("{}.{}", nvrtc.version().0, nvrtc.version().1),
    )
}

/// Starts the driver; returns its CUDA version.
pub(crate) fn start() -> std::result::Result<i32, String> {
    result::init().map_err(|error| error.to_string())?;
    let mut version = 0;
    // SAFETY: the argument points to a c_int that the driver writes.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    code.result().map_err(|error| error.to_string())?;
    Ok(version)
}

/// The devices of a started driver.
pub(crate) fn devices() -> std::result::Result<Vec<DeviceReport>, String> {
    let count = result::device::get_count().map_err(|error| error.to_string())?;
    (0..count).map(|ordinal| device(ordinal).map_err(|error| error.to_string())).collect()
}

fn device(ordinal: i32) -> std::result::Result<DeviceReport, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_CLOCK_RATE as CLOCK_KHZ, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as SMS, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID as BUS,
        CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID as SLOT, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID as DOMAIN,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is a handle the driver just gave for a valid ordinal.
    let memory = unsafe { result::device::total_mem(device) }?;
    // SAFETY: as above.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(DeviceReport {
        ordinal: u32::try_from(ordinal).unwrap_or(0),
        name: result::device::get_name(device)?,
        compute_capability: (attribute(MAJOR)?, attribute(MINOR)?),
        memory_bytes: to_u64(memory),
        multiprocessors: u32::try_from(attribute(SMS)?).unwrap_or(0),
        clock_mhz: u32::try_from(attribute(CLOCK_KHZ)? / 1000).unwrap_or(0),
        pci: format!("{:04x}:{:02x}:{:02x}.0", attribute(DOMAIN)?, attribute(BUS)?, attribute(SLOT)?),
        link: None,
        numa_node: None,
    })
}

/// Opens the primary context of a device.
pub(crate) fn context(ordinal: u32) -> std::result::Result<Context, String> {
    CudaContext::new(usize::try_from(ordinal).unwrap_or(0)).map_err(|error| error.to_string())
}

/// The error of a driver call that was to do `op`.
fn failed(op: &'static str) -> impl Fn(result::DriverError) -> Error {
    move |error| {
        let kind = match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::Full,
            sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => ErrorKind::Unsupported,
            _ => ErrorKind::Device,
        };
        Error::new(kind, op, format!("the CUDA driver says: {error}"))
    }
}

/// Makes `context` the one that this thread's driver calls are for.
fn bind(context: &Context, op: &'static str) -> Result<()> {
    context.bind_to_thread().map_err(failed(op))
}
