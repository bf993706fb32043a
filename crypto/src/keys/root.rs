//! A named root key, its text form, and the wrapping of data keys under it.

use std::fmt;

use zeroize::Zeroizing;

use super::data_key::random_bytes;
use super::{DataKey, KEK_NAME_BYTES_MAX, KekId, KeyProvider, WrappedKey, misuse, text};
use crate::aead::{Cipher, NONCE_BYTES, Nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::file_keys::expand;
use crate::kernels::aead;

/// Length of a root key in bytes.
pub const ROOT_BYTES: usize = 32;
/// Length of a fingerprint in bytes.
pub const FINGERPRINT_BYTES: usize = 16;
/// Tells keys apart and says nothing about them.
pub type Fingerprint = [u8; FINGERPRINT_BYTES];

const MAGIC: &str = "tierstream-key-v1";
const FIELDS: [&str; 3] = ["name", "version", "root"];

/// A root of 256 bits, from which the key-encryption key of each cipher is derived. Wiped on drop, never printed.
#[derive(Clone)]
pub struct RootKey {
    id: KekId,
    root: Zeroizing<[u8; ROOT_BYTES]>,
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({}, hidden)", self.id)
    }
}

impl RootKey {
    /// A fresh root, version 1, from the kernel's generator.
    ///
    /// # Errors
    /// `Misuse` for a name that is empty, longer than [`KEK_NAME_BYTES_MAX`] or has other characters than
    /// `a-z A-Z 0-9 . _ -`; `Entropy` when the kernel gives no random numbers.
    pub fn random(name: &str) -> Result<Self> {
        Self::random_version(name, 1)
    }

    /// As [`RootKey::random`], with a version from 1.
    ///
    /// # Errors
    /// As [`RootKey::random`]; `Misuse` for version 0.
    pub fn random_version(name: &str, version: u32) -> Result<Self> {
        let mut root = Zeroizing::new([0; ROOT_BYTES]);
        random_bytes(&mut *root)?;
        Self::new(name, version, root)
    }

    pub(super) fn new(name: &str, version: u32, root: Zeroizing<[u8; ROOT_BYTES]>) -> Result<Self> {
        check_name(name)?;
        if version == 0 {
            return Err(misuse("key version 0, expected 1 or more".to_owned()));
        }
        let fingerprint = fingerprint_of(&root);
        Ok(Self { id: KekId { name: name.to_owned(), version, fingerprint }, root })
    }

    pub(super) fn root(&self) -> &[u8; ROOT_BYTES] {
        &self.root
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> &KekId {
        &self.id
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// `Misuse` when it is not one; the message does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        let [name, version, root] = text::fields(text, MAGIC, FIELDS)?;
        Self::new(name, text::number(FIELDS[1], version, 1..=u32::MAX)?, text::bytes(FIELDS[2], root)?)
    }

    /// The text form, for a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(256));
        let head = format!("{MAGIC}\nname: {}\nversion: {}\n", self.id.name, self.id.version);
        text.push_str(&head);
        text::put_bytes(&mut text, FIELDS[2], &*self.root);
        text
    }

    fn kek(&self, cipher: Cipher) -> Zeroizing<Vec<u8>> {
        let mut kek = Zeroizing::new(vec![0; cipher.key_bytes()]);
        expand(cipher, &[], &*self.root, "tierstream v1 kek ", cipher.name().as_bytes(), &mut kek);
        kek
    }
}

impl KeyProvider for RootKey {
    fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        let cipher = key.cipher();
        let mut nonce = [0; NONCE_BYTES];
        random_bytes(&mut nonce)?;
        let mut sealed = key.as_bytes().to_vec();
        let context = wrap_context(&self.id, cipher, context);
        let kek = aead(cipher, &self.kek(cipher))?;
        let tag = kek.seal_in_place(&Nonce::random(nonce), &context, &mut sealed);
        Ok(WrappedKey { kek: self.id.clone(), cipher, nonce, sealed, tag })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        if wrapped.kek.fingerprint != self.id.fingerprint {
            return Err(Error::new(
                ErrorKind::Missing,
                format!(
                    "the data key is wrapped under key {}, but the key given is {}",
                    wrapped.kek, self.id
                ),
            ));
        }
        if wrapped.kek.name.len() > KEK_NAME_BYTES_MAX {
            return Err(misuse(format!("key name of {} bytes", wrapped.kek.name.len())));
        }
        let context = wrap_context(&wrapped.kek, wrapped.cipher, context);
        let mut plain = Zeroizing::new(wrapped.sealed.clone());
        let kek = aead(wrapped.cipher, &self.kek(wrapped.cipher))?;
        kek.open_in_place(&Nonce::random(wrapped.nonce), &context, &mut plain, &wrapped.tag)
            .map_err(|error| Error::new(error.kind(), "the wrapped data key does not open: tag mismatch"))?;
        DataKey::from_bytes(wrapped.cipher, &plain)
    }
}

