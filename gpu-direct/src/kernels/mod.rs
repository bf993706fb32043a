//! The kernels' source, and what it is compiled to.
//!
//! The source is CUDA C++ and C++ at once: NVRTC compiles it for a GPU, and a C++ compiler with `tests/kernels/shim.h`
//! for the host, where its arithmetic is tested against the kernels of the crypto crate.

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
