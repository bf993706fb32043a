//! What can go wrong with keys and tags. The text never contains key material.

use std::fmt;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes do not carry the tag they claim: damaged, moved or forged.
    Corrupt,
    /// No key of that name, version and fingerprint is at hand.
    Missing,
    /// A key or text of the wrong form.
    Misuse,
    /// An algorithm this version does not know.
    Unsupported,
    /// The system gave no random numbers.
    Entropy,
}

/// An error of this crate: what the caller can do, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message: lower case, no full stop, found and expected where they are known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
