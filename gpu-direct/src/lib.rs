//! Where batches land: pinned memory on machines with a GPU, plain memory elsewhere.
//!
//! Everything of CUDA is loaded at run time: the same binary runs on machines with and without a GPU, and [`probe`] says
//! which this is and why. Builds and passes its tests without either.
//!
//! Guarantees: no call into CUDA before the probe found a driver and a device (the libraries abort otherwise); pinned
//! memory is given back to the driver before it is unmapped. Only the module `cuda` calls the driver.

pub mod cipher;
mod cuda;
pub mod kernels;
mod path;
mod pinned;
mod probe;

pub use path::{Path, choose};
pub use pinned::PinnedAllocator;
pub use probe::{DeviceReport, GpuReport, probe};
