//! What can go wrong while training, told as what the caller can do about it.

use std::fmt;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The call or the configuration is wrong: change it.
    Misuse,
    /// The loss or the gradients left the finite numbers: lower the learning rate or look at the data.
    Diverged,
    /// This machine or this backend cannot do it: choose another.
    Unsupported,
    /// Bytes that should describe something do not: get them again.
    Corrupt,
}

/// An error of this crate: a kind to act on, a sentence to read, and often a hint to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message: lower case, no full stop, found and expected where they are known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same error with something the reader can try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the reader can try, if anything is known. The caller prints it below the message.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for tierstream_storage::Error {
    fn from(error: Error) -> Self {
        use tierstream_storage::ErrorKind as Kind;
        let kind = match error.kind() {
            // A run that diverged needs other settings, as one with wrong ones does.
            ErrorKind::Misuse | ErrorKind::Diverged => Kind::Misuse,
            ErrorKind::Unsupported => Kind::Unsupported,
            ErrorKind::Corrupt => Kind::Corrupt,
        };
        let lifted = Self::new(kind, "train", error.to_string());
        match error.hint() {
            Some(hint) => lifted.hint(hint.to_owned()).caused_by(error),
            None => lifted.caused_by(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_kept_apart_from_the_message() {
        let error = Error::new(ErrorKind::Misuse, "heads is 0").with_hint("use 4");
        assert_eq!(error.to_string(), "heads is 0");
        assert_eq!(error.hint(), Some("use 4"));
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
}
