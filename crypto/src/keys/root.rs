//! A named root key and its text form, the contents of a key file.

use std::fmt;

use zeroize::Zeroizing;

use super::data_key::random_bytes;
use super::{DataKey, KEK_NAME_BYTES_MAX, KekId, KeyProvider, WrappedKey};
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

const MAGIC_LINE: &str = "tierstream-key-v1";

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
        let mut root = Zeroizing::new([0; ROOT_BYTES]);
        random_bytes(&mut *root)?;
        Self::new(name, 1, root)
    }

    fn new(name: &str, version: u32, root: Zeroizing<[u8; ROOT_BYTES]>) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > KEK_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(misuse(format!(
                "key name of {} bytes, expected 1 to {KEK_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -",
                name.len()
            )));
        }
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        expand(Cipher::Sm4Gcm, &[], &*root, "tierstream v1 kek id", &[], &mut fingerprint);
        Ok(Self { id: KekId { name: name.to_owned(), version, fingerprint }, root })
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
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some(MAGIC_LINE) {
            return Err(misuse(format!("not a key file: the first line is not `{MAGIC_LINE}`")));
        }
        let (mut name, mut version, mut root) = (None, None, None);
        for (number, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = number + 2;
            let (field, value) =
                line.split_once(':').ok_or_else(|| misuse(format!("line {number} is not `field: value`")))?;
            let value = value.trim();
            let fresh = match field.trim() {
                "name" => name.replace(value).is_none(),
                "version" => {
                    let parsed =
                        value.parse::<u32>().ok().filter(|version| *version > 0).ok_or_else(|| {
                            misuse(format!("line {number}: the version is not a positive number"))
                        })?;
                    version.replace(parsed).is_none()
                }
                "root" => root.replace(parse_hex(value, number)?).is_none(),
                _ => {
                    return Err(misuse(format!(
                        "line {number}: unknown field, expected name, version, root"
                    )));
                }
            };
            if !fresh {
                return Err(misuse(format!("line {number} repeats a field")));
            }
        }
        match (name, version, root) {
            (Some(name), Some(version), Some(root)) => Self::new(name, version, root),
            _ => Err(misuse("a field is missing, expected name, version, root".to_owned())),
        }
    }

    /// The text form, for a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str(MAGIC_LINE);
        text.push_str("\nname: ");
        text.push_str(&self.id.name);
        text.push_str(&format!("\nversion: {}\nroot: ", self.id.version));
        for byte in &*self.root {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).expect("a hexadecimal digit"));
            }
        }
        text.push('\n');
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

fn parse_hex(text: &str, line: usize) -> Result<Zeroizing<[u8; ROOT_BYTES]>> {
    let bad = || misuse(format!("line {line}: the root is not {} hexadecimal digits", ROOT_BYTES * 2));
    if text.len() != ROOT_BYTES * 2 || !text.is_ascii() {
        return Err(bad());
    }
    let mut root = Zeroizing::new([0; ROOT_BYTES]);
    for (byte, pair) in root.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(root)
}

fn misuse(message: String) -> Error {
    Error::new(ErrorKind::Misuse, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_comes_back() {
        let key = RootKey::random("team.a-1").unwrap();
        let again = RootKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(*again.root, *key.root);
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
}
