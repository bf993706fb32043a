//! The home of immutable shards: where sealed files live for good, whatever that is made of.
//!
//! [`ShardHome`] asks for no more than an object store gives: a name is published once, whole and durable or not at all,
//! and never changed; ranges of it are read; names are listed and removed. There is no rename, no sync of a directory, no
//! append, no writing to what was published. [`DirectoryHome`] keeps these promises with files, through the engine and
//! the queues of [`crate::io`]; another home has connections and queues of its own. Deliberately knows no sealed format,
//! no keys and no versions of objects: names and bytes alone.

mod directory;

pub use directory::{DirectoryHome, in_place};

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::buf::Slot;
use crate::device::fs::Lock;
use crate::error::Result;
use crate::host::channel::bounded;
use crate::io::{IoService, Priority};

/// Called once when a transfer ended, with its buffer; on any thread, so that it must be quick and must not wait. The
/// buffer is missing only when an engine broke down and kept it.
pub type Transferred = Box<dyn FnOnce(Option<Slot>, Result<()>) + Send>;

/// A range of a file to read.
pub struct RangedRead {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub len: usize,
    /// Takes it, at its start.
    pub buf: Slot,
    /// Names the read to [`IoService::raise`], where that has it.
    pub tag: u64,
    /// How many further numbers behind it do as well.
    pub more_tags: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Within one priority the lowest goes first.
    pub deadline: u64,
    /// What happens afterwards.
    pub done: Transferred,
}

impl fmt::Debug for RangedRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangedRead({} bytes at {}, {:?})", self.len, self.offset, self.priority)
    }
}

/// Where immutable files live.
pub trait ShardHome: Send + Sync + fmt::Debug {
    /// Where it is, for people: the places of its errors begin with it.
    fn location(&self) -> &Path;

    /// Names that were published and not removed, in no particular order.
    ///
    /// # Errors
    /// When they cannot all be told.
    fn list(&self) -> Result<Vec<String>>;

    /// Opens what was published as `name`. What is open stays readable, or fails, when the name is removed and published
    /// anew; it never turns into the new one.
    ///
    /// # Errors
    /// `Missing` when there is none.
    fn open(&self, name: &str) -> Result<Arc<dyn ShardFile>>;

    /// Begins to write what will be `name`; dropped before it is published, nothing is left that anybody could open.
    ///
    /// # Errors
    /// When nothing can be written.
    fn begin(&self, name: &str) -> Result<Arc<dyn Upload>>;

    /// Removes `name`; that there is none is no error. After a crash it may be back until [`ShardHome::settle`] was called.
    ///
    /// # Errors
    /// When it may be there still.
    fn remove(&self, name: &str) -> Result<()>;

    /// Makes durable what was listed and removed before. An object store has nothing to do.
    ///
    /// # Errors
    /// When that cannot be promised.
    fn settle(&self) -> Result<()>;

    /// Removes what uploads of names that `is_ours` knows left behind, whose writers are gone. Returns how many.
    ///
    /// # Errors
    /// When some stay.
    fn clean_up(&self, is_ours: &dyn Fn(&str) -> bool) -> Result<u64>;

    /// Keeps other processes from writing here while the lock lives; none where nothing can be locked.
    ///
    /// # Errors
    /// `Retry` when another process does.
    fn lock(&self) -> Result<Option<Lock>>;
}

/// A published file, open.
pub trait ShardFile: Send + Sync + fmt::Debug {
    /// Its name and place, for people.
    fn path(&self) -> &Path;

    /// Its length.
    ///
    /// # Errors
    /// When that cannot be told.
    fn size_bytes(&self) -> Result<u64>;

    /// Tells it from everything else that is or was published under its name: an object store's ETag.
    ///
    /// # Errors
    /// When that cannot be told.
    fn version(&self) -> Result<String>;

    /// Reads a range. Whole, or an error; `done` is called in any case.
    fn read(&self, io: &IoService, read: RangedRead);
}

/// A file that is being written.
pub trait Upload: Send + Sync + fmt::Debug {
    /// Its name and place, for people.
    fn path(&self) -> &Path;

    /// Writes the first `len` bytes of `block` at `offset`. Blocks come in any order, each once.
    fn write(&self, io: &IoService, block: Slot, offset: u64, len: usize, done: Transferred);

    /// Makes what was written durable and gives it its name, in one step, unless something has it. Called once, when all
    /// writes have ended well.
    ///
    /// # Errors
    /// `Misuse` when the name is taken. After any other error the name may be there: whoever cares removes it.
    fn publish(&self, io: &IoService) -> Result<()>;
}

/// Reads a range and waits for it.
///
/// # Errors
/// As the home.
pub fn read_at(
    file: &dyn ShardFile,
    io: &IoService,
    (offset, len): (u64, usize),
    buf: Slot,
    priority: Priority,
) -> Result<Slot> {
    let (send, receive) = bounded(1);
    let done: Transferred = Box::new(move |buf, result| drop(send.send((buf, result))));
    file.read(io, RangedRead { offset, len, buf, tag: 0, more_tags: 0, priority, deadline: 0, done });
    let (buf, result) = receive.recv().map_err(|_| crate::io::closed())?;
    result?;
    buf.ok_or_else(crate::io::closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Directory;
    use crate::io::{EngineChoice, Lane, ServiceConfig};
    use crate::testing::{Bucket, conformance};

    #[test]
    fn every_home_keeps_its_promises() {
        for (seed, engine) in [(1, EngineChoice::Auto), (2, EngineChoice::Psync)] {
            let io = IoService::start(&ServiceConfig { engine, ..ServiceConfig::default() }, None).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let directory = DirectoryHome::new(Directory::open(dir.path()).unwrap(), Lane::Slow);
            conformance::shard_home(&directory, &io, seed);
            conformance::shard_home(&Bucket::new("bucket").unwrap(), &io, seed);
        }
    }
}
