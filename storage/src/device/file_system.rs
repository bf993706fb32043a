//! What a file system takes, learned once and kept: O_DIRECT with its alignment, and reads that leave the page cache.
//!
//! A refusal is latched, so that the answer cannot differ between two files of one directory, and told: `doctor` and
//! the log say that I/O goes through the page cache and why.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::units::ALIGN_BYTES;

/// What was learned of one file system.
#[derive(Debug, Default)]
pub struct FileSystem {
    direct_refused: OnceLock<String>,
    uncached_refused: AtomicBool,
}

impl FileSystem {
    /// Whether files are opened with O_DIRECT, as far as known.
    #[must_use]
    pub fn takes_direct(&self) -> bool {
        self.direct_refused.get().is_none()
    }

    /// Why files are opened without O_DIRECT; none where they are opened with it.
    #[must_use]
    pub fn direct_refusal(&self) -> Option<&str> {
        self.direct_refused.get().map(String::as_str)
    }

    /// Whether buffered I/O may ask to leave nothing in the page cache, as far as known (RWF_DONTCACHE, Linux 6.14; not
    /// on tmpfs).
    #[must_use]
    pub fn takes_uncached(&self) -> bool {
        !self.uncached_refused.load(Ordering::Relaxed)
    }

    pub(super) fn refuse_direct(&self, why: &str) {
        if self.direct_refused.set(why.to_owned()).is_ok() {
            tracing::info!(why, "no O_DIRECT here: I/O goes through the page cache");
        }
    }

    pub(crate) fn refuse_uncached(&self) {
        self.uncached_refused.store(true, Ordering::Relaxed);
    }
}

/// How O_DIRECT works in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// Works, with these alignments in bytes where the file system tells them (statx(2) STATX_DIOALIGN, Linux 6.1).
    Works {
        /// Of addresses in memory and of offsets and lengths in the file.
        align: Option<(u32, u32)>,
    },
    /// Does not, for this reason.
    Refused(String),
}

impl DirectIo {
    /// Tries O_DIRECT in the directory `path` with a file of no name; where the file system does not tell its alignment,
    /// by writing one unit.
    pub(super) fn probe(path: &Path) -> Result<Self> {
        use std::os::unix::fs::{FileExt, OpenOptionsExt};
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_DIRECT);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                return Ok(Self::Refused(format!("open with O_DIRECT: {error}")));
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        if let Some((memory, offset)) = alignment(&file) {
            let what = format!("addresses aligned to {memory}, offsets to {offset} bytes");
            return Ok(match direct_fits(&file) {
                Some(false) => Self::Refused(format!("it takes {what}, more than our {ALIGN_BYTES}")),
                _ => Self::Works { align: Some((memory, offset)) },
            });
        }
        let unit = crate::buf::HostMemory::anonymous(ALIGN_BYTES)?;
        match file.write_at(unit.as_slice(), 0) {
            Ok(_) => Ok(Self::Works { align: None }),
            Err(error) => Ok(Self::Refused(format!("write of {ALIGN_BYTES} bytes with O_DIRECT: {error}"))),
        }
    }
}

/// Alignments of memory and of offsets, as statx(2) STATX_DIOALIGN says; zeros where O_DIRECT does not work. `None`
/// where the file system does not say (tmpfs, older kernels).
fn alignment(file: &File) -> Option<(u32, u32)> {
    // Not named in rustix yet: linux/stat.h, since Linux 6.1.
    const STATX_DIOALIGN: u32 = 0x2000;
    let flags = rustix::fs::StatxFlags::from_bits_retain(STATX_DIOALIGN);
    let stat = rustix::fs::statx(file, "", rustix::fs::AtFlags::EMPTY_PATH, flags).ok()?;
    (stat.stx_mask & STATX_DIOALIGN != 0).then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// Whether addresses, offsets and lengths of [`ALIGN_BYTES`] satisfy O_DIRECT on `file`. `None` where the file system
/// does not say.
pub(super) fn direct_fits(file: &File) -> Option<bool> {
    let fits = |align: u32| align != 0 && ALIGN_BYTES.is_multiple_of(align as usize);
    alignment(file).map(|(memory, offset)| fits(memory) && fits(offset))
}
