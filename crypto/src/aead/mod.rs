//! One interface for all authenticated ciphers: seal and open, in place or from one buffer to another.
//!
//! Guarantees that `open` shows no plaintext before the tag was verified, and that on failure the destination is
//! zero. Knows nothing of where nonces come from but their form: see [`Nonce::block`].

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod aws_lc;
mod gcm;
pub(crate) mod ghash;
pub(crate) mod rustcrypto;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::sm4::Sm4Kernel;

/// Length of a nonce in bytes (96 bits, as SP 800-38D recommends).
pub const NONCE_BYTES: usize = 12;
/// Length of an authentication tag in bytes.
pub const TAG_BYTES: usize = 16;

/// A GCM authentication tag.
pub type Tag = [u8; TAG_BYTES];

/// An authenticated cipher of the sealed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// SM4 (GB/T 32907-2016) in Galois/counter mode (RFC 8998), 128-bit key.
    Sm4Gcm,
    /// AES-256 (FIPS 197) in Galois/counter mode (SP 800-38D), 256-bit key.
    Aes256Gcm,
    /// No encryption: the bytes stay readable and are authenticated with SM4-GMAC (SP 800-38D over SM4), 128-bit key.
    /// Its [`aead`](crate::aead()) is SM4-GCM; whoever uses it gives all bytes as AAD and an empty body.
    AuthOnly,
}

impl Cipher {
    /// All ciphers that encrypt, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Sm4Gcm, Self::Aes256Gcm];
    /// All that a header can name.
    const KNOWN: [Self; 3] = [Self::Sm4Gcm, Self::Aes256Gcm, Self::AuthOnly];

    /// The cipher whose kernels do its work.
    pub(crate) fn engine(self) -> Self {
        if self == Self::AuthOnly { Self::Sm4Gcm } else { self }
    }

    /// Whether what it seals can be read only with the key.
    #[must_use]
    pub fn encrypts(self) -> bool {
        self != Self::AuthOnly
    }

    /// Key length in bytes.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Sm4Gcm | Self::AuthOnly => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// The number in file headers.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Sm4Gcm => 1,
            Self::Aes256Gcm => 2,
            Self::AuthOnly => 3,
        }
    }

    /// The cipher of a file header's number, if it is one.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::KNOWN.into_iter().find(|cipher| cipher.id() == id)
    }

    /// The name in options, reports and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm4Gcm => "sm4-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::AuthOnly => "none",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cipher {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::KNOWN.into_iter().find(|cipher| cipher.name() == text).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("unknown cipher `{text}`, expected `sm4-gcm`, `aes-256-gcm` or `none`"),
            )
        })
    }
}

/// A 96-bit nonce. The two constructors are the only ways to make one, so that their uniqueness can be argued from
/// their call sites (docs/specs/format.md, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// The nonce of block `number` of `kind` under a key that seals each such block once:
    /// `kind` then `number`, big endian.
    #[must_use]
    pub fn block(kind: u32, number: u64) -> Self {
        let mut bytes = [0; NONCE_BYTES];
        bytes[..4].copy_from_slice(&kind.to_be_bytes());
        bytes[4..].copy_from_slice(&number.to_be_bytes());
        Self(bytes)
    }

    /// A nonce drawn at random, or read back from where a random one was stored. For at most 2^32 uses of a key
    /// (SP 800-38D, 8.3).
    #[must_use]
    pub fn random(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes as they enter the cipher.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }
}

/// An authenticated cipher under one key.
///
/// A message has at most 2^36 - 32 bytes (SP 800-38D); a longer one panics. All implementations give the same bytes for the same key, nonce, AAD and message; the conformance tests in this
/// module run on each of them.
pub trait Aead: Send + Sync + fmt::Debug {
    /// Which cipher this is.
    fn cipher(&self) -> Cipher;

    /// The name of the code that does the work, for reports.
    fn kernel(&self) -> &'static str;

    /// Replaces `body` by its ciphertext of the same length and returns the tag.
    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag;

    /// Writes the ciphertext of `plain` to `sealed` and returns the tag. `plain` is not changed, so that sealing can be
    /// the copy into an I/O buffer.
    ///
    /// # Panics
    /// When the two lengths differ.
    fn seal_into(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], sealed: &mut [u8]) -> Tag;

    /// Verifies `tag`, then replaces `body` by its plaintext of the same length.
    ///
    /// # Errors
    /// `Corrupt` when the tag does not match; `body` is then zero.
    fn open_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<()>;

    /// Verifies `tag` over `sealed`, then writes the plaintext to `plain`. `sealed` is not changed, so that the
    /// ciphertext can still be kept in a cache.
    ///
    /// # Errors
    /// `Corrupt` when the tag does not match; `plain` is then zero.
    ///
    /// # Panics
    /// When the two lengths differ.
    fn open_into(&self, nonce: &Nonce, aad: &[u8], sealed: &[u8], plain: &mut [u8], tag: &Tag) -> Result<()>;
}

/// The error of a wrong tag, with the destination wiped.
fn wiped(body: &mut [u8]) -> Error {
    body.fill(0);
    Error::new(ErrorKind::Corrupt, "tag mismatch")
}

/// SM4-GCM on kernel `K`, for a key whose length was checked.
pub(crate) fn sm4_gcm<K: Sm4Kernel + 'static>(key: &[u8]) -> Box<dyn Aead> {
    Box::new(gcm::Sm4Gcm::<K>::new(key.try_into().expect("a key of 16 bytes")))
}

#[cfg(test)]
mod tests;
