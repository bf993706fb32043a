//! The kernel's page cache, emptied of what is to be read from the device.

use std::path::Path;

use rustix::fs::{Advice, Mode, OFlags};

use crate::{Error, Result};

/// Asks the kernel to drop what it caches of the files in `directory`. Dirty pages cannot be dropped: they go first.
///
/// # Errors
/// As the file system says.
pub(crate) fn forget_in(directory: &Path) -> Result<()> {
    let entries = std::fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let forgotten =
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|file| {
                rustix::fs::fdatasync(&file)?;
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)
            });
        forgotten.map_err(|error| Error::io("forget pages", &path, error.into()))?;
    }
    Ok(())
}
