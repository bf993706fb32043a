//! Which way batches take to where they are used, and why.

use std::fmt;
use std::sync::Arc;

use tierstream_storage::buf::{HeapAllocator, HostAllocator};

use crate::pinned::PinnedAllocator;
use crate::probe::GpuReport;

/// The way of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Into plain memory: the CPU uses it there.
    Host {
        /// Why no GPU path was taken.
        because: String,
    },
    /// Into pinned memory, from which the GPU copies by itself.
    Pinned {
        /// The GPU's name.
        device: String,
    },
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { because } => write!(f, "host memory ({because})"),
            Self::Pinned { device } => write!(f, "pinned memory for {device}"),
        }
    }
}

/// The best path of the machine that `report` describes, and the allocator for its batches.
#[must_use]
pub fn choose(report: &GpuReport) -> (Path, Arc<dyn HostAllocator>) {
    match (PinnedAllocator::new(report), report.devices.first()) {
        (Ok(allocator), Some(device)) => (Path::Pinned { device: device.name.clone() }, Arc::new(allocator)),
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
        };
        let (path, allocator) = choose(&report);
        assert_eq!(path.to_string(), "host memory (no CUDA driver)");
        assert_eq!(allocator.name(), "heap");
    }
}
