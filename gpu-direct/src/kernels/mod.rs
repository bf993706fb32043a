//! The kernels: one source, what it is compiled to for a device, and where that is kept.
//!
//! The source is CUDA C++ and C++ at once. For a device there are three ways, tried in this order, each with a reason when
//! it is not taken: a cubin that an earlier run cached for this GPU and driver; NVRTC, where the machine has it; and the
//! PTX in this crate, which every driver since CUDA 12.0 compiles by itself. So a machine without toolkit and network
//! runs the same kernels. For tests, a C++ compiler makes host code of the source (`tests/shim.h`).

mod cache;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::cuda::{Context, Function, Module, Nvrtc};
use crate::probe::DeviceReport;
use cache::Cache;

/// All kernels, as one source.
pub const SOURCE: &str = concat!(
    include_str!("base.cu"),
    include_str!("sbox.cu"),
    include_str!("sm4.cu"),
    include_str!("ghash.cu"),
    include_str!("open.cu"),
    include_str!("convert.cu"),
    include_str!("gather.cu"),
);

/// The same as PTX for compute capability 8.0 and later, made by NVRTC 12.0 (`gpu-direct/examples/ptx.rs`); a test
/// compares the hash of the source in it.
const PTX: &str = include_str!("kernels.ptx");

/// Threads of a thread block of `sm4_gcm_open`.
pub(crate) const OPEN_THREADS: u32 = 128;

/// Where kernels came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A cubin of an earlier run.
    Cache,
    /// Compiled now, by NVRTC of this CUDA version.
    Nvrtc {
        /// Major and minor.
        version: (i32, i32),
    },
    /// Compiled by the driver from the PTX of this binary.
    Ptx {
        /// Why NVRTC did not do it.
        because: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache => f.write_str("cubin of an earlier run"),
            Self::Nvrtc { version: (major, minor) } => write!(f, "compiled by NVRTC {major}.{minor}"),
            Self::Ptx { because } => write!(f, "compiled by the driver from PTX ({because})"),
        }
    }
}

/// The kernels on one device.
#[derive(Clone, Debug)]
pub(crate) struct Kernels {
    pub(crate) open: Function,
    pub(crate) normalize: Function,
    pub(crate) widen: Function,
    #[cfg_attr(not(test), expect(dead_code, reason = "for batches whose blocks are opened on the device"))]
    pub(crate) gather: Function,
    pub(crate) compute: Function,
    pub(crate) origin: Origin,
}

impl Kernels {
    /// Loads the kernels for `device`, whose driver speaks CUDA `driver` (13000 for 13.0). Cubins are kept in `cache`.
    ///
    /// # Errors
    /// `Unsupported` for devices before compute capability 8.0 and drivers before CUDA 12.0 without NVRTC.
    pub(crate) fn load(
        context: &Context,
        device: &DeviceReport,
        driver: i32,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let (major, minor) = device.compute_capability;
        let capability = u32::try_from(10 * major + minor).unwrap_or(0);
        if capability < 80 {
            let why = format!("{}: compute capability {major}.{minor}, expected 8.0 or newer", device.name);
            return Err(Error::new(ErrorKind::Unsupported, "load kernels", why));
        }
        let cache = cache.map(|directory| Cache::of(directory, &device.name, capability, driver));
        if let Some(image) = cache.as_ref().and_then(Cache::read)
            && let Ok(kernels) =
                Module::load(context, &image).and_then(|module| Self::of(&module, Origin::Cache))
        {
            return Ok(kernels);
        }
        let because = match compile(capability) {
            Err(why) => why,
            Ok((image, version)) => match Module::load(context, &image) {
                Ok(module) => {
                    if let Some(cache) = &cache {
                        cache.write(&image);
                    }
                    return Self::of(&module, Origin::Nvrtc { version });
                }
                Err(error) => format!("NVRTC {}.{}: {error}", version.0, version.1),
            },
        };
        let module = Module::load(context, PTX.as_bytes())
            .map_err(|error| error.hint("install a driver of CUDA 12.0 or newer"))?;
        Self::of(&module, Origin::Ptx { because })
    }

    fn of(module: &std::sync::Arc<Module>, origin: Origin) -> Result<Self> {
        Ok(Self {
            open: module.function("sm4_gcm_open")?,
            normalize: module.function("normalize_u8")?,
            widen: module.function("widen_u16")?,
            gather: module.function("gather")?,
            compute: module.function("compute")?,
            origin,
        })
    }
}

fn compile(capability: u32) -> std::result::Result<(Vec<u8>, (i32, i32)), String> {
    let nvrtc = Nvrtc::load(None)?;
    Ok((nvrtc.cubin(SOURCE, capability)?.image, nvrtc.version()))
}

/// The hash of the source, as the PTX and cached cubins name it.
fn source_hash() -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(SOURCE.as_bytes()))
}

/// The kernels as PTX, made by the NVRTC in `directory`: what `kernels.ptx` has to be.
///
/// # Errors
/// `Missing` when there is no NVRTC, `Unsupported` when it is newer than 12.0 or refuses the source.
pub fn make_ptx(directory: &Path) -> Result<String> {
    let nvrtc =
        Nvrtc::load(Some(directory)).map_err(|why| Error::new(ErrorKind::Missing, "compile kernels", why))?;
    let unsupported = |why: String| Error::new(ErrorKind::Unsupported, "compile kernels", why);
    if nvrtc.version() > (12, 0) {
        let (major, minor) = nvrtc.version();
        return Err(unsupported(format!(
            "NVRTC {major}.{minor} makes PTX that older drivers refuse, expected 12.0"
        )));
    }
    let compiled = nvrtc.ptx(SOURCE, 80).map_err(unsupported)?;
    let text = String::from_utf8(compiled.image).map_err(|error| unsupported(error.to_string()))?;
    Ok(format!("// source {}\n{}\n", source_hash(), text.trim_end()))
}
