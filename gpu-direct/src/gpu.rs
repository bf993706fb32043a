//! One GPU, ready for work: its context and its kernels.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tierstream_storage::{Error, ErrorKind, Result};

use crate::cuda::{self, Context};
use crate::kernels::{Kernels, Origin};
use crate::probe::{DeviceReport, GpuReport};

/// A GPU with its kernels loaded. One may serve many loaders.
pub struct Gpu {
    context: Context,
    report: DeviceReport,
    kernels: Kernels,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}: {})", self.report.ordinal, self.report.name)
    }
}

impl Gpu {
    /// Opens GPU `ordinal` of those that `report` found, and loads the kernels: from the directory `cache` where an
    /// earlier run left them, which this one does too.
    ///
    /// # Errors
    /// `Unsupported` when there is no such GPU or it is too old, `Device` when the driver refuses.
    pub fn open(report: &GpuReport, ordinal: u32, cache: Option<&Path>) -> Result<Arc<Self>> {
        let device = report.devices.iter().find(|device| device.ordinal == ordinal).ok_or_else(|| {
            let found = report.devices.len();
            let why =
                report.absent_because.clone().unwrap_or_else(|| format!("no GPU {ordinal}, {found} found"));
            Error::new(ErrorKind::Unsupported, "open GPU", why)
        })?;
        let refused =
            |why: String| Error::new(ErrorKind::Device, "open GPU", format!("GPU {ordinal}: {why}"));
        let context = cuda::context(ordinal).map_err(refused)?;
        let kernels = Kernels::load(&context, device, report.driver_version.unwrap_or(0), cache)?;
        Ok(Arc::new(Self { context, report: device.clone(), kernels }))
    }

    /// What the probe said of it.
    #[must_use]
    pub fn report(&self) -> &DeviceReport {
        &self.report
    }

    /// Where its kernels came from.
    #[must_use]
    pub fn kernels(&self) -> &Origin {
        &self.kernels.origin
    }

    /// Registers of a thread of the cipher's kernel, and bytes of it that spill, as compiled for this GPU.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn cipher_registers_and_spills(&self) -> Result<(i32, i32)> {
        self.kernels.open.registers_and_spills()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn functions(&self) -> &Kernels {
        &self.kernels
    }
}
