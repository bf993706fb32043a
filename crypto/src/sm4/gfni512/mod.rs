#![expect(
    unsafe_code,
    reason = "calls into code compiled for AVX-512 and GFNI, which the constructor checks for"
)]
//! SM4 on AVX-512 and GFNI: 128 blocks at once, one byte position of 64 blocks in a register, GHASH in the same pass.
//!
//! Bytes are kept in the basis of [`super::basis`], in which GFNI's inversion is SM4's S-box but for an affine map
//! behind it. The linear layer turns a word by 2, 10, 18 and 24 bits and sums up. Call the S-box outputs of a word s_0 to
//! s_3, first the highest, and their sum p. Byte j of the result is s_j + s_(j+3) + (p + s_(j+3)) << 2 + (p + s_j) >> 6,
//! which is
//!
//! ```text
//! rot2(p) + a_j + b_(j+3)   with   a = s + (s >> 6)   and   b = s + (s << 2)
//! ```
//!
//! and rot2(p) is the sum of all a_j + b_j, since a + b = rot2(s). So where a word X is kept in its V form, V_j = X_j +
//! sum(X), which is its own inverse, the sum drops out: the new word is V_j + a_j + b_(j+3), and a and b come out of one
//! inversion with a matrix behind it each. The input of an S-box is an X again: the sum of the other three bytes of the
//! V form of the three words and the round key.
//!
//! `rounds` has the passes, `lone` the one block that masks the tag; here messages are cut into passes. Opening hashes
//! the ciphertext of the pass under way; sealing hashes that of the pass before, and the last by itself.
//! docs/design/0004-crypto.md has what was tried and measured.

mod bytes;
mod keys;
mod lone;
mod rounds;

use aes_gcm::aead::inout::InOutBuf;

use self::keys::{Keys, Message};
use self::lone::Lone;
use self::rounds::{GROUP_BYTES, GROUPS, State};
use super::{Block, RoundKeys, Sm4Kernel};
use crate::aead::ghash::Ghash;
use crate::aead::ghash::wide::{Products, WideGhash};
use crate::detect::{CpuFeatures, cpu_features};

/// Bytes of one pass.
const PASS_BYTES: usize = GROUPS * GROUP_BYTES;
/// Blocks of one pass.
const BLOCKS: u32 = 128;

/// Its constructor is the only way to one, and checks that this CPU runs all the code of this module.
pub(crate) struct Gfni512 {
    keys: Keys,
}

impl Sm4Kernel for Gfni512 {
    const NAME: &'static str = "sm4-avx512-gfni";

    fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx512 && cpu.vbmi && cpu.gfni && cpu.vpclmulqdq
    }

    fn new(keys: &RoundKeys) -> Self {
        assert!(Self::is_supported(&cpu_features()), "{} on a CPU without it", Self::NAME);
        // SAFETY: this CPU has the features that the code was compiled for.
        let keys = unsafe { Keys::new(keys) };
        Self { keys }
    }

    fn encrypt_block(&self, block: Block) -> Block {
        // SAFETY: `new` checked the features.
        unsafe { encrypt_block(&self.keys, &block) }
    }

    fn ctr(&self, counter: &Block, data: InOutBuf<'_, '_, u8>) {
        // SAFETY: `new` checked the features.
        unsafe { ctr(&self.keys, counter, data) }
    }

    fn seal(&self, j0: &Block, ghash: &mut Ghash<'_>, data: InOutBuf<'_, '_, u8>) -> Block {
        match ghash {
            // SAFETY: `new` checked the features.
            Ghash::Wide(ghash) => unsafe { seal(&self.keys, j0, ghash, data) },
            other => super::seal_in_two_passes(self, j0, other, data),
        }
    }

    fn open(&self, j0: &Block, ghash: &mut Ghash<'_>, data: InOutBuf<'_, '_, u8>) -> Block {
        match ghash {
            // SAFETY: `new` checked the features.
            Ghash::Wide(ghash) => unsafe { open(&self.keys, j0, ghash, data) },
            other => super::open_in_two_passes(self, j0, other, data),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
fn encrypt_block(keys: &Keys, block: &Block) -> Block {
    let mut lone = Lone::new(keys, block);
    keys.steps.iter().for_each(|step| lone.round(*step));
    lone.finish()
}

/// A message on its way through the kernel.
struct Stream<'k> {
    keys: &'k Keys,
    message: Message,
    /// Of the next pass.
    counter: u32,
    state: State,
    /// The block that masks the tag.
    lone: Lone,
    /// Whether it still waits for a pass to go along with.
    lone_waits: bool,
}

impl<'k> Stream<'k> {
    /// A key stream alone.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    fn new(keys: &'k Keys, counter: &Block) -> Self {
        let message = Message::new(keys, counter);
        let counter_word = u32::from_be_bytes(*counter.last_chunk().expect("16 bytes"));
        let (state, lone) = (State::new(), Lone::new(keys, counter));
        Self { keys, message, counter: counter_word, state, lone, lone_waits: false }
    }

    /// GCM's: the block `j0` for the tag, then those after it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    fn gcm(keys: &'k Keys, j0: &Block) -> Self {
        let mut stream = Self::new(keys, j0);
        stream.counter = stream.counter.wrapping_add(1);
        stream.lone_waits = true;
        stream
    }

    /// Makes the key stream of the next pass, and hashes `batch` meanwhile.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn encrypt_and_hash(&mut self, batch: &[u8; PASS_BYTES], ghash: &mut WideGhash<'_>) {
        let mut products = ghash.batch(batch);
        if std::mem::take(&mut self.lone_waits) {
            self.rounds::<true, true>(&mut products);
        } else {
            self.rounds::<true, false>(&mut products);
        }
        ghash.finish_batch(products);
    }

    /// Makes the key stream of the next pass.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn encrypt(&mut self) {
        let mut products = Products::idle();
        if std::mem::take(&mut self.lone_waits) {
            self.rounds::<false, true>(&mut products);
        } else {
            self.rounds::<false, false>(&mut products);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn rounds<const HASH: bool, const LONE: bool>(&mut self, products: &mut Products<'_>) {
        self.state.encrypt::<HASH, LONE>(self.keys, &self.message, self.counter, products, &mut self.lone);
        self.counter = self.counter.wrapping_add(BLOCKS);
    }

    /// Adds the key stream of the pass to its bytes, of which the last pass has less.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    fn apply(&self, mut data: InOutBuf<'_, '_, u8>) {
        for group in 0..GROUPS {
            let length = data.len().min(GROUP_BYTES);
            let (mut bytes, rest) = data.split_at(length);
            data = rest;
            if length == GROUP_BYTES {
                self.state.apply(group, bytes);
            } else if length > 0 {
                let mut padded = [0; GROUP_BYTES];
                padded[..length].copy_from_slice(bytes.get_in());
                self.state.apply(group, padded.as_mut_slice().into());
                bytes.get_out().copy_from_slice(&padded[..length]);
            }
        }
    }

    /// The encrypted block that masks the tag.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    fn mask(mut self) -> Block {
        if self.lone_waits {
            self.keys.steps.iter().for_each(|step| self.lone.round(*step));
        }
        self.lone.finish()
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn ctr(keys: &Keys, counter: &Block, mut data: InOutBuf<'_, '_, u8>) {
    let mut stream = Stream::new(keys, counter);
    while !data.is_empty() {
        let (pass, rest) = cut(data);
        stream.encrypt();
        stream.apply(pass);
        data = rest;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn open(keys: &Keys, j0: &Block, ghash: &mut WideGhash<'_>, mut data: InOutBuf<'_, '_, u8>) -> Block {
    let mut stream = Stream::gcm(keys, j0);
    while !data.is_empty() {
        let (pass, rest) = cut(data);
        match pass.get_in().try_into() {
            Ok(batch) => stream.encrypt_and_hash(batch, ghash),
            Err(_) => {
                ghash.update(pass.get_in());
                stream.encrypt();
            }
        }
        stream.apply(pass);
        data = rest;
    }
    stream.mask()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn seal(keys: &Keys, j0: &Block, ghash: &mut WideGhash<'_>, data: InOutBuf<'_, '_, u8>) -> Block {
    let mut stream = Stream::gcm(keys, j0);
    let (mut pass, mut rest) = cut(data);
    if !pass.is_empty() {
        stream.encrypt();
        stream.apply(pass.reborrow());
    }
    while !rest.is_empty() {
        // Only the last pass is shorter than a batch, and nothing follows it.
        let batch = pass.get_out().first_chunk().expect("a pass that another follows");
        stream.encrypt_and_hash(batch, ghash);
        (pass, rest) = cut(rest);
        stream.apply(pass.reborrow());
    }
    ghash.update(pass.get_out());
    stream.mask()
}

/// The bytes of a pass, and the others.
fn cut<'i, 'o>(data: InOutBuf<'i, 'o, u8>) -> (InOutBuf<'i, 'o, u8>, InOutBuf<'i, 'o, u8>) {
    let length = data.len().min(PASS_BYTES);
    data.split_at(length)
}
