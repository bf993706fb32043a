//! The only module that opens data files: directories on devices, files with O_DIRECT where the file system takes it.
//!
//! Knows where bytes can live and how they must be aligned; not how they move ([`crate::io`]) or what they mean.

mod block;
mod file;
mod file_system;
pub mod fs;
mod handle;
mod plain;

pub use block::{CLAIMED_DATA_OFFSET, Claim, claim};
pub use file::{Access, DeviceFile};
pub use file_system::{DirectIo, FileSystem};
pub use fs::sync_directory;
pub use plain::PlainFile;

use file_system::direct_fits;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// A directory on one file system, with what was learned of that file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file_system: Arc<FileSystem>,
}

impl Directory {
    /// The directory `path`, which must exist.
    ///
    /// # Errors
    /// `Missing` when it does not exist, `Misuse` when it is no directory.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let is_directory = fs::is_directory(path)?
            .ok_or_else(|| Error::io("open", path, std::io::Error::from_raw_os_error(libc::ENOENT)))?;
        if !is_directory {
            return Err(Error::new(ErrorKind::Misuse, "open", "not a directory").at(path));
        }
        Ok(Arc::new(Self { path: path.to_owned(), file_system: Arc::new(FileSystem::default()) }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was learned of the file system it lies on.
    #[must_use]
    pub fn file_system(&self) -> &Arc<FileSystem> {
        &self.file_system
    }

    /// Whether files here are read past the page cache, as far as known.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file_system.takes_direct()
    }

    /// Files that are opened here from now on go through the page cache, as where the file system takes no O_DIRECT.
    pub fn leave_direct(&self, why: &str) {
        self.file_system.refuse_direct(why);
    }

    /// How files here can be read past the page cache, tried with a file of no name.
    ///
    /// # Errors
    /// `Denied` or as open(2) when no file can be made here.
    pub fn probe_direct(&self) -> Result<DirectIo> {
        DirectIo::probe(&self.path)
    }

    /// Bytes that an unprivileged process can still write on this file system.
    ///
    /// # Errors
    /// As statvfs(3).
    pub fn free_bytes(&self) -> Result<u64> {
        fs::free_bytes(&self.path)
    }

    /// Makes names created, renamed or removed in this directory durable (fsync(2) of the directory).
    ///
    /// # Errors
    /// As open(2) and fsync(2).
    pub fn sync(&self) -> Result<()> {
        sync_directory(&self.path)
    }
}

/// Reads the first bytes of the file `path` into `bytes` and returns how many there were.
///
/// # Errors
/// As open(2) and read(2).
#[expect(clippy::disallowed_methods, reason = "this module is the one that opens files")]
pub fn read_prefix(path: &Path, bytes: &mut [u8]) -> Result<usize> {
    use std::io::Read;
    let read = std::fs::File::open(path).and_then(|file| {
        let mut prefix = Vec::with_capacity(bytes.len());
        file.take(crate::units::to_u64(bytes.len())).read_to_end(&mut prefix)?;
        bytes[..prefix.len()].copy_from_slice(&prefix);
        Ok(prefix.len())
    });
    read.map_err(|error| Error::io("read", path, error))
}
