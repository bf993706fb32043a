//! `sm4-portable`: SM4 on any CPU, bit-sliced, in safe Rust.
//!
//! Guarantees that no branch and no address depends on key or data. Counter blocks are made and encrypted [`BLOCKS`]
//! at a time: bit `n` of every block stands in one plane, so that all rotations are renamings, and the S-boxes are
//! [`sbox::circuit`] over planes. The loops run over neighbouring words, which the compiler turns into the vectors
//! that every CPU of an architecture has (SSE2, NEON).

use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Block, RoundKeys, Sm4Kernel, add32, sbox};
use crate::detect::CpuFeatures;

/// Words of a plane. With two, the four byte positions of a word make four 128-bit vectors.
const WORDS: usize = 2;
/// Blocks of a group, one for each bit of a plane.
const BLOCKS: usize = 64 * WORDS;
/// Up to so many blocks are faster one by one.
const FEW: usize = 8;

/// Words of the planes of one bit of the four bytes of an SM4 word, most significant byte first.
const LANES: usize = 4 * WORDS;
/// Bit `b` of the four bytes of one SM4 word of all blocks.
type Planes = [u64; LANES];
/// One SM4 word of all blocks: plane set `b` has bit `b` of each byte.
type Word = [Planes; 8];
/// A round key, one word of ones or zeroes for each bit.
type RoundKey = [[u64; 4]; 8];

/// SM4 by planes, under one key.
pub(crate) struct Portable {
    keys: RoundKeys,
    planes: Zeroizing<Vec<RoundKey>>,
}

impl Sm4Kernel for Portable {
    const NAME: &'static str = "sm4-portable";

    fn is_supported(_: &CpuFeatures) -> bool {
        true
    }

    fn new(keys: &RoundKeys) -> Self {
        Self { keys: keys.clone(), planes: spread(keys) }
    }

    fn encrypt_block(&self, block: Block) -> Block {
        self.keys.encrypt_block(&block)
    }

    fn ctr(&self, counter: &Block, mut data: InOutBuf<'_, '_, u8>) {
        let mut counter = *counter;
        while data.len() > FEW * BLOCK_BYTES {
            let length = data.len().min(BLOCKS * BLOCK_BYTES);
            let (mut group, rest) = data.split_at(length);
            group.xor_in2out(&key_stream(&self.planes, &counter).as_flattened()[..length]);
            counter = add32(&counter, BLOCKS);
            data = rest;
        }
        while !data.is_empty() {
            let length = data.len().min(BLOCK_BYTES);
            let (mut block, rest) = data.split_at(length);
            block.xor_in2out(&self.encrypt_block(counter)[..length]);
            counter = add32(&counter, 1);
            data = rest;
        }
    }
}

/// The round keys in the form of the circuit, with the constants of the S-boxes merged in.
fn spread(round_keys: &RoundKeys) -> Zeroizing<Vec<RoundKey>> {
    let words = round_keys.for_circuit();
    let mut spread = Zeroizing::new(vec![[[0; 4]; 8]; 32]);
    for (planes, word) in spread.iter_mut().zip(&*words) {
        for (bit, bytes) in planes.iter_mut().enumerate() {
            for (byte, plane) in bytes.iter_mut().enumerate() {
                *plane = 0u64.wrapping_sub(u64::from(word >> (24 - 8 * byte + bit) & 1));
            }
        }
    }
    spread
}

/// The key stream of [`BLOCKS`] counter blocks from `counter` on; its last four bytes count, big endian, and wrap.
fn key_stream(round_keys: &[RoundKey], counter: &Block) -> [Block; BLOCKS] {
    let mut x = counters(counter);
    for round in round_keys.chunks_exact(4) {
        let [a, b, c, d] = &mut x;
        step(a, b, c, d, &round[0]);
        step(b, c, d, a, &round[1]);
        step(c, d, a, b, &round[2]);
        step(d, a, b, c, &round[3]);
    }
    blocks(&x)
}

/// One round: `a` becomes the new word.
fn step(a: &mut Word, b: &Word, c: &Word, d: &Word, round_key: &RoundKey) {
    let mut s = [[0; LANES]; 8];
    for bit in 0..8 {
        for lane in 0..LANES {
            s[bit][lane] = b[bit][lane] ^ c[bit][lane] ^ d[bit][lane] ^ round_key[bit][lane / WORDS];
        }
    }
    substitute(&mut s);
    // a + s + (s <<< 2) + (s <<< 10) + (s <<< 18) + (s <<< 24), where turning by 8 is the next byte.
    let mut pair = s;
    for bit in 0..8 {
        for lane in 0..LANES {
            pair[bit][lane] ^= s[bit][(lane + WORDS) % LANES];
        }
    }
    for bit in 0..8 {
        let (from, carry) = if bit < 2 { (bit + 6, WORDS) } else { (bit - 2, 0) };
        for lane in 0..LANES {
            a[bit][lane] ^= pair[bit][(lane + 3 * WORDS) % LANES]
                ^ pair[from][(lane + carry) % LANES]
                ^ s[from][(lane + carry + 2 * WORDS) % LANES];
        }
    }
}

