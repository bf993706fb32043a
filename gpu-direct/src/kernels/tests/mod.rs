//! The kernels that run on a GPU, run here: compiled for the host by its C++ compiler, and on a GPU where there is one.
//! The same cases on both: published vectors, and random ones against the kernels of the crypto crate. And compiled for
//! GPUs by NVRTC, where a run of `.ci/nvrtc` has brought it.

mod compile;
mod convert;
mod gcm;
mod gpu;
mod launch;
mod sass;

use launch::{Host, Machine};

/// Runs `cases` on the host's build of the kernels, then on the GPU.
fn on_every_machine(cases: impl Fn(&mut dyn Machine)) {
    match Host::compile() {
        Ok(mut host) => cases(&mut host),
        Err(why) => tierstream_storage::testing::skip("c++", &why),
    }
    match gpu::Card::open() {
        Ok(mut card) => cases(&mut card),
        Err(why) => tierstream_storage::testing::skip("gpu", &why),
    }
}
