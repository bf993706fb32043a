//! Names on a file system: made, listed, renamed, locked and removed here and nowhere else in this crate, so that a
//! simulated host sees every one of them (see [`crate::host`]).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Error, Result};

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in its directory.
    pub name: OsString,
    /// Whether it is a directory itself.
    pub is_directory: bool,
}

/// Runs `$simulated` with the files of the simulated host that this thread belongs to, else goes on.
macro_rules! simulated {
    ($files:ident => $simulated:expr) => {
        #[cfg(any(test, feature = "testing"))]
        if let Some(host) = crate::host::current() {
            let $files = host.files();
            return $simulated;
        }
    };
}

/// Makes a directory.
///
/// # Errors
/// As mkdir(2); `Misuse` when the name is taken.
pub fn create_directory(path: &Path) -> Result<()> {
    simulated!(files => files.create_directory(path).map_err(|error| Error::io("create", path, error)));
    std::fs::create_dir(path).map_err(|error| Error::io("create", path, error))
}

/// Removes a file.
///
/// # Errors
/// As unlink(2).
pub fn remove_file(path: &Path) -> Result<()> {
    simulated!(files => files.remove_file(path).map_err(|error| Error::io("remove", path, error)));
    std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
}

/// Removes a directory with all it holds.
///
/// # Errors
/// As unlink(2) and rmdir(2).
pub fn remove_directory_all(path: &Path) -> Result<()> {
    simulated!(files => {
        for entry in list(path)? {
            let inner = path.join(entry.name);
            if entry.is_directory { remove_directory_all(&inner)? } else { remove_file(&inner)? }
        }
        files.remove_directory(path).map_err(|error| Error::io("remove", path, error))
    });
    std::fs::remove_dir_all(path).map_err(|error| Error::io("remove", path, error))
}

/// What is in a directory, in no particular order.
///
/// # Errors
/// As opendir(3) and readdir(3).
pub fn list(path: &Path) -> Result<Vec<Entry>> {
    let failed = |error| Error::io("list", path, error);
    simulated!(files => {
        let entries = files.list(path).map_err(failed)?.into_iter();
        Ok(entries.map(|entry| Entry { name: entry.name, is_directory: entry.is_directory }).collect())
    });
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // An entry that went in between is not there.
        let Ok(kind) = entry.file_type() else { continue };
        entries.push(Entry { name: entry.file_name(), is_directory: kind.is_dir() });
    }
    Ok(entries)
}

/// Whether there is something of this name; a symbolic link counts, wherever it leads.
///
/// # Errors
/// As lstat(2), but that nothing is there is none.
pub fn exists(path: &Path) -> Result<bool> {
    simulated!(files => Ok(presence(path, files.is_directory(path))?.is_some()));
    Ok(presence(path, std::fs::symlink_metadata(path))?.is_some())
}

/// Whether there is something of this name, and whether it is a directory. Follows symbolic links.
///
/// # Errors
/// As stat(2), but that nothing is there is none.
pub fn is_directory(path: &Path) -> Result<Option<bool>> {
    simulated!(files => presence(path, files.is_directory(path)));
    Ok(presence(path, std::fs::metadata(path))?.map(|metadata| metadata.is_dir()))
}

fn presence<T>(path: &Path, answer: io::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// Gives `from` the name `to` unless something has it. Returns whether it was free; else all is as before.
///
/// # Errors
/// As renameat2(2).
pub fn rename_to_new(from: &Path, to: &Path) -> Result<bool> {
    simulated!(files => was_free(to, files.rename(from, to, false, false)));
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without the flag: the name was seen to be free a moment ago.
        Err(rustix::io::Errno::INVAL) if !to.exists() => was_free(to, std::fs::rename(from, to)),
        renamed => was_free(to, renamed.map_err(io::Error::from)),
    }
}

fn was_free(to: &Path, renamed: io::Result<()>) -> Result<bool> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty};
    match renamed {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), AlreadyExists | DirectoryNotEmpty) => Ok(false),
        Err(error) => Err(Error::io("rename", to, error)),
    }
}

/// Gives `from` the name `to`; a file of that name is replaced in the same step.
///
/// # Errors
/// As rename(2).
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    simulated!(files => files.rename(from, to, true, false).map_err(|error| Error::io("rename", to, error)));
    std::fs::rename(from, to).map_err(|error| Error::io("rename", to, error))
}

/// Lets two names change places in one step.
///
/// # Errors
/// As renameat2(2) RENAME_EXCHANGE.
pub fn exchange(one: &Path, other: &Path) -> Result<()> {
    let failed = |error| Error::io("exchange", other, error);
    simulated!(files => files.rename(one, other, true, true).map_err(failed));
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|error| failed(error.into()))
}

/// A lock that its owner holds until it is dropped, or dies.
pub struct Lock {
    _held: Box<dyn Send + Sync>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// Locks the directory or file at `path`, so that others know that somebody works with it.
///
/// # Errors
/// `Retry` when another process did, else as open(2) and flock(2).
#[expect(clippy::disallowed_methods, reason = "this module is the one that opens files")]
pub fn lock(path: &Path) -> Result<Lock> {
    let failed = |error| Error::io("lock", path, error);
    simulated!(files => files.lock(path).map(|_held| Lock { _held }).map_err(failed));
    let file = std::fs::File::open(path).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| failed(error.into()))?;
    Ok(Lock { _held: Box::new(file) })
}

/// Bytes that an unprivileged process can still write on the file system of `path`.
///
/// # Errors
/// As statvfs(3).
pub fn free_bytes(path: &Path) -> Result<u64> {
    let failed = |error| Error::io("statvfs", path, error);
    simulated!(files => files.free_bytes(path).map_err(failed));
    let stat = rustix::fs::statvfs(path).map_err(|error| failed(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// fsync(2) of the directory `path`.
///
/// # Errors
/// As open(2) and fsync(2).
#[expect(clippy::disallowed_methods, reason = "this module is the one that opens files")]
pub fn sync_directory(path: &Path) -> Result<()> {
    let failed = |error| Error::io("sync directory", path, error);
    simulated!(files => files.sync_directory(path).map_err(failed));
    std::fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}
