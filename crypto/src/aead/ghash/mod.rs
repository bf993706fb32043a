//! GHASH (SP 800-38D, 6.4): the hash that authenticates GCM, on the best carry-less multiplier of this CPU.
//!
//! A [`GhashKey`] holds the powers of H, made once per cipher key and wiped on drop; a [`Ghash`] is one message's sum.
//! Knows no cipher.

#[cfg(target_arch = "x86_64")]
mod half;
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide;

use std::marker::PhantomData;

use ::ghash::universal_hash::{KeyInit, UniversalHash};
use ::ghash::{GHash, Key};

#[cfg(target_arch = "x86_64")]
use crate::detect::cpu_features;

/// Bytes of one block.
const BLOCK_BYTES: usize = 16;

/// The hash key in the form that this CPU multiplies by.
pub(crate) enum GhashKey {
    /// VPCLMULQDQ on 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Wide(Box<wide::Powers>),
    /// VPCLMULQDQ on 256-bit registers.
    #[cfg(target_arch = "x86_64")]
    Half(Box<half::Powers>),
    /// The `ghash` crate: PCLMULQDQ or PMULL where there is one, else integer multiplications in constant time.
    Crate(GHash),
}

impl GhashKey {
    /// The key of `h`, the encryption of zero.
    pub(crate) fn new(h: &[u8; BLOCK_BYTES]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if wide::Powers::is_supported(&cpu_features()) {
            return Self::Wide(Box::new(wide::Powers::new(h)));
        }
        Self::without_avx512(h)
    }

    /// The key of `h` for a kernel that a CPU without AVX-512 runs: what is measured and tested with it here is then
    /// what such a CPU does.
    pub(crate) fn without_avx512(h: &[u8; BLOCK_BYTES]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if half::Powers::is_supported(&cpu_features()) {
            return Self::Half(Box::new(half::Powers::new(h)));
        }
        Self::Crate(<GHash as KeyInit>::new(<&Key>::from(h)))
    }

    /// An empty sum.
    pub(crate) fn start(&self) -> Ghash<'_> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(powers) => Ghash::Wide(powers.start()),
            #[cfg(target_arch = "x86_64")]
            Self::Half(powers) => Ghash::Half(powers.start()),
            Self::Crate(hash) => Ghash::Crate(hash.clone(), PhantomData),
        }
    }
}

/// The hash of one message so far.
pub(crate) enum Ghash<'k> {
    /// Under [`GhashKey::Wide`].
    #[cfg(target_arch = "x86_64")]
    Wide(wide::WideGhash<'k>),
    /// Under [`GhashKey::Half`].
    #[cfg(target_arch = "x86_64")]
    Half(half::HalfGhash<'k>),
    /// Under [`GhashKey::Crate`].
    Crate(GHash, PhantomData<&'k ()>),
}

impl Ghash<'_> {
    /// Adds `bytes`, filled up with zeros to whole blocks.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(hash) => hash.update(bytes),
            #[cfg(target_arch = "x86_64")]
            Self::Half(hash) => hash.update(bytes),
            Self::Crate(hash, _) => hash.update_padded(bytes),
        }
    }

    /// The hash, after the lengths of associated data and message.
    pub(crate) fn finish(mut self, aad_bytes: usize, body_bytes: usize) -> [u8; BLOCK_BYTES] {
        let bits = |bytes: usize| (bytes as u64 * 8).to_be_bytes();
        let mut lengths = [0; BLOCK_BYTES];
        lengths[..8].copy_from_slice(&bits(aad_bytes));
        lengths[8..].copy_from_slice(&bits(body_bytes));
        self.update(&lengths);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(hash) => hash.finish(),
            #[cfg(target_arch = "x86_64")]
            Self::Half(hash) => hash.finish(),
            Self::Crate(hash, _) => hash.finalize().into(),
        }
    }
}

/// `h` times x in the order of POLYVAL, bytes reversed: what the vector code has powers of.
#[cfg(target_arch = "x86_64")]
fn times_x(h: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    let h = u128::from_be_bytes(*h);
    // What is shifted out comes back as x^127 + x^126 + x^121 + 1.
    let carry = 0_u128.wrapping_sub(h >> 127) & 0xc200_0000_0000_0000_0000_0000_0000_0001;
    ((h << 1) ^ carry).to_le_bytes()
}
