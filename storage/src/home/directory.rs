//! Shards as files of a directory. A file is written as `NAME.partial` (`NAME.7.partial` beside others), synced, renamed to `NAME` if that is free, and the
//! directory synced: so a name is whole and durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{RangedRead, ShardFile, ShardHome, Transferred, Upload};
use crate::buf::Slot;
use crate::device::fs::{self, Lock};
use crate::device::{Access, DeviceFile, Directory};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{IoService, Lane, Op, Priority, Request};

const PARTIAL: &str = ".partial";
/// Uploads of one name at a time beyond the first, those that were left behind among them.
const OTHERS_MAX: u32 = 1000;

/// A directory, read and written in one lane of the I/O service.
#[derive(Debug)]
pub struct DirectoryHome {
    directory: Arc<Directory>,
    lane: Lane,
}

impl DirectoryHome {
    /// The home in `directory`.
    #[must_use]
    pub fn new(directory: Arc<Directory>, lane: Lane) -> Self {
        Self { directory, lane }
    }
}

impl ShardHome for DirectoryHome {
    fn location(&self) -> &Path {
        self.directory.path()
    }

    fn list(&self) -> Result<Vec<String>> {
        let entries = fs::list(self.directory.path())?.into_iter().filter(|entry| !entry.is_directory);
        let names = entries.filter_map(|entry| entry.name.into_string().ok());
        Ok(names.filter(|name| !name.ends_with(PARTIAL)).collect())
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ShardFile>> {
        let file = DeviceFile::open(&self.directory, name, Access::Read)?;
        Ok(Arc::new(Opened { file, lane: self.lane }))
    }

    fn begin(&self, name: &str) -> Result<Arc<dyn Upload>> {
        let mut others = 0..OTHERS_MAX;
        let mut partial = format!("{name}{PARTIAL}");
        let file = loop {
            match DeviceFile::open(&self.directory, &partial, Access::CreateNew) {
                // Somebody else writes it too, or left it there.
                Err(error) if error.kind() == ErrorKind::Misuse => match others.next() {
                    Some(other) => partial = format!("{name}.{other}{PARTIAL}"),
                    None => return Err(error),
                },
                file => break file?,
            }
        };
        let name = Some(self.directory.path().join(name));
        let directory = Arc::clone(&self.directory);
        Ok(Arc::new(Writing { file, lane: self.lane, directory, name, published: AtomicBool::new(false) }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(&self.directory.path().join(name)) {
            Err(error) if error.kind() != ErrorKind::Missing => Err(error),
            _ => Ok(()),
        }
    }

    fn settle(&self) -> Result<()> {
        self.directory.sync()
    }

    fn clean_up(&self, is_ours: &dyn Fn(&str) -> bool) -> Result<u64> {
        let mut removed = 0;
        for entry in fs::list(self.directory.path())?.into_iter().filter(|entry| !entry.is_directory) {
            let name = entry.name.to_str().unwrap_or_default();
            if name.strip_suffix(PARTIAL).is_some_and(|of| is_ours(of) || is_ours(without_number(of))) {
                fs::remove_file(&self.directory.path().join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn lock(&self) -> Result<Option<Lock>> {
        match fs::lock(self.directory.path()) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == ErrorKind::Retry => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a directory cannot be locked");
                Ok(None)
            }
        }
    }
}

/// A file that was opened.
#[derive(Debug)]
struct Opened {
    file: Arc<DeviceFile>,
    lane: Lane,
}

impl ShardFile for Opened {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn size_bytes(&self) -> Result<u64> {
        self.file.size_bytes()
    }

    fn version(&self) -> Result<String> {
        self.file.version()
    }

    fn read(&self, io: &IoService, read: RangedRead) {
        let RangedRead { offset, len, buf, tag, more_tags, priority, deadline, done } = read;
        let op = Op { tag, more_tags, ..Op::read(Arc::clone(&self.file), offset, len, buf) };
        let done = answered(done);
        io.submit(Request { op, lane: self.lane, priority, deadline, done });
    }
}

/// A file that is written.
#[derive(Debug)]
struct Writing {
    file: Arc<DeviceFile>,
    lane: Lane,
    directory: Arc<Directory>,
    // What it will be; none for one that has its name from the start.
    name: Option<PathBuf>,
    published: AtomicBool,
}

/// Writes `name` in `directory` where it is, for a directory that gets its own name when all of it is written: its syncs
/// and its removal are the caller's.
///
/// # Errors
/// As open(2); `Misuse` when the name is taken.
pub fn in_place(directory: &Arc<Directory>, name: &str, lane: Lane) -> Result<Arc<dyn Upload>> {
    let file = DeviceFile::open(directory, name, Access::CreateNew)?;
    let directory = Arc::clone(directory);
    Ok(Arc::new(Writing { file, lane, directory, name: None, published: AtomicBool::new(true) }))
}

impl Upload for Writing {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn write(&self, io: &IoService, block: Slot, offset: u64, len: usize, done: Transferred) {
        let op = Op::write(Arc::clone(&self.file), offset, len, block);
        let (priority, deadline, done) = (Priority::Background, offset, answered(done));
        io.submit(Request { op, lane: self.lane, priority, deadline, done });
    }

    fn publish(&self, io: &IoService) -> Result<()> {
        io.run(Op::sync(Arc::clone(&self.file)), self.lane, Priority::Background)?;
        let Some(name) = &self.name else { return Ok(()) };
        if !fs::rename_to_new(self.file.path(), name)? {
            let why = "there is a file of this name, and files are written once";
            return Err(Error::new(ErrorKind::Misuse, "publish", why).at(name));
        }
        self.published.store(true, Ordering::SeqCst);
        if crate::host::Mistake::AcknowledgesEarly.is_made() {
            return Ok(());
        }
        self.directory.sync()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // What stays is removed when the home is cleaned up.
        if !self.published.load(Ordering::SeqCst)
            && let Err(error) = fs::remove_file(self.file.path())
        {
            tracing::debug!(%error, "an unfinished file stays for now");
        }
    }
}

/// `NAME` of `NAME.7`.
fn without_number(name: &str) -> &str {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once('.').filter(|(_, end)| number(end)).map_or(name, |(name, _)| name)
}

fn answered(done: Transferred) -> crate::io::Done {
    Box::new(move |op, result| done(op.and_then(|op| op.buf), result))
}
