//! SM4's key expansion (GB/T 32907-2016, 7.3), and encryption of one block, a word at a time.
//!
//! Guarantees that neither look-ups nor branches depend on key or block: the S-boxes of a word are a circuit over its
//! four bytes. Either takes about 0.4 us, so that no vector instructions are worth their code here.

use zeroize::{Zeroize, Zeroizing};

use super::{Block, sbox};

/// The standard's system parameter FK.
const FK: [u32; 4] = [0xa3b1_bac6, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];

/// The 32 round keys, wiped on drop.
#[derive(Clone)]
pub(crate) struct RoundKeys([u32; 32]);

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RoundKeys {
    /// Expands a key.
    pub(crate) fn expand(key: &[u8; 16]) -> Self {
        let mut k = words(key);
        for (word, parameter) in k.iter_mut().zip(FK) {
            *word ^= parameter;
        }
        let mut keys = Self([0; 32]);
        for (round, key) in (0..).zip(&mut keys.0) {
            let b = tau(k[1] ^ k[2] ^ k[3] ^ ck(round));
            *key = k[0] ^ b ^ b.rotate_left(13) ^ b.rotate_left(23);
            k = [k[1], k[2], k[3], *key];
        }
        k.zeroize();
        keys
    }

    /// The keys in the order of the rounds; the first byte of a word is its highest.
    pub(crate) fn words(&self) -> &[u32; 32] {
        &self.0
    }

    /// The keys for rounds whose S-boxes are [`sbox::circuit`], which lacks the constants of the S-box: merged in here.
    pub(super) fn for_circuit(&self) -> Zeroizing<[u32; 32]> {
        // Without its constant, an S-box leaves `OUTPUT` in all four bytes, which the linear layer turns by two bits:
        // so the words made by rounds 0 to 3, 8 to 11, ... lack this constant, and the others have lacked it twice.
        let lack = u32::from_be_bytes([sbox::OUTPUT.rotate_left(2); 4]);
        Zeroizing::new(std::array::from_fn(|round| {
            let inputs = round + 1..round + 4;
            let lacking = inputs.filter(|input| input / 4 % 2 == 1).count();
            let merged = self.0[round] ^ u32::from_be_bytes([sbox::INPUT; 4]);
            if lacking % 2 == 1 { merged ^ lack } else { merged }
        }))
    }

    /// One block.
    pub(super) fn encrypt_block(&self, block: &Block) -> Block {
        let mut x = words(block);
        for key in &self.0 {
            let b = tau(x[1] ^ x[2] ^ x[3] ^ key);
            let l = b ^ b.rotate_left(2) ^ b.rotate_left(10) ^ b.rotate_left(18) ^ b.rotate_left(24);
            x = [x[1], x[2], x[3], x[0] ^ l];
        }
        let mut sealed = [0; 16];
        for (bytes, word) in sealed.chunks_exact_mut(4).zip(x.into_iter().rev()) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        sealed
    }
}

/// The standard's constant of a round: bytes (4 round + j) * 7 modulo 256.
fn ck(round: u32) -> u32 {
    (0..4).fold(0, |word, j| (word << 8) | ((4 * round + j) * 7 % 256))
}

/// The S-box on each byte of a word: plane `b` holds bit `b` of each byte, at the byte's lowest bit.
#[inline]
fn tau(word: u32) -> u32 {
    const EACH_BYTE: u32 = 0x0101_0101;
    let word = word ^ u32::from_be_bytes([sbox::INPUT; 4]);
    let planes = sbox::circuit(std::array::from_fn(|bit| word >> bit & EACH_BYTE));
    let bytes = planes.into_iter().enumerate().fold(0, |sum, (bit, plane)| sum | plane << bit);
    bytes ^ u32::from_be_bytes([sbox::OUTPUT; 4])
}

fn words(block: &Block) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_be_bytes(block[4 * i..4 * i + 4].try_into().expect("4 bytes")))
}
