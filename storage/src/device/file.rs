//! One open data file.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind as Io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::handle::Handle;
use super::{Directory, direct_fits};
use crate::error::{Error, Result};
use crate::units::to_u64;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read what is there.
    Read,
    /// To read and write what is there.
    ReadWrite,
    /// To create; an existing file is an error. The file is readable and writable by its owner and group alone.
    CreateNew,
}

/// An open file of a [`Directory`], with O_DIRECT where the file system takes it.
#[derive(Debug)]
pub struct DeviceFile {
    file: Handle,
    path: PathBuf,
    direct: bool,
}

impl DeviceFile {
    /// Opens `name` in `directory`.
    ///
    /// # Errors
    /// As open(2): `Missing`, `Denied`, `Full`, `Misuse` when it exists but should not.
    pub fn open(directory: &Directory, name: &str, access: Access) -> Result<Arc<Self>> {
        let path = directory.path().join(name);
        #[cfg(any(test, feature = "testing"))]
        if let Some(host) = crate::host::current() {
            let (create, write) = (access == Access::CreateNew, access != Access::Read);
            let file = host.files().open(&path, create, write);
            let file = file.map_err(|error| Error::io("open", &path, error))?;
            return Ok(Arc::new(Self { file: Handle::Simulated(file), path, direct: directory.is_direct() }));
        }
        let mut options = OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::ReadWrite => options.read(true).write(true),
            Access::CreateNew => options.read(true).write(true).create_new(true).mode(0o640),
        };
        let (file, direct) = if directory.is_direct() {
            open_direct(directory, &path, &options, access)?
        } else {
            (open(&path, &options)?, false)
        };
        Ok(Arc::new(Self { file: Handle::System(file), path, direct }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether reads and writes go past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn size_bytes(&self) -> Result<u64> {
        self.file.size_bytes().map_err(|error| Error::io("stat", &self.path, error))
    }

    /// Reserves `bytes` on the device, so that a later write in that range cannot run out of space. Does nothing where
    /// the file system cannot.
    ///
    /// # Errors
    /// `Full` when there is no room.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let failed = |error| Error::io("reserve", &self.path, error).at_offset(0, bytes);
        self.file.reserve(bytes).map_err(failed)
    }

    /// `pread(2)` for the engines.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// `pwrite(2)` for the engines.
    pub(crate) fn write_at(&self, buf: &[u8], offset: u64) -> std::io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    /// `fdatasync(2)` for the engines.
    pub(crate) fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.file().as_raw_fd()
    }

    /// An error while doing `op` on this file.
    #[must_use]
    pub fn error(&self, op: &'static str, source: std::io::Error, offset: u64, len: usize) -> Error {
        Error::io(op, &self.path, source).at_offset(offset, to_u64(len))
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.file().as_fd()
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<File> {
    options.open(path).map_err(|error| Error::io("open", path, error))
}

fn open_direct(
    directory: &Directory,
    path: &Path,
    options: &OpenOptions,
    access: Access,
) -> Result<(File, bool)> {
    let mut direct = options.clone();
    direct.custom_flags(libc::O_DIRECT);
    match direct.open(path) {
        Ok(file) if direct_fits(&file) == Some(false) => {
            directory.refuse_direct("its blocks are larger than 4096 bytes");
            let mut plain = options.clone();
            // The file was just created by us: open what is there.
            plain.create_new(false);
            Ok((open(path, &plain)?, false))
        }
        Ok(file) => Ok((file, true)),
        Err(error) if matches!(error.kind(), Io::InvalidInput | Io::Unsupported) => {
            directory.refuse_direct("the file system refused O_DIRECT");
            let mut plain = options.clone();
            if access == Access::CreateNew && path.exists() {
                // Some file systems create the name before they refuse the flag.
                plain.create_new(false);
            }
            Ok((open(path, &plain)?, false))
        }
        Err(error) => Err(Error::io("open", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn create_write_read_and_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let file = DeviceFile::open(&directory, "a", Access::CreateNew).unwrap();
        file.reserve(8192).unwrap();
        let again = DeviceFile::open(&directory, "a", Access::CreateNew).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Misuse);
        assert_eq!(DeviceFile::open(&directory, "b", Access::Read).unwrap_err().kind(), ErrorKind::Missing);
        assert_eq!(Directory::open(&dir.path().join("a")).unwrap_err().kind(), ErrorKind::Misuse);
        assert_eq!(Directory::open(&dir.path().join("c")).unwrap_err().kind(), ErrorKind::Missing);
        assert!(directory.free_bytes().unwrap() > 0);
    }
}