/// The S-boxes of a round.
#[expect(
    clippy::needless_range_loop,
    reason = "one loop over neighbouring words of all planes becomes vectors"
)]
fn substitute(x: &mut Word) {
    for lane in 0..LANES {
        let output = sbox::circuit([
            x[0][lane], x[1][lane], x[2][lane], x[3][lane], x[4][lane], x[5][lane], x[6][lane], x[7][lane],
        ]);
        for bit in 0..8 {
            x[bit][lane] = output[bit];
        }
    }
}

/// The counter blocks as planes: three words are the same in all blocks, the last is added to in planes.
fn counters(counter: &Block) -> [Word; 4] {
    let mut x = [[[0; LANES]; 8]; 4];
    for (place, byte) in counter.iter().enumerate() {
        let lanes = place % 4 * WORDS..(place % 4 + 1) * WORDS;
        for (bit, planes) in x[place / 4].iter_mut().enumerate() {
            planes[lanes.clone()].fill(0u64.wrapping_sub(u64::from(byte >> bit & 1)));
        }
    }
    // Block `i` adds `i`: a ripple-carry adder of one bit of all blocks at a time.
    let mut carry = [0; WORDS];
    for bit in 0..32 {
        let sum = &mut x[3][bit % 8][(3 - bit / 8) * WORDS..];
        for word in 0..WORDS {
            let (a, b) = (sum[word], number(bit, word));
            sum[word] = a ^ b ^ carry[word];
            carry[word] = a & b | carry[word] & (a ^ b);
        }
    }
    x
}

/// Bit `bit` of the numbers of the 64 blocks of one word of a plane.
fn number(bit: usize, word: usize) -> u64 {
    const IN_WORD: [u64; 6] = [
        0xaaaa_aaaa_aaaa_aaaa,
        0xcccc_cccc_cccc_cccc,
        0xf0f0_f0f0_f0f0_f0f0,
        0xff00_ff00_ff00_ff00,
        0xffff_0000_ffff_0000,
        0xffff_ffff_0000_0000,
    ];
    match IN_WORD.get(bit) {
        Some(number) => *number,
        None => 0u64.wrapping_sub((word >> (bit - 6) & 1) as u64),
    }
}

/// The blocks of the planes, words in reverse as the last step of SM4 has it.
fn blocks(x: &[Word; 4]) -> [Block; BLOCKS] {
    let mut out = [[0; 16]; BLOCKS];
    for word in 0..WORDS {
        for (half, [high, low]) in [[3, 2], [1, 0]].into_iter().enumerate() {
            let mut rows: [u64; 64] = std::array::from_fn(|n| {
                let from = if n < 32 { &x[low] } else { &x[high] };
                from[n % 8][(3 - n % 32 / 8) * WORDS + word]
            });
            transpose(&mut rows);
            for (block, row) in out[64 * word..].iter_mut().zip(rows) {
                block[8 * half..8 * half + 8].copy_from_slice(&row.to_be_bytes());
            }
        }
    }
    out
}

/// Transposes 64 x 64 bits: bit `i` of row `n` becomes bit `n` of row `i`.
fn transpose(rows: &mut [u64; 64]) {
    swap::<32>(rows, 0x0000_0000_ffff_ffff);
    swap::<16>(rows, 0x0000_ffff_0000_ffff);
    swap::<8>(rows, 0x00ff_00ff_00ff_00ff);
    swap::<4>(rows, 0x0f0f_0f0f_0f0f_0f0f);
    swap::<2>(rows, 0x3333_3333_3333_3333);
    swap::<1>(rows, 0x5555_5555_5555_5555);
}

/// Exchanges the upper half of each `2 SIDE` bits in the first `SIDE` rows with the lower half in the next.
fn swap<const SIDE: usize>(rows: &mut [u64; 64], mask: u64) {
    for square in rows.chunks_exact_mut(2 * SIDE) {
        let (upper, lower) = square.split_at_mut(SIDE);
        for (a, b) in upper.iter_mut().zip(lower) {
            let change = (*a >> SIDE ^ *b) & mask;
            *b ^= change;
            *a ^= change << SIDE;
        }
    }
}
