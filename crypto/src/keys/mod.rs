//! The key hierarchy: a root key gives key-encryption keys, which wrap one data key per file.
//!
//! Where roots come from is the caller's business ([`KeyProvider`]); this module never reads a file or a variable.

mod data_key;
mod passphrase;
mod ring;
mod root;
mod text;

pub use data_key::{DataKey, random_bytes};
pub use passphrase::{PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN, PassphraseCost, PassphraseKey};
pub use ring::KeyRing;
pub use root::{FINGERPRINT_BYTES, Fingerprint, ROOT_BYTES, RootKey};
pub use text::KEY_TEXT_BYTES_MAX;

use std::fmt;

use crate::aead::{Cipher, NONCE_BYTES, TAG_BYTES};
use crate::error::{Error, ErrorKind, Result};

/// The longest name of a key-encryption key, in bytes.
pub const KEK_NAME_BYTES_MAX: usize = 64;

/// Which key-encryption key wrapped a data key.
#[derive(Clone, PartialEq, Eq)]
pub struct KekId {
    /// The name people gave the key: `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Raised at each rotation under the same name.
    pub version: u32,
    /// Tells one key from another of the same name, and says nothing about the key.
    pub fingerprint: Fingerprint,
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` version {} (", self.name, self.version)?;
        for byte in &self.fingerprint[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A data key sealed under a key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key opens it.
    pub kek: KekId,
    /// The cipher of the wrapping, and of the data key inside.
    pub cipher: Cipher,
    /// Drawn at random for this wrapping.
    pub nonce: [u8; NONCE_BYTES],
    /// The data key's ciphertext: [`Cipher::key_bytes`] bytes.
    pub sealed: Vec<u8>,
    /// Its tag.
    pub tag: [u8; TAG_BYTES],
}

/// Wraps and unwraps data keys. Implemented by [`RootKey`] and [`KeyRing`]; a key-management service can take their place.
pub trait KeyProvider: Send + Sync + fmt::Debug {
    /// Wraps `key` under the current key-encryption key. `context` is authenticated with it and must be given again to
    /// unwrap.
    ///
    /// # Errors
    /// `Entropy` when no nonce can be drawn; what the service says where there is one.
    fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey>;

    /// Unwraps a data key.
    ///
    /// # Errors
    /// `Missing` when the key it was wrapped under is not at hand; `Corrupt` when it does not open.
    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<DataKey>;
}

/// What the text of a key holds.
#[derive(Clone, Debug)]
pub enum KeyText {
    /// The key itself.
    Root(RootKey),
    /// A key that opens with a passphrase.
    Passphrase(PassphraseKey),
}

impl KeyText {
    /// Reads either form.
    ///
    /// # Errors
    /// As [`RootKey::parse`] and [`PassphraseKey::parse`].
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_ascii_whitespace().next() {
            Some(word) if word.starts_with("tierstream-passphrase-key") => {
                PassphraseKey::parse(text).map(Self::Passphrase)
            }
            _ => RootKey::parse(text).map(Self::Root),
        }
    }

    /// Which key it is; no secret.
    #[must_use]
    pub fn id(&self) -> &KekId {
        match self {
            Self::Root(key) => key.id(),
            Self::Passphrase(key) => key.id(),
        }
    }
}

fn misuse(message: String) -> Error {
    Error::new(ErrorKind::Misuse, message)
}
