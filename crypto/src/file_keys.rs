//! The keys of one sealed file, derived from its data key: block cipher, header MAC, commitment
//! (docs/specs/format.md, section 3).
//!
//! The commitment closes a gap of GCM, which does not bind a ciphertext to one key: a reader compares it before it
//! uses any derived key.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::aead::{Aead, Cipher};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::aead;
use crate::keys::DataKey;
use crate::sm4::Sm4Schedule;

/// Length of a header MAC in bytes.
pub const MAC_BYTES: usize = 32;
/// Length of a key commitment in bytes.
pub const COMMITMENT_BYTES: usize = 32;

/// What a file's data key unfolds to. Dropped, it leaves no key behind.
pub struct FileKeys {
    block: Box<dyn Aead>,
    block_key: Zeroizing<Vec<u8>>,
    mac: Zeroizing<[u8; MAC_BYTES]>,
    commitment: [u8; COMMITMENT_BYTES],
    cipher: Cipher,
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKeys({}, keys hidden)", self.cipher)
    }
}

impl FileKeys {
    /// Derives the keys of the file `file_id` whose immutable parameters are `prologue`.
    #[must_use]
    pub fn derive(key: &DataKey, file_id: &[u8], prologue: &[u8]) -> Self {
        let cipher = key.cipher();
        let expand =
            |label: &str, out: &mut [u8]| expand(cipher, file_id, key.as_bytes(), label, prologue, out);
        let mut block = Zeroizing::new(vec![0; cipher.key_bytes()]);
        expand("tierstream v1 block", &mut block);
        let mut mac = Zeroizing::new([0; MAC_BYTES]);
        expand("tierstream v1 header", &mut *mac);
        let mut commitment = [0; COMMITMENT_BYTES];
        expand("tierstream v1 commit", &mut commitment);
        let (block, block_key) = (aead(cipher, &block).expect("a derived key of the cipher's length"), block);
        Self { block, block_key, mac, commitment, cipher }
    }

    /// The cipher of the file's blocks, under the file's own key.
    #[must_use]
    pub fn block_cipher(&self) -> &dyn Aead {
        &*self.block
    }

    /// The expanded key of the file's blocks, for a device that opens them itself; none for ciphers that none does.
    #[must_use]
    pub fn device_schedule(&self) -> Option<Sm4Schedule> {
        let key = (self.cipher == Cipher::Sm4Gcm).then(|| self.block_key.as_slice().try_into().ok())?;
        key.map(Sm4Schedule::expand)
    }

    /// The commitment to write into the header.
    #[must_use]
    pub fn commitment(&self) -> &[u8; COMMITMENT_BYTES] {
        &self.commitment
    }

    /// Compares a header's commitment with this key's, in constant time.
    ///
    /// # Errors
    /// `Corrupt` when they differ.
    pub fn check_commitment(&self, found: &[u8; COMMITMENT_BYTES]) -> Result<()> {
        same(&self.commitment, found, "key commitment mismatch")
    }

    /// The MAC over `header`.
    #[must_use]
    pub fn mac(&self, header: &[u8]) -> [u8; MAC_BYTES] {
        match self.cipher {
            Cipher::Sm4Gcm | Cipher::AuthOnly => hmac_of::<Hmac<sm3::Sm3>>(&*self.mac, header),
            Cipher::Aes256Gcm => hmac_of::<Hmac<sha2::Sha256>>(&*self.mac, header),
        }
    }

    /// Compares a header's MAC with the right one, in constant time.
    ///
    /// # Errors
    /// `Corrupt` when they differ.
    pub fn check_mac(&self, header: &[u8], found: &[u8; MAC_BYTES]) -> Result<()> {
        same(&self.mac(header), found, "header MAC mismatch")
    }
}

fn same(expected: &[u8], found: &[u8], message: &str) -> Result<()> {
    if bool::from(expected.ct_eq(found)) { Ok(()) } else { Err(Error::new(ErrorKind::Corrupt, message)) }
}

fn hmac_of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    let bytes = mac.finalize().into_bytes();
    bytes.as_slice().try_into().expect("a hash of 256 bits")
}

/// HKDF (RFC 5869) under SM3 for SM4 and SHA-256 for AES, so that a suite stays within one standard family.
pub(crate) fn expand(cipher: Cipher, salt: &[u8], ikm: &[u8], label: &str, context: &[u8], out: &mut [u8]) {
    let info = [label.as_bytes(), context];
    let expanded = match cipher {
        Cipher::Sm4Gcm | Cipher::AuthOnly => {
            Hkdf::<sm3::Sm3>::new(Some(salt), ikm).expand_multi_info(&info, out)
        }
        Cipher::Aes256Gcm => Hkdf::<sha2::Sha256>::new(Some(salt), ikm).expand_multi_info(&info, out),
    };
    expanded.expect("an output of at most 255 hashes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cipher: Cipher, file_id: &[u8], prologue: &[u8]) -> FileKeys {
        let key = DataKey::from_bytes(cipher, &vec![7; cipher.key_bytes()]).unwrap();
        FileKeys::derive(&key, file_id, prologue)
    }

    #[test]
    fn hkdf_and_hmac_match_published_vectors() {
        // RFC 5869, test case 1.
        let ikm = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let mut okm = [0; 42];
        expand(Cipher::Aes256Gcm, &salt, &ikm, "", &info, &mut okm);
        assert_eq!(okm[..8], [0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a]);
        assert_eq!(okm[38..], [0x87, 0x18, 0x58, 0x65][..]);
        // RFC 4231, test case 2.
        let mac = hmac_of::<Hmac<sha2::Sha256>>(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }

    #[test]
    fn every_input_changes_every_key() {
        for cipher in Cipher::ALL {
            let base = keys(cipher, b"id", b"prologue");
            for other in [keys(cipher, b"ie", b"prologue"), keys(cipher, b"id", b"prologuf")] {
                assert!(other.check_commitment(base.commitment()).is_err());
                assert!(other.check_mac(b"header", &base.mac(b"header")).is_err());
                assert_ne!(other.mac[..], base.mac[..]);
            }
            let same = keys(cipher, b"id", b"prologue");
            same.check_commitment(base.commitment()).unwrap();
            same.check_mac(b"header", &base.mac(b"header")).unwrap();
            assert!(same.check_mac(b"headeR", &base.mac(b"header")).is_err());
        }
    }
}
