//! NVRTC compiles the kernels for every kind of GPU that is meant, without one at hand; what it says of registers and
//! spills; and a model of the cipher's speed from the instructions it made. The PTX of the crate is that of the source.

use std::path::PathBuf;

use tierstream_storage::testing::{skip, tell};

use super::super::{PTX, SOURCE, source_hash};
use super::sass::Sass;
use crate::cuda::Nvrtc;

/// Where `.ci/nvrtc` puts the wheel's libraries; TIERSTREAM_NVRTC names another place.
#[expect(clippy::disallowed_methods, reason = "the test's own switch; nothing in the product reads it")]
fn nvrtc() -> Result<Nvrtc, String> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tierstream-ci/nvrtc"));
    let directory = std::env::var_os("TIERSTREAM_NVRTC").map(PathBuf::from).or_else(home);
    let directory = directory.filter(|directory| directory.exists());
    Nvrtc::load(directory.as_deref()).map_err(|why| format!("{why}; .ci/nvrtc installs it"))
}

#[test]
fn nvrtc_compiles_the_kernels_for_sm_80_90_and_100() {
    let nvrtc = match nvrtc() {
        Ok(nvrtc) => nvrtc,
        Err(why) => return skip("nvrtc", &why),
    };
    for capability in [80, 90, 100] {
        let compiled = nvrtc.cubin(SOURCE, capability).unwrap();
        assert!(compiled.image.starts_with(b"\x7fELF"));
        let (registers, spills) = of_cipher(&compiled.log);
        tell(&format!("sm_{capability}: sm4_gcm_open takes {registers} registers, spills {spills} bytes"));
        // 4 thread blocks of 128 threads share 65536 registers.
        assert!(registers <= 128, "sm_{capability}: {registers} registers");
        assert!(spills <= 64, "sm_{capability}: {spills} bytes spill");
        // The branches of later ones are encoded in another way, and their instructions are the same but for names.
        if capability == 80 {
            let model = Sass::of(&compiled.image, "sm4_gcm_open").unwrap().model();
            tell(&format!("model, not a measurement: {model}"));
        }
    }
}

/// Registers and spilled bytes that ptxas reports of the cipher's kernel.
fn of_cipher(log: &str) -> (u32, u32) {
    let about = log.split("Compiling entry function").find(|part| part.contains("'sm4_gcm_open'")).unwrap();
    let before = |words: &str| {
        let text = about.split(words).next().unwrap();
        text.rsplit(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap().parse().unwrap()
    };
    (before(" registers"), before(" bytes spill stores"))
}

#[test]
fn the_ptx_is_of_this_source_and_for_every_driver_since_cuda_12_0() {
    let hint = "make it anew as gpu-direct/examples/ptx.rs says";
    assert!(
        PTX.starts_with(&format!("// source {}\n", source_hash())),
        "kernels.ptx is of another source: {hint}"
    );
    assert!(PTX.contains("\n.version 8.0\n") && PTX.contains("\n.target sm_80\n"), "{hint}");
    for kernel in ["sm4_gcm_open", "normalize_u8", "widen_u16", "gather", "compute"] {
        assert!(PTX.contains(&format!(".entry {kernel}(")), "no {kernel}: {hint}");
    }
}
