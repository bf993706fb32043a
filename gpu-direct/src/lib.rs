//! Where batches land: in GPU memory on machines that have one, in plain memory elsewhere.
//!
//! [`DeviceLoader`] brings the batches of a loader to a GPU while it computes, and hands them out as DLPack tensors;
//! [`PinnedAllocator`] gives the memory that it copies from; [`cipher`] opens sealed blocks on the GPU. Everything of CUDA is
//! loaded at run time: the same binary runs on machines with and without a GPU, and [`probe`] says which this is and why.
//! Builds and passes its tests without either.
//!
//! Guarantees: no call into CUDA before the probe found a driver and a device (the libraries abort otherwise); memory is
//! given back to the driver before it is unmapped, and not while the GPU still copies. Only the module `cuda` calls the
//! driver.

pub mod cipher;
mod convert;
mod cuda;
mod device;
pub mod dlpack;
mod gpu;
pub mod kernels;
pub mod measure;
mod path;
mod pinned;
mod probe;

pub use convert::{Channels, Conversion, FloatFormat};
pub use device::{CudaArrayInterface, DeviceBatch, DeviceConfig, DeviceField, DeviceLoader, DeviceMetrics};
pub use gpu::Gpu;
pub use path::{Path, choose};
pub use pinned::PinnedAllocator;
pub use probe::{DeviceReport, GpuReport, PcieLink, probe};
