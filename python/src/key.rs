//! Root keys for Python. What a key is made of is never shown: only its text form gives it, and only to a file.

use std::path::PathBuf;

use pyo3::prelude::*;
use tierstream_storage::keys::{
    KeyRing, KeyText, PassphraseCost, PassphraseKey, RootKey, read_key_text, write_key_file,
    write_passphrase_key_file,
};
use tierstream_storage::{Error, ErrorKind};
use zeroize::Zeroizing;

use crate::error::{raise, raised};

/// A root key: opens what was sealed under it. Wiped from memory when it is dropped.
#[pyclass(frozen, module = "tierstream")]
pub(crate) struct Key(RootKey);

/// The ring of these keys: the first seals, all open.
pub(crate) fn ring(keys: &[PyRef<'_, Key>]) -> PyResult<KeyRing> {
    raised(KeyRing::new(keys.iter().map(|key| key.0.clone())).map_err(Error::from))
}

#[pymethods]
impl Key {
    /// A fresh key of 256 bits called `name`, from the kernel's generator.
    #[staticmethod]
    fn generate(name: &str) -> PyResult<Self> {
        Ok(Self(raised(RootKey::random(name).map_err(Error::from))?))
    }

    /// The key in the file at `path`, which only its owner may read; `passphrase` opens one that needs it.
    #[staticmethod]
    #[pyo3(signature = (path, passphrase = None))]
    fn from_file(py: Python<'_>, path: PathBuf, passphrase: Option<String>) -> PyResult<Self> {
        let passphrase = passphrase.map(Zeroizing::new);
        Ok(Self(raised(
            py.detach(|| open(read_key_text(&path)?, passphrase).map_err(|error| error.at(&path))),
        )?))
    }

    /// The key whose text form is `text`: for keys from a variable or a key-management service.
    #[staticmethod]
    #[pyo3(signature = (text, passphrase = None))]
    fn from_text(py: Python<'_>, text: String, passphrase: Option<String>) -> PyResult<Self> {
        let (text, passphrase) = (Zeroizing::new(text), passphrase.map(Zeroizing::new));
        Ok(Self(raised(py.detach(|| open(KeyText::parse(&text)?, passphrase)))?))
    }

    /// Writes the key to a new file that only its owner may read, under `passphrase` if one is given.
    #[pyo3(signature = (path, passphrase = None))]
    fn save(&self, py: Python<'_>, path: PathBuf, passphrase: Option<String>) -> PyResult<()> {
        let passphrase = passphrase.map(Zeroizing::new);
        raised(py.detach(|| match passphrase {
            None => write_key_file(&path, &self.0),
            Some(words) => {
                let sealed = PassphraseKey::seal(&self.0, words.as_bytes(), PassphraseCost::default())?;
                write_passphrase_key_file(&path, &sealed)
            }
        }))
    }

    /// Name, version and fingerprint; says nothing of the key itself.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn __repr__(&self) -> String {
        format!("tierstream.Key({}, hidden)", self.0.id())
    }

    /// Refused: a key must not travel in a pickle.
    fn __reduce__(&self) -> PyResult<()> {
        let why = "a key is not put into a pickle, where others could read it";
        Err(raise(Error::new(ErrorKind::Misuse, "pickle", why).hint(
            "give Dataset the key's file, env:NAME or cmd:COMMAND: worker processes open it themselves",
        )))
    }
}

fn open(text: KeyText, passphrase: Option<Zeroizing<String>>) -> Result<RootKey, Error> {
    match (text, passphrase) {
        (KeyText::Root(key), _) => Ok(key),
        (KeyText::Passphrase(key), Some(words)) => Ok(key.open(words.as_bytes())?),
        (KeyText::Passphrase(key), None) => {
            let why = format!("key {} needs a passphrase", key.id());
            Err(Error::new(ErrorKind::Misuse, "open key", why)
                .hint("use Key.from_file(path, passphrase=...)"))
        }
    }
}
