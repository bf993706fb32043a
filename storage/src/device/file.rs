//! One open data file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind as Io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::Handle;
use super::{Directory, FileSystem, direct_fits};
use crate::error::{Error, Result};
use crate::units::to_u64;

/// Since Linux 6.14, not named in rustix yet: linux/fs.h.
const RWF_DONTCACHE: u32 = 0x80;

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
pub struct DeviceFile {
    file: Handle,
    path: PathBuf,
    direct: bool,
    file_system: Arc<FileSystem>,
    order: u64,
    // Run when the file is closed: an engine that keeps a reference of its own in the kernel lets go of it.
    closing: Mutex<Vec<ClosingHook>>,
}

/// What is told that a file is no longer used by anybody.
pub(crate) type ClosingHook = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for DeviceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceFile({}, direct: {})", self.path.display(), self.direct)
    }
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
            return Ok(Arc::new(Self::new(Handle::Simulated(file), path, directory.is_direct(), directory)));
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
        Ok(Arc::new(Self::new(Handle::System(file), path, direct, directory)))
    }

    fn new(file: Handle, path: PathBuf, direct: bool, directory: &Directory) -> Self {
        let file_system = Arc::clone(directory.file_system());
        let order = file.order();
        Self { file, path, direct, file_system, order, closing: Mutex::default() }
    }

    /// Orders files of a device about as their bytes lie there, and in the same way in each run of a simulation. Two
    /// files of different file systems can have the same number.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.order
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

    /// Tells it from other files that have or had its name, as long as somebody has it open.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn version(&self) -> Result<String> {
        self.file.version().map_err(|error| Error::io("stat", &self.path, error))
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

    /// What was learned of the file system it lies on.
    #[must_use]
    pub fn file_system(&self) -> &Arc<FileSystem> {
        &self.file_system
    }

    /// Flags of preadv2(2) for the engines: what goes through the page cache leaves it at once, where that works.
    pub(crate) fn rw_flags(&self) -> u32 {
        if self.direct || !self.file_system.takes_uncached() { 0 } else { RWF_DONTCACHE }
    }

    /// Runs `hook` when nobody has this file any more, before it is closed.
    pub(crate) fn when_closing(&self, hook: ClosingHook) {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    /// `preadv2(2)` for the engines.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let flags = self.rw_flags();
        match self.file.read_at(buf, offset, flags) {
            Err(error) if flags != 0 && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.file_system.refuse_uncached();
                self.file.read_at(buf, offset, 0)
            }
            result => result,
        }
    }

    /// `pwritev2(2)` for the engines.
    pub(crate) fn write_at(&self, buf: &[u8], offset: u64) -> std::io::Result<usize> {
        let flags = self.rw_flags();
        match self.file.write_at(buf, offset, flags) {
            Err(error) if flags != 0 && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.file_system.refuse_uncached();
                self.file.write_at(buf, offset, 0)
            }
            result => result,
        }
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

impl Drop for DeviceFile {
    fn drop(&mut self) {
        let hooks = self.closing.get_mut().unwrap_or_else(PoisonError::into_inner);
        hooks.drain(..).for_each(|hook| hook());
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
        Ok(file) if !direct_fits(&file).unwrap_or_else(|| reads_direct(&file)) => {
            directory.file_system().refuse_direct("its alignment is not 4096 bytes or less");
            let mut plain = options.clone();
            // The file was just created by us: open what is there.
            plain.create_new(false);
            Ok((open(path, &plain)?, false))
        }
        Ok(file) => Ok((file, true)),
        Err(error) if matches!(error.kind(), Io::InvalidInput | Io::Unsupported) => {
            directory.file_system().refuse_direct("the file system refused O_DIRECT");
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

/// Whether a direct read passes; the file system does not tell its alignment. An empty file says nothing and passes.
fn reads_direct(file: &File) -> bool {
    let Ok(mut unit) = crate::buf::HostMemory::anonymous(crate::units::ALIGN_BYTES) else { return true };
    let read = std::os::unix::fs::FileExt::read_at(file, unit.as_mut_slice(), 0);
    !matches!(read, Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM)))
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
