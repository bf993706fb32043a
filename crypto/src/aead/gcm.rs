//! Galois/counter mode (SP 800-38D) over an SM4 kernel, as RFC 8998 uses it.
//!
//! One pass decrypts into the destination and hashes the source; the destination belongs to this call until it
//! returns, and is zero unless the tag was right.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use subtle::ConstantTimeEq;

use super::ghash::{Ghash, GhashKey};
use super::{Aead, Cipher, Nonce, TAG_BYTES, Tag, wiped};
use crate::error::Result;
use crate::sm4::{BLOCK_BYTES, Block, RoundKeys, Sm4Kernel};

/// SP 800-38D: a message has at most 2^39 - 256 bits.
const BODY_BYTES_MAX: u64 = (1 << 36) - 32;

/// SM4-GCM under one key on kernel `K`.
pub(crate) struct Sm4Gcm<K> {
    cipher: K,
    ghash: GhashKey,
}

impl<K: Sm4Kernel> Sm4Gcm<K> {
    /// Expands a key.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let cipher = K::new(&RoundKeys::expand(key));
        let ghash = K::ghash_key(&cipher.encrypt_block([0; BLOCK_BYTES]));
        Self { cipher, ghash }
    }

    fn start(&self, aad: &[u8], body: &InOutBuf<'_, '_, u8>) -> Ghash<'_> {
        assert!(body.len() as u64 <= BODY_BYTES_MAX, "a message of {} bytes, GCM takes 64 GiB", body.len());
        let mut ghash = self.ghash.start();
        ghash.update(aad);
        ghash
    }

    fn seal(&self, nonce: &Nonce, aad: &[u8], body: InOutBuf<'_, '_, u8>) -> Tag {
        let length = body.len();
        let mut ghash = self.start(aad, &body);
        let mask = self.cipher.seal(&j0(nonce), &mut ghash, body);
        masked(ghash.finish(aad.len(), length), &mask)
    }

    /// Whether the tag is right; if not, the caller wipes the output.
    fn open(&self, nonce: &Nonce, aad: &[u8], body: InOutBuf<'_, '_, u8>, tag: &Tag) -> bool {
        let length = body.len();
        let mut ghash = self.start(aad, &body);
        let mask = self.cipher.open(&j0(nonce), &mut ghash, body);
        masked(ghash.finish(aad.len(), length), &mask).ct_eq(tag).into()
    }
}

/// The block before the first counter, for nonces of 96 bits.
fn j0(nonce: &Nonce) -> Block {
    let mut block = [0; BLOCK_BYTES];
    block[..12].copy_from_slice(nonce.as_bytes());
    block[15] = 1;
    block
}

fn masked(hash: [u8; TAG_BYTES], mask: &Block) -> Tag {
    std::array::from_fn(|i| hash[i] ^ mask[i])
}

impl<K> fmt::Debug for Sm4Gcm<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sm4Gcm(key hidden)")
    }
}

impl<K: Sm4Kernel> Aead for Sm4Gcm<K> {
    fn cipher(&self) -> Cipher {
        Cipher::Sm4Gcm
    }

    fn kernel(&self) -> &'static str {
        K::NAME
    }

    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag {
        self.seal(nonce, aad, body.into())
    }

    fn seal_into(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], sealed: &mut [u8]) -> Tag {
        let buffers = InOutBuf::new(plain, sealed).expect("two buffers of the same length");
        self.seal(nonce, aad, buffers)
    }

    fn open_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<()> {
        if self.open(nonce, aad, (&mut *body).into(), tag) { Ok(()) } else { Err(wiped(body)) }
    }

    fn open_into(&self, nonce: &Nonce, aad: &[u8], sealed: &[u8], plain: &mut [u8], tag: &Tag) -> Result<()> {
        let buffers = InOutBuf::new(sealed, &mut *plain).expect("two buffers of the same length");
        if self.open(nonce, aad, buffers, tag) { Ok(()) } else { Err(wiped(plain)) }
    }
}
