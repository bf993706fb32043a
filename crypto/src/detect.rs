//! The CPU features that decide which cipher kernel runs, asked once and printable for `doctor`.

use std::fmt;

/// Features of this CPU that cipher kernels care about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// AES instructions (AES-NI or ARMv8 AES).
    pub aes: bool,
    /// Carry-less multiplication (PCLMULQDQ or PMULL).
    pub clmul: bool,
    /// 256-bit vectors (AVX2).
    pub avx2: bool,
    /// 512-bit vectors with byte and word operations (AVX-512 F, BW, VL).
    pub avx512: bool,
    /// Byte permutation (AVX-512 VBMI).
    pub vbmi: bool,
    /// Galois field instructions (GFNI).
    pub gfni: bool,
    /// Vectored AES (VAES).
    pub vaes: bool,
    /// Vectored carry-less multiplication (VPCLMULQDQ).
    pub vpclmulqdq: bool,
}

/// Asks the CPU. Cheap: the standard library caches the answer.
#[must_use]
pub fn cpu_features() -> CpuFeatures {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        CpuFeatures {
            aes: has!("aes"),
            clmul: has!("pclmulqdq"),
            avx2: has!("avx2"),
            avx512: has!("avx512f") && has!("avx512bw") && has!("avx512vl"),
            vbmi: has!("avx512vbmi"),
            gfni: has!("gfni"),
            vaes: has!("vaes"),
            vpclmulqdq: has!("vpclmulqdq"),
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as has;
        CpuFeatures { aes: has!("aes"), clmul: has!("pmull"), ..CpuFeatures::default() }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        CpuFeatures::default()
    }
}

impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("aes", self.aes),
            ("clmul", self.clmul),
            ("avx2", self.avx2),
            ("avx512", self.avx512),
            ("vbmi", self.vbmi),
            ("gfni", self.gfni),
            ("vaes", self.vaes),
            ("vpclmulqdq", self.vpclmulqdq),
        ];
        let present: Vec<&str> = all.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        if present.is_empty() { f.write_str("none") } else { f.write_str(&present.join(" ")) }
    }
}