/// Everything that says which key wrapped what is authenticated with the wrapped key.
fn wrap_context(id: &KekId, cipher: Cipher, context: &[u8]) -> Vec<u8> {
    let mut name = [0; KEK_NAME_BYTES_MAX];
    name[..id.name.len()].copy_from_slice(id.name.as_bytes());
    let name_bytes = u8::try_from(id.name.len()).expect("a name of at most 64 bytes");
    let key_bytes = u8::try_from(cipher.key_bytes()).expect("a key of at most 32 bytes");
    let mut aad = b"tierstream v1 wrap".to_vec();
    aad.extend_from_slice(context);
    aad.extend_from_slice(&[cipher.id(), name_bytes, key_bytes]);
    aad.extend_from_slice(&id.version.to_le_bytes());
    aad.extend_from_slice(&name);
    aad.extend_from_slice(&id.fingerprint);
    aad
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > KEK_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(misuse(format!(
            "key name of {} bytes, expected 1 to {KEK_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -",
            name.len()
        )));
    }
    Ok(())
}

/// Says nothing about the root that made it: a hash with a label of its own.
pub(super) fn fingerprint_of(root: &[u8; ROOT_BYTES]) -> Fingerprint {
    let mut fingerprint = [0; FINGERPRINT_BYTES];
    expand(Cipher::Sm4Gcm, &[], root, "tierstream v1 kek id", &[], &mut fingerprint);
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_comes_back() {
        let key = RootKey::random("team.a-1").unwrap();
        // As it is, on one line as an environment file needs it, and with the line ends of another system.
        for text in
            [key.to_text().to_string(), key.to_text().replace('\n', " "), key.to_text().replace('\n', "\r\n")]
        {
            let again = RootKey::parse(&text).unwrap();
            assert_eq!(again.id(), key.id());
            assert_eq!(*again.root, *key.root);
        }
        assert!(key.to_text().len() < 256 && key.to_text().capacity() == 256);
        assert!(!format!("{key:?}").contains(&key.to_text()[60..70]));
    }

    #[test]
    fn damaged_text_is_refused_without_repeating_it() {
        let text = RootKey::random("k").unwrap().to_text();
        let secret = text.lines().find_map(|line| line.strip_prefix("root: ")).unwrap().to_owned();
        let cases = [
            String::new(),
            text.replace("v1", "v9"),
            text.replace("root: ", "root: z"),
            text.replace("root", "toor"),
            text.replace("name: k", "name: a/b"),
            text.replace("version: 1", "version: 0"),
            text.replace("version: 1\n", ""),
            format!("{}root: {secret}\n", *text),
            text[..text.len() - 4].to_owned(),
            text.replace("name: k", "name k"),
            text.replace("name: k", "name:"),
            text.replace("version: 1", "version: 4294967296"),
            format!("{} {secret}", *text),
            text.replace(&secret, &format!("é{}", &secret[2..])),
        ];
        for case in cases {
            let error = RootKey::parse(&case).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(!error.to_string().contains(&secret[..8]), "{error}");
        }
    }

    #[test]
    fn wrapping_binds_key_name_version_cipher_and_context() {
        let root = RootKey::random("k").unwrap();
        for cipher in Cipher::ALL {
            let key = DataKey::random(cipher).unwrap();
            let wrapped = root.wrap(&key, b"context").unwrap();
            assert_eq!(root.unwrap(&wrapped, b"context").unwrap().as_bytes(), key.as_bytes());
            assert_ne!(wrapped.sealed, key.as_bytes());

            let mut changed = vec![wrapped.clone(); 5];
            changed[0].kek.name = "j".to_owned();
            changed[1].kek.version = 2;
            changed[2].nonce[0] ^= 1;
            changed[3].sealed[3] ^= 1;
            changed[4].tag[15] ^= 1;
            for changed in &changed {
                assert_eq!(root.unwrap(changed, b"context").unwrap_err().kind(), ErrorKind::Corrupt);
            }
            assert_eq!(root.unwrap(&wrapped, b"other").unwrap_err().kind(), ErrorKind::Corrupt);
            let stranger = RootKey::random("k").unwrap();
            assert_eq!(stranger.unwrap(&wrapped, b"context").unwrap_err().kind(), ErrorKind::Missing);
        }
    }

    /// Made with Python's `hashlib` and `cryptography` from the words of docs/specs/format.md, section 4.
    #[test]
    fn fingerprint_and_wraps_are_those_of_the_specification() {
        let root = Zeroizing::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let key = RootKey::new("vector", 7, root).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&key.id().fingerprint), "81a0157a6fa3b8c1c8d08a6dd978884a");
        let cases = [
            (
                Cipher::Sm4Gcm,
                "ac2a4cb016de98f156c13f4f37eab80d",
                "43b445886998d283f032598f9a913bb1",
                "5e07e3554f8800c11af6bcac8c5007d8",
            ),
            (
                Cipher::Aes256Gcm,
                "15a1b3cf40868e094b3592c984d5fd0457fbba656a9a6b61c29e0dffd702fa5f",
                "3fa75bf762d222eba8000e41eeaa9bb3c47ebbcbdf4a03fe87124f9617486827",
                "2e1a29ab56cfd5e6d3f1fe2ceca95242",
            ),
        ];
        for (cipher, kek, sealed, tag) in cases {
            assert_eq!(hex(&key.kek(cipher)), kek);
            let bytes = |text: &str| -> Vec<u8> {
                (0..text.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                    .collect()
            };
            let wrapped = WrappedKey {
                kek: key.id().clone(),
                cipher,
                nonce: std::array::from_fn(|at| u8::try_from(100 + at).unwrap()),
                sealed: bytes(sealed),
                tag: bytes(tag).try_into().unwrap(),
            };
            let data_key = key.unwrap(&wrapped, &[0xa5; 64]).unwrap();
            assert_eq!(data_key.as_bytes(), vec![0x42; cipher.key_bytes()]);
        }
    }
}
