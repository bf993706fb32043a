//! What this machine has of GPUs, and why not more.

use serde::Serialize;

use crate::cuda;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// Its number, as CUDA counts.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Compute capability: major, minor.
    pub compute_capability: (i32, i32),
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors.
    pub clock_mhz: u32,
    /// Its address on the PCI bus.
    pub pci: String,
    /// Its PCIe link, as the kernel reports it now and at most; none where it does not.
    pub link: Option<PcieLink>,
    /// The NUMA node it hangs on; none on machines with one, or where the kernel does not say.
    pub numa_node: Option<u32>,
}

/// A PCIe link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PcieLink {
    /// "32.0 GT/s PCIe", say. An idle GPU may lower it.
    pub speed: String,
    /// Lanes.
    pub width: u32,
    /// Fastest speed of the device.
    pub speed_max: String,
    /// Most lanes of the device.
    pub width_max: u32,
}

impl PcieLink {
    fn of(pci: &str) -> Option<Self> {
        let width = |name| pci_file(pci, name)?.parse().ok();
        Some(Self {
            speed: pci_file(pci, "current_link_speed")?,
            width: width("current_link_width")?,
            speed_max: pci_file(pci, "max_link_speed")?,
            width_max: width("max_link_width")?,
        })
    }
}

fn pci_file(pci: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/bus/pci/devices/{pci}/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuReport {
    /// Usable GPUs; empty without one.
    pub devices: Vec<DeviceReport>,
    /// Version of CUDA that the driver speaks, as 13000 for 13.0.
    pub driver_version: Option<i32>,
    /// Why there is no usable GPU; none when there is one.
    pub absent_because: Option<String>,
    /// NVRTC, or why there is none. Without it the driver compiles the kernels.
    pub nvrtc: String,
    /// GPUDirect Storage: what of it is there, or why it is not.
    pub gpudirect_storage: String,
}

impl GpuReport {
    /// Whether there is a usable GPU.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !self.devices.is_empty()
    }

    fn absent(driver_version: Option<i32>, why: impl Into<String>) -> Self {
        Self::of(Vec::new(), driver_version, Some(why.into()))
    }

    fn of(devices: Vec<DeviceReport>, driver_version: Option<i32>, absent_because: Option<String>) -> Self {
        let gpudirect_storage = storage_of(!devices.is_empty());
        Self { devices, driver_version, absent_because, nvrtc: cuda::nvrtc_version(), gpudirect_storage }
    }
}

/// What there is of GPUDirect Storage. libcufile is looked for and not started: its start does not come back on machines
/// without a driver, and nothing here reads through it.
fn storage_of(has_gpu: bool) -> String {
    if !has_gpu {
        return "absent: no GPU".to_owned();
    }
    if !cuda::is_cufile_present() {
        return "absent: libcufile.so.0 is not installed".to_owned();
    }
    match std::fs::read_to_string("/proc/driver/nvidia-fs/version") {
        Ok(version) => format!("not used: libcufile and nvidia-fs ({}) are there", version.trim()),
        Err(_) => "not used: libcufile is there, the kernel module nvidia-fs is not loaded".to_owned(),
    }
}

/// Looks for a driver, then for devices. Takes milliseconds without a GPU, up to a second with one.
#[must_use]
pub fn probe() -> GpuReport {
    if !cuda::is_library_present() {
        return GpuReport::absent(None, "no CUDA driver: libcuda.so.1 is not installed");
    }
    let driver_version = match cuda::start() {
        Ok(version) => version,
        Err(why) => return GpuReport::absent(None, format!("the CUDA driver does not start: {why}")),
    };
    match cuda::devices() {
        Err(why) => {
            GpuReport::absent(Some(driver_version), format!("the CUDA driver gives no devices: {why}"))
        }
        Ok(devices) if devices.is_empty() => {
            GpuReport::absent(Some(driver_version), "the CUDA driver sees no device")
        }
        Ok(mut devices) => {
            for device in &mut devices {
                device.link = PcieLink::of(&device.pci);
                // -1 where there are no nodes.
                device.numa_node = pci_file(&device.pci, "numa_node").and_then(|node| node.parse().ok());
            }
            GpuReport::of(devices, Some(driver_version), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_finds_a_device_or_says_why_not() {
        let report = probe();
        assert_eq!(report.is_present(), report.absent_because.is_none(), "{report:?}");
        match &report.absent_because {
            None => assert!(
                report.devices.iter().all(|device| device.memory_bytes > 0 && !device.name.is_empty())
            ),
            Some(why) => tierstream_storage::testing::skip("gpu", why),
        }
    }
}
