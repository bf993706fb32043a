//! Where training runs, and the proof that a GPU is there before burn is asked for one.
//!
//! burn-cuda panics when it is touched on a machine without a driver. So this crate never probes and never guesses:
//! a CUDA device is made only from a [`CudaPresent`], and only someone who has probed the driver makes that.

use std::fmt;

/// Proof that a CUDA driver answered and that it has a device of this number.
///
/// Its one constructor is a promise of the caller. `tierstream-gpu-direct`'s probe is where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaPresent {
    ordinal: usize,
}

impl CudaPresent {
    /// States that the driver was loaded, initialised, and listed device `ordinal` (0 is the first).
    ///
    /// Call it with the answer of a probe and with nothing else: if the promise is false, the first tensor on the
    /// device panics inside burn-cuda.
    #[must_use]
    pub fn from_probe(ordinal: usize) -> Self {
        Self { ordinal }
    }

    /// The device's number as the driver counts.
    #[must_use]
    pub fn ordinal(self) -> usize {
        self.ordinal
    }
}

/// A device to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// This machine's processor, on all its cores.
    Cpu,
    /// An NVIDIA GPU that a probe found.
    Cuda(CudaPresent),
}

impl Device {
    /// `cpu` or `cuda`: the name used in options, logs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(present) => write!(f, "cuda:{}", present.ordinal()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cuda_device_names_its_ordinal() {
        let device = Device::Cuda(CudaPresent::from_probe(1));
        assert_eq!(device.to_string(), "cuda:1");
        assert_eq!(device.name(), "cuda");
        assert_eq!(Device::Cpu.to_string(), "cpu");
    }
}
