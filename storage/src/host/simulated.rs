//! The interface of a simulated host, and which one a thread belongs to.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A machine of its own for the threads that entered it: one processor, a clock, files, random numbers.
pub trait SimulatedHost: Send + Sync + fmt::Debug {
    /// Time since the host was started.
    fn now(&self) -> Duration;

    /// Lets another thread run, if the host's seed says so.
    fn yield_now(&self);

    /// Stops the calling thread until `key` is rung or `deadline` passes.
    fn wait(&self, key: usize, deadline: Option<Duration>);

    /// Makes the threads that wait for `key` ready to run. The caller runs on.
    fn ring(&self, key: usize);

    /// A new thread of the host, which does not run before [`SimulatedHost::begin`]. Returns its number.
    fn add_thread(&self, name: &str) -> usize;

    /// Called by the new thread itself: returns when it is its turn for the first time.
    fn begin(&self, thread: usize);

    /// Called by a thread as the last thing it does.
    fn end(&self, thread: usize);

    /// Fills `bytes` by the host's seed.
    fn random_bytes(&self, bytes: &mut [u8]);

    /// What a store on it is to do wrong.
    fn mistake(&self) -> Option<super::Mistake>;

    /// Its files.
    fn files(&self) -> &dyn SimulatedFiles;
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in its directory.
    pub name: std::ffi::OsString,
    /// Whether it is a directory itself.
    pub is_directory: bool,
}

/// The files of a simulated host: as POSIX says, errors included.
pub trait SimulatedFiles: fmt::Debug {
    /// open(2) of a file; with `create` an existing one is an error, and without `write` it is only read.
    ///
    /// # Errors
    /// As the system call.
    fn open(&self, path: &Path, create: bool, write: bool) -> io::Result<Arc<dyn SimulatedFile>>;
    /// mkdir(2).
    ///
    /// # Errors
    /// As the system call.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// unlink(2).
    ///
    /// # Errors
    /// As the system call.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// rmdir(2).
    ///
    /// # Errors
    /// As the system call.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// rename(2), or an exchange of the two as renameat2(2) does. Without `replace` what is at `to` stays, as an error.
    ///
    /// # Errors
    /// As the system call.
    fn rename(&self, from: &Path, to: &Path, replace: bool, exchange: bool) -> io::Result<()>;
    /// readdir(3), in the order of names.
    ///
    /// # Errors
    /// As the system call.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// stat(2): whether there is something and whether it is a directory.
    ///
    /// # Errors
    /// As the system call.
    fn is_directory(&self, path: &Path) -> io::Result<bool>;
    /// fsync(2) of a directory.
    ///
    /// # Errors
    /// As the system call.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// statvfs(3): bytes that can still be written.
    ///
    /// # Errors
    /// As the system call.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// flock(2) of a directory or file, exclusive and without waiting; dropping the answer unlocks it.
    ///
    /// # Errors
    /// As the system call.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file of a simulated host.
pub trait SimulatedFile: Send + Sync + fmt::Debug {
    /// fstat(2), the length alone.
    ///
    /// # Errors
    /// As the system call.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As the system call.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Tells it from every other file there is or was.
    ///
    /// # Errors
    /// As fstat(2).
    fn version(&self) -> io::Result<String>;
    /// Its inode's number.
    fn order(&self) -> u64;
    /// ftruncate(2).
    ///
    /// # Errors
    /// As the system call.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// fallocate(2) of the first `len` bytes.
    ///
    /// # Errors
    /// As the system call.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// pread(2).
    ///
    /// # Errors
    /// As the system call.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// pwrite(2).
    ///
    /// # Errors
    /// As the system call.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// fdatasync(2).
    ///
    /// # Errors
    /// As the system call.
    fn sync(&self) -> io::Result<()>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn SimulatedHost>>> = const { RefCell::new(None) };
}

/// The simulated host of this thread, if it belongs to one.
#[must_use]
pub fn current() -> Option<Arc<dyn SimulatedHost>> {
    // A thread that is ending has no thread-local values any more, and waits for nobody.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Makes this thread one of `host`, or of the real machine, and returns what it belonged to.
pub fn enter(host: Option<Arc<dyn SimulatedHost>>) -> Option<Arc<dyn SimulatedHost>> {
    CURRENT.with(|current| current.replace(host))
}
