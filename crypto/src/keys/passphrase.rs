//! A root key sealed under a passphrase: Argon2id makes the key that opens it (docs/specs/format.md, section 4.3).
//!
//! Guarantees that a wrong passphrase and a damaged text are told apart, and that a hostile text cannot ask for more
//! memory or time than the limits below.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sm3::Digest;
use zeroize::Zeroizing;

use super::data_key::random_bytes;
use super::root::{check_name, fingerprint_of};
use super::{FINGERPRINT_BYTES, KekId, ROOT_BYTES, RootKey, misuse, text};
use crate::aead::{Cipher, NONCE_BYTES, Nonce, TAG_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::aead;

/// Shortest passphrase for a new key; an attacker who has the file can try passphrases at leisure.
pub const PASSPHRASE_BYTES_MIN: usize = 8;
/// Longest passphrase.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

const MAGIC: &str = "tierstream-passphrase-key-v1";
const FIELDS: [&str; 12] = [
    "name",
    "version",
    "fingerprint",
    "kdf",
    "memory-kib",
    "passes",
    "lanes",
    "salt",
    "nonce",
    "sealed",
    "tag",
    "check",
];
const KDF: &str = "argon2id";
const SALT_BYTES: usize = 16;
const CHECK_BYTES: usize = 8;
/// GCM and its key length of 32 bytes, which is what Argon2id is asked for.
const CIPHER: Cipher = Cipher::Aes256Gcm;

/// What a guess of the passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB, from 8 MiB to 1 GiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes that could be filled in parallel.
    pub lanes: u32,
}

impl Default for PassphraseCost {
    /// RFC 9106, section 4, second recommended option: where 2 GiB are not to be had everywhere.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl PassphraseCost {
    /// The least that is accepted; for tests.
    pub const LEAST: Self = Self { memory_kib: 8 << 10, passes: 1, lanes: 1 };

    fn parse(memory: &str, passes: &str, lanes: &str) -> Result<Self> {
        Ok(Self {
            memory_kib: text::number(FIELDS[4], memory, 8 << 10..=1 << 20)?,
            passes: text::number(FIELDS[5], passes, 1..=64)?,
            lanes: text::number(FIELDS[6], lanes, 1..=16)?,
        })
    }

    fn derive(self, passphrase: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let refused = |error: argon2::Error| misuse(format!("argon2id: {error}"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(refused)?;
        let mut blocks: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
        blocks.try_reserve_exact(params.block_count()).map_err(|_| {
            Error::new(
                ErrorKind::Unsupported,
                format!("no memory: argon2id asks for {} KiB", self.memory_kib),
            )
        })?;
        blocks.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, salt, &mut *key, blocks.as_mut_slice())
            .map_err(refused)?;
        Ok(key)
    }
}

/// A root key that opens with a passphrase. What it shows is no secret.
#[derive(Clone)]
pub struct PassphraseKey {
    id: KekId,
    cost: PassphraseCost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    sealed: [u8; ROOT_BYTES],
    tag: [u8; TAG_BYTES],
}

impl fmt::Debug for PassphraseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassphraseKey({}, {:?})", self.id, self.cost)
    }
}

impl PassphraseKey {
    /// Seals `key` under `passphrase`.
    ///
    /// # Errors
    /// `Misuse` for a passphrase that is too short or too long, `Entropy` when the kernel gives no random numbers,
    /// `Unsupported` when there is not the memory.
    pub fn seal(key: &RootKey, passphrase: &[u8], cost: PassphraseCost) -> Result<Self> {
        check_length(passphrase, PASSPHRASE_BYTES_MIN)?;
        let mut sealed = Self {
            id: key.id().clone(),
            cost,
            salt: [0; SALT_BYTES],
            nonce: [0; NONCE_BYTES],
            sealed: *key.root(),
            tag: [0; TAG_BYTES],
        };
        random_bytes(&mut sealed.salt)?;
        random_bytes(&mut sealed.nonce)?;
        let wrapping = aead(CIPHER, &*cost.derive(passphrase, &sealed.salt)?)?;
        let head = sealed.head();
        sealed.tag =
            wrapping.seal_in_place(&Nonce::random(sealed.nonce), head.as_bytes(), &mut sealed.sealed);
        Ok(sealed)
    }

