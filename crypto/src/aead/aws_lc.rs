//! AES-256-GCM by AWS-LC (`aws-lc-rs`): assembly for each generation of x86 and ARM, chosen at run time.
//!
//! Why this engine: docs/design/0004-crypto.md. It may leave plaintext in the destination when a tag is wrong, which is
//! wiped here. It wipes its keys itself.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as EngineNonce, UnboundKey};

use super::{Aead, Cipher, Nonce, TAG_BYTES, Tag, wiped};
use crate::error::Result;

/// The name in reports and options.
pub(crate) const NAME: &str = "aes-aws-lc";

/// A message is shorter than 64 GiB and its buffers are of one length.
const ACCEPTED: &str = "a message that AES-256-GCM takes";

/// AES-256-GCM under one key.
pub(crate) struct Aes256Gcm {
    // "Less safe" because it leaves nonces to its caller, as `Aead` does.
    key: LessSafeKey,
}

impl Aes256Gcm {
    /// Expands `key`, whose length the caller checked.
    pub(crate) fn new(key: &[u8]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of the cipher's length");
        Self { key: LessSafeKey::new(key) }
    }
}

impl fmt::Debug for Aes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aes256Gcm(key hidden)")
    }
}

fn engine_nonce(nonce: &Nonce) -> EngineNonce {
    EngineNonce::assume_unique_for_key(*nonce.as_bytes())
}

impl Aead for Aes256Gcm {
    fn cipher(&self) -> Cipher {
        Cipher::Aes256Gcm
    }

    fn kernel(&self) -> &'static str {
        NAME
    }

    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag {
        let sealed = self.key.seal_in_place_separate_tag(engine_nonce(nonce), Aad::from(aad), body);
        sealed.expect(ACCEPTED).as_ref().try_into().expect("a tag of 16 bytes")
    }

    fn seal_into(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], sealed: &mut [u8]) -> Tag {
        let mut tag = [0; TAG_BYTES];
        let done = self.key.seal_out_of_place_scatter(
            engine_nonce(nonce),
            Aad::from(aad),
            plain,
            sealed,
            &[],
            &mut tag,
        );
        done.expect(ACCEPTED);
        tag
    }

    fn open_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<()> {
        let opened =
            self.key.open_in_place_separate_tag(engine_nonce(nonce), Aad::from(aad), tag, &mut *body);
        if opened.is_ok() { Ok(()) } else { Err(wiped(body)) }
    }

    fn open_into(&self, nonce: &Nonce, aad: &[u8], sealed: &[u8], plain: &mut [u8], tag: &Tag) -> Result<()> {
        assert_eq!(sealed.len(), plain.len(), "two buffers of the same length");
        let opened =
            self.key.open_separate_gather(engine_nonce(nonce), Aad::from(aad), sealed, tag, &mut *plain);
        if opened.is_ok() { Ok(()) } else { Err(wiped(plain)) }
    }
}
