//! The only module that opens data files: directories on devices, files with O_DIRECT where the file system takes it.
//!
//! Knows where bytes can live and how they must be aligned; not how they move ([`crate::io`]) or what they mean.

mod block;
mod file;
pub mod fs;
mod handle;
mod plain;

pub use block::{CLAIMED_DATA_OFFSET, Claim, claim};
pub use file::{Access, DeviceFile};
pub use fs::sync_directory;
pub use plain::PlainFile;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::units::ALIGN_BYTES;

/// A directory on one file system, with what was learned of that file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Once the file system refused O_DIRECT it is not asked again, so that the answer cannot differ between files.
    direct_refused: AtomicBool,
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
        Ok(Arc::new(Self { path: path.to_owned(), direct_refused: AtomicBool::new(false) }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether files here are read past the page cache, as far as known.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        !self.direct_refused.load(Ordering::Relaxed)
    }

    fn refuse_direct(&self, why: &str) {
        if !self.direct_refused.swap(true, Ordering::Relaxed) {
            tracing::info!(directory = %self.path.display(), why, "no O_DIRECT here: I/O goes through the page cache");
        }
    }

    /// Whether a file here can be read past the page cache, tried with a file of no name.
    ///
    /// # Errors
    /// `Denied` or as open(2) when no file can be made here.
    pub fn probe_direct(&self) -> Result<bool> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_DIRECT);
        match options.open(&self.path) {
            Ok(file) => Ok(direct_fits(&file).unwrap_or(true)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
            Err(error) => Err(Error::io("open", &self.path, error)),
        }
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

/// Whether offsets and lengths of [`ALIGN_BYTES`] satisfy O_DIRECT on `file`, as statx(2) STATX_DIOALIGN says.
/// `None` where the file system does not say (tmpfs, older kernels).
fn direct_fits(file: &std::fs::File) -> Option<bool> {
    // Not named in rustix yet: linux/stat.h, since Linux 6.1.
    const STATX_DIOALIGN: u32 = 0x2000;
    let flags = rustix::fs::StatxFlags::from_bits_retain(STATX_DIOALIGN);
    let stat = rustix::fs::statx(file, "", rustix::fs::AtFlags::EMPTY_PATH, flags).ok()?;
    if stat.stx_mask & STATX_DIOALIGN == 0 {
        return None;
    }
    let fits = |align: u32| align != 0 && ALIGN_BYTES.is_multiple_of(align as usize);
    Some(fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align))
}
