//! The error of this crate and of the crates above it, up to the command line: what the caller can do, what failed,
//! where, why, and a hint for the person who reads it.
//!
//! Cheap to clone, because one failed read may have many waiters.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It may work if tried again: interrupted, busy, timed out.
    Retry,
    /// There is no such file, key, data set or block.
    Missing,
    /// The bytes are not what was written: damaged, cut short, moved, rolled back or forged.
    Corrupt,
    /// No space, memory or slots left.
    Full,
    /// The caller asked for something that makes no sense; the request must change.
    Misuse,
    /// Right in principle, but not with this version, kernel or machine.
    Unsupported,
    /// Permissions or a read-only file system stand in the way.
    Denied,
    /// A device failed to read or write.
    Device,
    /// The store or engine is shutting down.
    Closed,
    /// The user asked to stop.
    Interrupted,
}

/// Where it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file or directory.
    pub path: PathBuf,
    /// Block number and its kind, for sealed files.
    pub block: Option<(&'static str, u64)>,
    /// Offset in the file, in bytes.
    pub offset: Option<u64>,
    /// Length from there, in bytes.
    pub len: Option<u64>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    op: &'static str,
    place: Option<Place>,
    why: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// An error with its kind, operation, place and source.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

/// Result of this crate and those above it.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error while doing `op` ("open", "read", ...), for the reason `why`: lower case, no full stop, found and
    /// expected where they are known.
    pub fn new(kind: ErrorKind, op: &'static str, why: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, op, place: None, why: why.into(), hint: None, source: None }))
    }

    /// An operating-system error while doing `op` on `path`.
    #[must_use]
    pub fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::Missing,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            Io::Interrupted | Io::WouldBlock | Io::TimedOut | Io::ResourceBusy => ErrorKind::Retry,
            Io::InvalidInput | Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists => ErrorKind::Misuse,
            Io::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Device,
        };
        let why = source.to_string();
        Self(Arc::new(Inner {
            kind,
            op,
            place: Some(Place { path: path.to_owned(), ..Place::default() }),
            why,
            hint: None,
            source: Some(Box::new(source)),
        }))
    }

    fn edit(self, change: impl FnOnce(&mut Inner)) -> Self {
        // The source is not clonable: an error that is already shared keeps it as text only.
        let mut inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Inner {
            kind: shared.kind,
            op: shared.op,
            place: shared.place.clone(),
            why: shared.why.clone(),
            hint: shared.hint.clone(),
            source: None,
        });
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The same error at `path`.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        self.edit(|inner| inner.place.get_or_insert_default().path = path.to_owned())
    }

    /// The same error at an offset and length of its file.
    #[must_use]
    pub fn at_offset(self, offset: u64, len: u64) -> Self {
        self.edit(|inner| {
            let place = inner.place.get_or_insert_default();
            place.offset = Some(offset);
            place.len = Some(len);
        })
    }

    /// The same error in block `number` of a sealed file; `kind` is "data" or "index".
    #[must_use]
    pub fn at_block(self, kind: &'static str, number: u64) -> Self {
        self.edit(|inner| inner.place.get_or_insert_default().block = Some((kind, number)))
    }

    /// The same error with a next step for the person who reads it. The first hint given stays: it is the closest to
    /// the cause.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        self.edit(|inner| {
            inner.hint.get_or_insert_with(|| hint.into());
        })
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Box::new(source)))
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it happened, if it happened at a place.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The next step for the person who reads it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind == ErrorKind::Retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.0.op)?;
        if let Some(place) = &self.0.place {
            write!(f, " on `{}`", place.path.display())?;
            let mut details = Vec::new();
            if let Some((kind, number)) = place.block {
                details.push(format!("{kind} block {number}"));
            }
            if let Some(offset) = place.offset {
                details.push(format!("offset {offset}"));
            }
            if let Some(len) = place.len {
                details.push(format!("{len} bytes"));
            }
            if !details.is_empty() {
                write!(f, " ({})", details.join(", "))?;
            }
        }
        write!(f, ": {}", self.0.why)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<tierstream_crypto::Error> for Error {
    fn from(error: tierstream_crypto::Error) -> Self {
        use tierstream_crypto::ErrorKind as Crypto;
        let kind = match error.kind() {
            Crypto::Corrupt => ErrorKind::Corrupt,
            Crypto::Missing => ErrorKind::Missing,
            Crypto::Misuse => ErrorKind::Misuse,
            Crypto::Unsupported => ErrorKind::Unsupported,
            Crypto::Entropy => ErrorKind::Device,
        };
        let why = error.to_string();
        Self::new(kind, "open", why).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_where_and_why() {
        let error = Error::new(ErrorKind::Corrupt, "read", "tag mismatch")
            .at(Path::new("/l3/shard-00000.tss"))
            .at_offset(69632, 65536)
            .at_block("data", 1)
            .hint("first")
            .hint("second");
        assert_eq!(
            error.to_string(),
            "read failed on `/l3/shard-00000.tss` (data block 1, offset 69632, 65536 bytes): tag mismatch"
        );
        assert_eq!(error.hint_text(), Some("first"));
        let shared = error.clone();
        assert_eq!(error.hint("third").hint_text(), shared.hint_text());
    }

    #[test]
    fn system_errors_become_kinds() {
        let kind = |code| Error::io("open", Path::new("x"), std::io::Error::from_raw_os_error(code)).kind();
        assert_eq!(kind(libc::ENOENT), ErrorKind::Missing);
        assert_eq!(kind(libc::EROFS), ErrorKind::Denied);
        assert_eq!(kind(libc::EACCES), ErrorKind::Denied);
        assert_eq!(kind(libc::ENOSPC), ErrorKind::Full);
        assert_eq!(kind(libc::EIO), ErrorKind::Device);
        assert_eq!(kind(libc::EINTR), ErrorKind::Retry);
    }
}
