//! The kernels that run on a GPU, run here: compiled for the host by its C++ compiler, and on a GPU where there is one.
//! The same cases on both: published vectors, and random ones against the kernels of the crypto crate.

#![cfg(test)]

mod convert;
mod gcm;
mod launch;

use launch::{Host, Machine};

/// Runs `cases` on the host's build of the kernels, then on the GPU.
fn on_every_machine(cases: impl Fn(&mut dyn Machine)) {
    match Host::compile() {
        Ok(mut host) => cases(&mut host),
        Err(why) => tierstream_storage::testing::skip("c++", &why),
    }
}
