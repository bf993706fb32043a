//! Files that are not ours: input to be imported, read through the page cache.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// A regular file of somebody else's, open to be read, as long as it was when it was opened.
#[derive(Debug)]
pub struct PlainFile {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl PlainFile {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// As open(2); `Misuse` when it is a directory, a pipe or a device.
    #[expect(clippy::disallowed_methods, reason = "this module is the one that opens files")]
    pub fn open(path: &Path) -> Result<Self> {
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let before = std::fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
        if !before.is_file() {
            return Err(Error::new(ErrorKind::Misuse, "open", "not a regular file").at(path));
        }
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let bytes = file.metadata().map_err(|error| Error::io("stat", path, error))?.len();
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `to` from `offset` on.
    ///
    /// # Errors
    /// As pread(2); `Corrupt` when the file has become shorter.
    pub fn read_exact_at(&self, to: &mut [u8], offset: u64) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, to, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                return Error::new(
                    ErrorKind::Corrupt,
                    "read",
                    "the file has become shorter while it was read",
                )
                .at(&self.path);
            }
            Error::io("read", &self.path, error)
        })
    }
}
