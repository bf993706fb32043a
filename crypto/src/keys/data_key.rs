//! A data key: drawn for one write of one file, never used for another.

use std::fmt;

use zeroize::Zeroizing;

use crate::aead::Cipher;
use crate::error::{Error, ErrorKind, Result};

/// The key of one file, bound to one cipher. Wiped on drop, never printed.
#[derive(Clone)]
pub struct DataKey {
    cipher: Cipher,
    bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, hidden)", self.cipher)
    }
}

impl DataKey {
    /// A fresh key from the kernel's generator.
    ///
    /// # Errors
    /// `Entropy` when it gives none.
    pub fn random(cipher: Cipher) -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; cipher.key_bytes()]);
        random_bytes(&mut bytes)?;
        Ok(Self { cipher, bytes })
    }

    /// A key from its bytes.
    ///
    /// # Errors
    /// `Misuse` when there are not [`Cipher::key_bytes`] of them.
    pub fn from_bytes(cipher: Cipher, bytes: &[u8]) -> Result<Self> {
        if bytes.len() != cipher.key_bytes() {
            return Err(Error::new(
                ErrorKind::Misuse,
                format!("{cipher} data key of {} bytes, expected {}", bytes.len(), cipher.key_bytes()),
            ));
        }
        Ok(Self { cipher, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    /// The cipher it belongs to.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Fills `bytes` with random numbers from the kernel (getrandom(2)): for keys, nonces and names.
///
/// # Errors
/// `Entropy` when it gives none.
pub fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(ErrorKind::Entropy, format!("the kernel gave no random numbers: {error}"))
    })
}
