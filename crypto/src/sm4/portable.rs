//! SM4 on any CPU, in constant time: the S-box is computed, four bytes at once.

use aes_gcm::aead::inout::InOutBuf;

use super::key_schedule::s_box;
use super::{BLOCK_BYTES, Block, RoundKeys, Sm4Kernel, add32};
use crate::detect::CpuFeatures;

/// One block at a time.
pub(crate) struct Portable(RoundKeys);

impl Sm4Kernel for Portable {
    const NAME: &'static str = "sm4-portable";

    fn is_supported(_: &CpuFeatures) -> bool {
        true
    }

    fn new(keys: &RoundKeys) -> Self {
        Self(keys.clone())
    }

    fn encrypt_block(&self, block: Block) -> Block {
        let mut x: [u32; 4] =
            std::array::from_fn(|i| u32::from_be_bytes(block[4 * i..4 * i + 4].try_into().expect("4 bytes")));
        for key in self.0.words() {
            let b = s_box(x[1] ^ x[2] ^ x[3] ^ key);
            let l = b ^ b.rotate_left(2) ^ b.rotate_left(10) ^ b.rotate_left(18) ^ b.rotate_left(24);
            x = [x[1], x[2], x[3], x[0] ^ l];
        }
        let mut sealed = [0; BLOCK_BYTES];
        for (bytes, word) in sealed.chunks_exact_mut(4).zip(x.into_iter().rev()) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        sealed
    }

    fn ctr(&self, counter: &Block, mut data: InOutBuf<'_, '_, u8>) {
        let mut counter = *counter;
        while !data.is_empty() {
            let length = data.len().min(BLOCK_BYTES);
            let (mut block, rest) = data.split_at(length);
            block.xor_in2out(&self.encrypt_block(counter)[..length]);
            counter = add32(&counter, 1);
            data = rest;
        }
    }
}
