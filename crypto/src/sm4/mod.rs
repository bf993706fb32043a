//! The SM4 block cipher (GB/T 32907-2016) in encryption direction, which is all that counter modes need: one trait,
//! one kernel per instruction set.
//!
//! Guarantees that no kernel branches on, or indexes memory by, key or data, and that every kernel wipes the keys it
//! holds on drop. [`crate::kernels`] lists them and chooses one.
//!
//! Deliberately knows no tag but by the hash that it is handed: [`Sm4Kernel::seal`] and [`Sm4Kernel::open`] exist so
//! that a kernel can encrypt and hash in one pass.

#[cfg(target_arch = "x86_64")]
mod aes_sbox;
#[cfg(target_arch = "x86_64")]
mod aesni256;
#[cfg(target_arch = "x86_64")]
mod basis;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
mod key_schedule;
mod portable;
mod sbox;
mod schedule;
#[cfg(target_arch = "x86_64")]
mod sliced256;
#[cfg(target_arch = "x86_64")]
mod vaes256;

use aes_gcm::aead::inout::InOutBuf;

use crate::aead::ghash::{Ghash, GhashKey};
use crate::detect::CpuFeatures;

#[cfg(target_arch = "x86_64")]
pub(crate) use aesni256::AesNi256;
#[cfg(target_arch = "x86_64")]
pub(crate) use gfni256::Gfni256;
#[cfg(target_arch = "x86_64")]
pub(crate) use gfni512::Gfni512;
pub(crate) use key_schedule::RoundKeys;
pub(crate) use portable::Portable;
pub use schedule::Sm4Schedule;
#[cfg(target_arch = "x86_64")]
pub(crate) use vaes256::Vaes256;

/// Bytes of one block.
pub(crate) const BLOCK_BYTES: usize = 16;

/// One block.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// What the two-pass default of [`Sm4Kernel::seal`] handles at once: both passes find it in L1.
const CHUNK_BYTES: usize = 8 << 10;

/// SM4 under one key on one instruction set.
///
/// A kernel wipes its keys on drop. `data` is in place or from one buffer to another; a kernel reads each input byte
/// before it writes the output byte of the same place, and nothing after it.
pub(crate) trait Sm4Kernel: Send + Sync + Sized {
    /// The name in reports and options.
    const NAME: &'static str;

    /// Whether a CPU with these features runs this kernel.
    fn is_supported(cpu: &CpuFeatures) -> bool;

    /// Prepares the kernel's form of the round keys.
    ///
    /// # Panics
    /// When this CPU does not run the kernel; this is what makes the other methods safe.
    fn new(keys: &RoundKeys) -> Self;

    /// The form of GCM's hash key that goes with this kernel; `h` is the encryption of zero.
    fn ghash_key(h: &Block) -> GhashKey {
        GhashKey::new(h)
    }

    /// One block.
    fn encrypt_block(&self, block: Block) -> Block;

    /// XORs `data` with the key stream of `counter`, `counter` + 1, ..., whose last 32 bits count, big endian, and
    /// wrap (CTR32 of SP 800-38D). The last block may be partial.
    fn ctr(&self, counter: &Block, data: InOutBuf<'_, '_, u8>);

    /// GCM's encryption of `data` under the pre-counter block `j0`, hashing what it writes. Returns the encryption of
    /// `j0`, which masks the tag.
    fn seal(&self, j0: &Block, ghash: &mut Ghash<'_>, data: InOutBuf<'_, '_, u8>) -> Block {
        seal_in_two_passes(self, j0, ghash, data)
    }

    /// GCM's decryption of `data` under the pre-counter block `j0`, hashing what it reads. Returns the encryption of
    /// `j0`. The caller wipes the output when the tag turns out wrong.
    fn open(&self, j0: &Block, ghash: &mut Ghash<'_>, data: InOutBuf<'_, '_, u8>) -> Block {
        open_in_two_passes(self, j0, ghash, data)
    }
}

fn seal_in_two_passes<K: Sm4Kernel>(
    kernel: &K,
    j0: &Block,
    ghash: &mut Ghash<'_>,
    mut data: InOutBuf<'_, '_, u8>,
) -> Block {
    let mut counter = add32(j0, 1);
    while !data.is_empty() {
        let (mut chunk, rest) = split(data);
        kernel.ctr(&counter, chunk.reborrow());
        ghash.update(chunk.get_out());
        counter = add32(&counter, CHUNK_BYTES / BLOCK_BYTES);
        data = rest;
    }
    kernel.encrypt_block(*j0)
}

fn open_in_two_passes<K: Sm4Kernel>(
    kernel: &K,
    j0: &Block,
    ghash: &mut Ghash<'_>,
    mut data: InOutBuf<'_, '_, u8>,
) -> Block {
    let mut counter = add32(j0, 1);
    while !data.is_empty() {
        let (chunk, rest) = split(data);
        ghash.update(chunk.get_in());
        kernel.ctr(&counter, chunk);
        counter = add32(&counter, CHUNK_BYTES / BLOCK_BYTES);
        data = rest;
    }
    kernel.encrypt_block(*j0)
}

fn split<'i, 'o>(data: InOutBuf<'i, 'o, u8>) -> (InOutBuf<'i, 'o, u8>, InOutBuf<'i, 'o, u8>) {
    let length = data.len().min(CHUNK_BYTES);
    data.split_at(length)
}

/// `counter` plus `blocks` in its last 32 bits, which wrap.
pub(crate) fn add32(counter: &Block, blocks: usize) -> Block {
    let mut sum = *counter;
    let (_, last) = sum.split_last_chunk_mut::<4>().expect("16 bytes");
    #[expect(clippy::cast_possible_truncation, reason = "the sum is modulo 2^32")]
    let wrapped = u32::from_be_bytes(*last).wrapping_add(blocks as u32);
    *last = wrapped.to_be_bytes();
    sum
}

#[cfg(test)]
mod tests;
