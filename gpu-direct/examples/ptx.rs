//! Makes `gpu-direct/src/kernels/kernels.ptx` from the kernels' source, with NVRTC 12.0: its PTX is taken by every driver
//! since. No GPU is needed.
//!
//! ```text
//! pip download --no-deps nvidia-cuda-nvrtc-cu12==12.0.140 && unzip nvidia_cuda_nvrtc*.whl -d nvrtc
//! cargo run --release -p tierstream-gpu-direct --example ptx -- nvrtc/nvidia/cuda_nvrtc/lib > gpu-direct/src/kernels/kernels.ptx
//! ```

use std::io::Write;
use std::path::Path;

use tierstream_storage::{Error, ErrorKind, Result};

fn main() -> Result<()> {
    let usage = || Error::new(ErrorKind::Misuse, "make PTX", "usage: ptx DIRECTORY-OF-LIBNVRTC");
    let directory = std::env::args().nth(1).ok_or_else(usage)?;
    let ptx = tierstream_gpu_direct::kernels::make_ptx(Path::new(&directory))?;
    std::io::stdout()
        .write_all(ptx.as_bytes())
        .map_err(|error| Error::io("write", Path::new("stdout"), error))
}