    /// Opens it.
    ///
    /// # Errors
    /// `Missing` for a wrong passphrase, `Corrupt` when the root is not the one the text names, `Unsupported` when there
    /// is not the memory.
    pub fn open(&self, passphrase: &[u8]) -> Result<RootKey> {
        check_length(passphrase, 1)?;
        let wrapping = aead(CIPHER, &*self.cost.derive(passphrase, &self.salt)?)?;
        let mut root = Zeroizing::new(self.sealed);
        wrapping
            .open_in_place(&Nonce::random(self.nonce), self.head().as_bytes(), &mut *root, &self.tag)
            .map_err(|_| Error::new(ErrorKind::Missing, format!("wrong passphrase for key {}", self.id)))?;
        if fingerprint_of(&root) != self.id.fingerprint {
            let why = format!("the root inside is not that of key {}", self.id);
            return Err(Error::new(ErrorKind::Corrupt, why));
        }
        RootKey::new(&self.id.name, self.id.version, root)
    }

    /// Which key it holds.
    #[must_use]
    pub fn id(&self) -> &KekId {
        &self.id
    }

    /// What a guess costs.
    #[must_use]
    pub fn cost(&self) -> PassphraseCost {
        self.cost
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// `Misuse` when it is not one, `Corrupt` when it was changed after it was written.
    pub fn parse(text: &str) -> Result<Self> {
        let [name, version, fingerprint, kdf, memory, passes, lanes, salt, nonce, sealed, tag, check] =
            text::fields(text, MAGIC, FIELDS)?;
        if kdf != KDF {
            return Err(Error::new(ErrorKind::Unsupported, format!("the key's kdf is not `{KDF}`")));
        }
        check_name(name)?;
        let key = Self {
            id: KekId {
                name: name.to_owned(),
                version: text::number(FIELDS[1], version, 1..=u32::MAX)?,
                fingerprint: *text::bytes::<FINGERPRINT_BYTES>(FIELDS[2], fingerprint)?,
            },
            cost: PassphraseCost::parse(memory, passes, lanes)?,
            salt: *text::bytes(FIELDS[7], salt)?,
            nonce: *text::bytes(FIELDS[8], nonce)?,
            sealed: *text::bytes(FIELDS[9], sealed)?,
            tag: *text::bytes(FIELDS[10], tag)?,
        };
        if key.check() != *text::bytes::<CHECK_BYTES>(FIELDS[11], check)? {
            return Err(Error::new(ErrorKind::Corrupt, "the key was damaged: its check does not match"));
        }
        Ok(key)
    }

    /// The text form. The passphrase guards it; a file mode should as well.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.body();
        text::put_bytes(&mut text, FIELDS[11], &self.check());
        text
    }

    /// What is authenticated with the root.
    fn head(&self) -> String {
        let Self { id, cost, .. } = self;
        let mut text = format!("{MAGIC}\nname: {}\nversion: {}\n", id.name, id.version);
        text::put_bytes(&mut text, FIELDS[2], &id.fingerprint);
        text += &format!(
            "kdf: {KDF}\nmemory-kib: {}\npasses: {}\nlanes: {}\n",
            cost.memory_kib, cost.passes, cost.lanes
        );
        text::put_bytes(&mut text, FIELDS[7], &self.salt);
        text
    }

    fn body(&self) -> String {
        let mut text = self.head();
        text::put_bytes(&mut text, FIELDS[8], &self.nonce);
        text::put_bytes(&mut text, FIELDS[9], &self.sealed);
        text::put_bytes(&mut text, FIELDS[10], &self.tag);
        text
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let hash = sm3::Sm3::digest(self.body());
        hash.as_slice()[..CHECK_BYTES].try_into().expect("a hash of 32 bytes")
    }
}

