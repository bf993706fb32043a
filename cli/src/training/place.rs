//! Where a run trains and where its batches land.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tierstream_gpu_direct::{choose, probe};
use tierstream_storage::buf::{HeapAllocator, HostAllocator};
use tierstream_storage::{Error, ErrorKind, Result};
use tierstream_train::backend::compute_on_this_thread;
use tierstream_train::{CudaPresent, Device};

/// The user's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The GPU where there is one.
    Auto,
    Cpu,
    Cuda,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("unknown device `{text}`, expected auto, cpu or cuda")),
        }
    }
}

/// A device, and memory for the batches that it reads.
pub(crate) struct Placement {
    pub(crate) device: Device,
    /// Where batches land, and why there.
    pub(crate) batches: String,
    pub(crate) allocator: Arc<dyn HostAllocator>,
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placement({}, {})", self.device, self.batches)
    }
}

impl Placement {
    /// Looks for a GPU where one is wished. Call it early, on the thread that will train.
    ///
    /// # Errors
    /// `Unsupported` when CUDA was asked for and is not there.
    pub(crate) fn of(choice: DeviceChoice) -> Result<Self> {
        if choice == DeviceChoice::Cpu {
            return Ok(Self::cpu("the CPU was asked for".to_owned(), Arc::new(HeapAllocator)));
        }
        let report = probe();
        let (path, allocator) = choose(&report);
        match report.devices.first() {
            Some(first) => {
                let ordinal = usize::try_from(first.ordinal).unwrap_or(0);
                let device = Device::Cuda(CudaPresent::from_probe(ordinal));
                Ok(Self { device, batches: path.to_string(), allocator })
            }
            None if choice == DeviceChoice::Cuda => {
                let why = report.absent_because.unwrap_or_else(|| "no GPU".to_owned());
                Err(Error::new(ErrorKind::Unsupported, "train", why)
                    .hint("use --device cpu, or look at `tierstream doctor`"))
            }
            None => Ok(Self::cpu(report.absent_because.unwrap_or_else(|| "no GPU".to_owned()), allocator)),
        }
    }

    fn cpu(because: String, allocator: Arc<dyn HostAllocator>) -> Self {
        let on_this_thread = compute_on_this_thread();
        tracing::debug!(on_this_thread, "computing on the CPU");
        Self { device: Device::Cpu, batches: format!("host memory ({because})"), allocator }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_back() {
        let choices =
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda", DeviceChoice::Cuda)];
        for (name, choice) in choices {
            assert_eq!(name.parse(), Ok(choice));
        }
        assert!("tpu".parse::<DeviceChoice>().unwrap_err().contains("expected auto, cpu or cuda"));
    }
}
