//! A home that is no directory: a bucket in memory with the manners of an object store, for tests that what is built on
//! [`ShardHome`] needs no more than that.
//!
//! Keys are put whole and only if they are absent, after parts in any order; reads are ranges that name the version they
//! want, and are answered on a thread of the bucket; there are no directories, renames or syncs. Clones are the same
//! bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buf::Slot;
use crate::device::fs::Lock;
use crate::error::{Error, ErrorKind, Result};
use crate::home::{RangedRead, ShardFile, ShardHome, Transferred, Upload};
use crate::host::channel::{Sender, bounded};
use crate::host::spawn;
use crate::io::IoService;
use crate::units::{to_u64, to_usize};

/// Reads that wait for the bucket's thread at most.
const QUEUE: usize = 64;

/// An object store of one bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    location: PathBuf,
    state: Arc<Mutex<State>>,
    requests: Sender<(Stored, RangedRead)>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, Stored>,
    uploads: BTreeMap<u64, String>,
    versions: u64,
    gets: u64,
}

/// A key's contents. Immutable: who has it reads this version.
#[derive(Clone, Debug)]
struct Stored {
    path: PathBuf,
    version: u64,
    bytes: Arc<Vec<u8>>,
}

impl Bucket {
    /// An empty bucket, called `name` in errors.
    ///
    /// # Errors
    /// `Full` without a thread.
    pub fn new(name: &str) -> Result<Self> {
        let (requests, taken) = bounded::<(Stored, RangedRead)>(QUEUE);
        let serve = move || {
            while let Ok((stored, read)) = taken.recv() {
                let RangedRead { offset, len, mut buf, done, .. } = read;
                let start = to_usize(offset);
                let found = stored.bytes.get(start..start + len).ok_or_else(|| {
                    let why = "the range is not satisfiable";
                    Error::new(ErrorKind::Corrupt, "read", why)
                        .at(&stored.path)
                        .at_offset(offset, to_u64(len))
                });
                let result = found.map(|found| buf[..len].copy_from_slice(found));
                done(Some(buf), result);
            }
        };
        // It ends with the last clone of the bucket.
        let thread = spawn("bucket", serve);
        thread.map_err(|error| Error::new(ErrorKind::Full, "start", error.to_string()))?;
        Ok(Self { location: name.into(), state: Arc::default(), requests })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ranges that were asked for.
    #[must_use]
    pub fn gets(&self) -> u64 {
        self.lock().gets
    }

    /// Uploads that nobody finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.lock().uploads.len()
    }

    /// Changes stored bytes, as no client can.
    pub fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(stored) = self.lock().keys.get_mut(key) {
            change(Arc::make_mut(&mut stored.bytes));
        }
    }
}

impl ShardHome for Bucket {
    fn location(&self) -> &Path {
        &self.location
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.lock().keys.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ShardFile>> {
        let stored = self.lock().keys.get(name).cloned();
        let missing = || Error::new(ErrorKind::Missing, "open", "no such key").at(&self.location.join(name));
        Ok(Arc::new(Opened { bucket: self.clone(), stored: stored.ok_or_else(missing)? }))
    }

    fn begin(&self, name: &str) -> Result<Arc<dyn Upload>> {
        let mut state = self.lock();
        state.versions += 1;
        let number = state.versions;
        state.uploads.insert(number, name.to_owned());
        let path = self.location.join(name);
        Ok(Arc::new(Parts {
            bucket: self.clone(),
            number,
            name: name.to_owned(),
            path,
            parts: Mutex::default(),
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.lock().keys.remove(name);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn clean_up(&self, is_ours: &dyn Fn(&str) -> bool) -> Result<u64> {
        let mut state = self.lock();
        let before = state.uploads.len();
        state.uploads.retain(|_, name| !is_ours(name));
        Ok(to_u64(before - state.uploads.len()))
    }

    fn lock(&self) -> Result<Option<Lock>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct Opened {
    bucket: Bucket,
    stored: Stored,
}

impl ShardFile for Opened {
    fn path(&self) -> &Path {
        &self.stored.path
    }

    fn size_bytes(&self) -> Result<u64> {
        Ok(to_u64(self.stored.bytes.len()))
    }

    fn version(&self) -> Result<String> {
        Ok(self.stored.version.to_string())
    }

    fn read(&self, _: &IoService, read: RangedRead) {
        let now = {
            let mut state = self.bucket.lock();
            state.gets += 1;
            let name = self.stored.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            state.keys.get(name).filter(|now| now.version == self.stored.version).cloned()
        };
        // GET with If-Match.
        match now {
            Some(stored) => {
                if let Err(refused) = self.bucket.requests.send((stored, read)) {
                    let (_, read) = refused.0;
                    (read.done)(
                        Some(read.buf),
                        Err(Error::new(ErrorKind::Closed, "read", "the bucket is gone")),
                    );
                }
            }
            None => {
                let why = "precondition failed: the key was removed or put anew";
                (read.done)(Some(read.buf), Err(Error::new(ErrorKind::Missing, "read", why).at(self.path())));
            }
        }
    }
}

#[derive(Debug)]
struct Parts {
    bucket: Bucket,
    number: u64,
    name: String,
    path: PathBuf,
    parts: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Upload for Parts {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, _: &IoService, block: Slot, offset: u64, len: usize, done: Transferred) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(offset, block[..len].to_vec());
        drop(parts);
        done(Some(block), Ok(()));
    }

    fn publish(&self, _: &IoService) -> Result<()> {
        let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut bytes = Vec::new();
        for (offset, part) in parts {
            if offset != to_u64(bytes.len()) {
                let why = format!("a part at {offset} after {} bytes", bytes.len());
                return Err(Error::new(ErrorKind::Misuse, "publish", why).at(&self.path));
            }
            bytes.extend(part);
        }
        let mut state = self.bucket.lock();
        if state.uploads.remove(&self.number).is_none() {
            return Err(Error::new(ErrorKind::Device, "publish", "no such upload").at(&self.path));
        }
        if state.keys.contains_key(&self.name) {
            let why = "precondition failed: the key is there";
            return Err(Error::new(ErrorKind::Misuse, "publish", why).at(&self.path));
        }
        let stored = Stored { path: self.path.clone(), version: self.number, bytes: Arc::new(bytes) };
        state.keys.insert(self.name.clone(), stored);
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.bucket.lock().uploads.remove(&self.number);
    }
}
