//! Which way bytes take to where they are used, and why not a better one.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tierstream_storage::buf::{HeapAllocator, HostAllocator};

use crate::pinned::PinnedAllocator;
use crate::probe::GpuReport;

/// The way of an extent of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "path", rename_all = "snake_case")]
pub enum Path {
    /// Into plain memory: the CPU uses it there.
    Host {
        /// Why no GPU path was taken.
        because: String,
    },
    /// Into pinned memory, from which the GPU copies by itself.
    Staged {
        /// The GPU's name.
        device: String,
        /// Why it does not read the device itself.
        because: String,
    },
    /// From the NVMe into GPU memory (GPUDirect Storage).
    Direct {
        /// The GPU's name.
        device: String,
    },
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { because } => write!(f, "host memory ({because})"),
            Self::Staged { device, because } => {
                write!(f, "pinned memory for {device} (not direct: {because})")
            }
            Self::Direct { device } => write!(f, "memory of {device}, directly"),
        }
    }
}

/// The best path of the machine that `report` describes for batches, and the allocator for them. Batches are made of
/// plain bytes of L1, which is host memory: so none of them goes direct.
#[must_use]
pub fn choose(report: &GpuReport) -> (Path, Arc<dyn HostAllocator>) {
    match (PinnedAllocator::new(report), report.devices.first()) {
        (Ok(allocator), Some(device)) => {
            let because = "batches are made in host memory".to_owned();
            (Path::Staged { device: device.name.clone(), because }, Arc::new(allocator))
        }
        (Err(error), Some(device)) => {
            let because = format!("{}: {error}", device.name);
            (Path::Host { because }, Arc::new(HeapAllocator))
        }
        (_, None) => {
            let because = report.absent_because.clone().unwrap_or_else(|| "no GPU".to_owned());
            (Path::Host { because }, Arc::new(HeapAllocator))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_gpu_gets_host_memory_and_the_reason() {
        let report = GpuReport {
            devices: Vec::new(),
            driver_version: None,
            absent_because: Some("no CUDA driver".to_owned()),
            nvrtc: "absent".to_owned(),
            gpudirect_storage: "absent: no GPU".to_owned(),
        };
        let (path, allocator) = choose(&report);
        assert_eq!(path.to_string(), "host memory (no CUDA driver)");
        assert_eq!(allocator.name(), "heap");
    }
}
