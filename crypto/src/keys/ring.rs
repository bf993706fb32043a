//! Several root keys at once: the first wraps, all unwrap. So an old key stays readable while a new one takes over.

use super::{DataKey, KekId, KeyProvider, RootKey, WrappedKey, misuse};
use crate::error::{Error, ErrorKind, Result};

/// At least one root key.
#[derive(Clone, Debug)]
pub struct KeyRing(Vec<RootKey>);

impl KeyRing {
    /// A ring of these keys; one that is given twice counts once.
    ///
    /// # Errors
    /// `Misuse` without any.
    pub fn new(keys: impl IntoIterator<Item = RootKey>) -> Result<Self> {
        let mut ring: Vec<RootKey> = Vec::new();
        for key in keys {
            if ring.iter().all(|known| known.id().fingerprint != key.id().fingerprint) {
                ring.push(key);
            }
        }
        if ring.is_empty() { Err(misuse("no key was given".to_owned())) } else { Ok(Self(ring)) }
    }

    /// The key that wraps.
    #[must_use]
    pub fn first(&self) -> &RootKey {
        &self.0[0]
    }

    /// Which keys these are.
    pub fn ids(&self) -> impl Iterator<Item = &KekId> {
        self.0.iter().map(RootKey::id)
    }
}

impl KeyProvider for KeyRing {
    fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        self.first().wrap(key, context)
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        let fits = |key: &&RootKey| key.id().fingerprint == wrapped.kek.fingerprint;
        match self.0.iter().find(fits) {
            Some(key) => key.unwrap(wrapped, context),
            None if self.0.len() == 1 => self.first().unwrap(wrapped, context),
            None => {
                let given: Vec<String> = self.ids().map(ToString::to_string).collect();
                let why = format!(
                    "the data key is wrapped under key {}, but the keys given are {}",
                    wrapped.kek,
                    given.join(", ")
                );
                Err(Error::new(ErrorKind::Missing, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Cipher;

    #[test]
    fn the_first_key_wraps_and_all_unwrap() {
        let [old, new, other] = ["k", "k", "other"].map(|name| RootKey::random(name).unwrap());
        let key = DataKey::random(Cipher::Sm4Gcm).unwrap();
        let under_old = old.wrap(&key, b"context").unwrap();
        let ring = KeyRing::new([new.clone(), old.clone(), new.clone()]).unwrap();
        assert_eq!(ring.ids().count(), 2);
        let under_new = ring.wrap(&key, b"context").unwrap();
        assert_eq!(under_new.kek, *new.id());
        for wrapped in [&under_old, &under_new] {
            assert_eq!(ring.unwrap(wrapped, b"context").unwrap().as_bytes(), key.as_bytes());
        }
        assert_eq!(old.unwrap(&under_new, b"context").unwrap_err().kind(), ErrorKind::Missing);

        let strange = other.wrap(&key, b"context").unwrap();
        let error = ring.unwrap(&strange, b"context").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
        for id in [other.id(), new.id(), old.id()] {
            assert!(error.to_string().contains(&id.to_string()), "{error}");
        }
        assert!(KeyRing::new([]).is_err());
    }
}