fn check_length(passphrase: &[u8], least: usize) -> Result<()> {
    if (least..=PASSPHRASE_BYTES_MAX).contains(&passphrase.len()) {
        return Ok(());
    }
    let len = passphrase.len();
    Err(misuse(format!("a passphrase of {len} bytes, expected {least} to {PASSPHRASE_BYTES_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_with_its_passphrase_alone() {
        let root = RootKey::random("team").unwrap();
        let sealed = PassphraseKey::seal(&root, b"correct horse", PassphraseCost::LEAST).unwrap();
        let text = sealed.to_text();
        let again = PassphraseKey::parse(&text.replace('\n', " ")).unwrap();
        assert_eq!((again.id(), again.cost()), (root.id(), PassphraseCost::LEAST));
        assert_eq!(again.open(b"correct horse").unwrap().root()[..], root.root()[..]);
        for wrong in [&b"correct horsf"[..], b"x"] {
            let error = again.open(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Missing);
            assert!(error.to_string().contains("wrong passphrase") && error.to_string().contains("team"));
        }
        assert!(again.open(b"").is_err() && again.open(&[b'x'; 1025]).is_err());
        let short = PassphraseKey::seal(&root, b"1234567", PassphraseCost::LEAST).unwrap_err();
        assert!(short.to_string().contains("expected 8 to 1024"), "{short}");
        // Neither the text nor Debug shows the root.
        let hex = root.to_text().lines().find_map(|line| line.strip_prefix("root: ")).unwrap().to_owned();
        assert!(!text.contains(&hex) && !format!("{sealed:?}").contains(&hex[..16]));
        // Sealed again, nothing repeats but the key's own id.
        let other = PassphraseKey::seal(&root, b"correct horse", PassphraseCost::LEAST).unwrap();
        assert!(other.salt != sealed.salt && other.nonce != sealed.nonce && other.sealed != sealed.sealed);
    }

    #[test]
    fn damage_is_not_taken_for_a_wrong_passphrase() {
        let root = RootKey::random("team").unwrap();
        let text = PassphraseKey::seal(&root, b"12345678", PassphraseCost::LEAST).unwrap().to_text();
        let mut corrupt = 0;
        for (at, byte) in text.bytes().enumerate() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if byte == b'1' { b'2' } else { b'1' };
            if changed[at] == byte {
                continue;
            }
            let error = PassphraseKey::parse(std::str::from_utf8(&changed).unwrap()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Misuse | ErrorKind::Corrupt | ErrorKind::Unsupported));
            corrupt += usize::from(error.kind() == ErrorKind::Corrupt);
        }
        assert!(corrupt > 200, "{corrupt} changes met the check");
        // Costs beyond the limits are refused before anything is allocated.
        for (from, to) in [
            ("memory-kib: 8192", "memory-kib: 4000000000"),
            ("passes: 1", "passes: 65"),
            ("lanes: 1", "lanes: 17"),
            ("lanes: 1", "lanes: 0"),
            ("kdf: argon2id", "kdf: md5"),
            ("name: team", "name: te/am"),
        ] {
            let error = PassphraseKey::parse(&text.replace(from, to)).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Corrupt, "{to}");
        }
    }

    #[test]
    fn a_text_made_to_open_as_another_key_is_refused() {
        let [a, b] = [1, 2].map(|_| RootKey::random("k").unwrap());
        let mut sealed = PassphraseKey::seal(&a, b"12345678", PassphraseCost::LEAST).unwrap();
        sealed.id.fingerprint = b.id().fingerprint;
        // The fingerprint is authenticated: whoever changes it needs the passphrase.
        assert_eq!(sealed.open(b"12345678").unwrap_err().kind(), ErrorKind::Missing);
        let wrapping = aead(CIPHER, &*sealed.cost.derive(b"12345678", &sealed.salt).unwrap()).unwrap();
        sealed.sealed = *a.root();
        let head = sealed.head();
        sealed.tag =
            wrapping.seal_in_place(&Nonce::random(sealed.nonce), head.as_bytes(), &mut sealed.sealed);
        assert_eq!(sealed.open(b"12345678").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn argon2id_is_the_published_one() {
        // phc-winner-argon2's test.c, and OpenSSL 3.5 gives the same.
        let params = PassphraseCost { memory_kib: 1 << 16, passes: 2, lanes: 1 };
        let key = params.derive(b"password", b"somesalt").unwrap();
        assert_eq!(key[..8], [0x09, 0x31, 0x61, 0x15, 0xd5, 0xcf, 0x24, 0xed]);
        assert_eq!(key[24..], [0x02, 0xb6, 0x56, 0x6f, 0x61, 0x91, 0x3c, 0xf7][..]);
    }
}
