//! Changing the keys that a data set, or the objects of a tier, open with: headers alone are rewritten, data stays as it is.
//!
//! Objects have no manifest: each is a file for itself, and the catalog goes by ids and MACs, which keys do not change.
//! Guarantees, at any moment and after any crash: each file opens under every key it opened with before the step that
//! takes that key away, and the whole data set opens under one key (docs/specs/format.md, section 4.1). What was done
//! stays done: the same call again finishes what is left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tierstream_crypto::{DataKey, ErrorKind as CryptoKind, KekId, KeyProvider, WrappedKey};

use super::error_list::ERRORS_KEPT;
use super::object;
use super::open::read_manifest;
use super::sealed_file::{Expected, peek_header, truncated};
use super::stream::Reader;
use super::write::WriteContext;
use crate::codec::{add_wrap, open_header, remove_wraps};
use crate::device::{Access, DeviceFile, Directory, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{HEADER_BYTES, Header, MANIFEST_NAME};
use crate::home::DirectoryHome;
use crate::io::{Lane, Op, Priority};
use crate::units::to_u64;

/// What is done so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct RewrapProgress {
    /// Headers looked at: two for each file that is rotated, else one.
    pub headers: AtomicU64,
    /// Set from outside to end early.
    pub stop: AtomicBool,
}

/// What came of a change of keys.
#[derive(Debug, Default)]
pub struct RewrapReport {
    /// Files of the data set: its shards and its manifest.
    pub files: u64,
    /// Files that got the new key.
    pub added: u64,
    /// Files that lost a key.
    pub removed: u64,
    /// Files that could not be changed, at most a hundred; empty when all went well.
    pub errors: Vec<Error>,
    /// How many errors there were in all.
    pub error_count: u64,
}

/// Which key-encryption keys open a file, as its header says: nothing is authenticated.
#[derive(Clone, Debug)]
pub struct FileWraps {
    /// The file's name.
    pub file: String,
    /// The keys.
    pub keks: Vec<KekId>,
    /// Wrap slots that are damaged.
    pub damaged_slots: u64,
}

/// The keys of every sealed file of the data set or objects at `path`, by name, a manifest last; no key is needed.
///
/// # Errors
/// `Missing` when there is none, else as the first header that cannot be read.
pub fn list_wraps(path: &Path) -> Result<Vec<FileWraps>> {
    let sealed = sealed_files(path)?;
    let read = |file: String| {
        let header = peek_header(&sealed.directory.join(&file))?;
        let keks = header.wraps.into_iter().map(|wrap| wrap.kek).collect();
        Ok(FileWraps { file, keks, damaged_slots: to_u64(header.damaged_slots.len()) })
    };
    sealed.names.into_iter().map(read).collect()
}

/// Sealed files that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFiles {
    /// Where they are.
    pub directory: PathBuf,
    /// Shards in order, then the manifest; or objects by id.
    pub names: Vec<String>,
    /// Whether they are objects.
    pub objects: bool,
}

/// The sealed files at `path`: the directory of a data set, or of a tier where objects live.
///
/// # Errors
/// `Missing` when there is none, else as readdir(3).
pub fn sealed_files(path: &Path) -> Result<SealedFiles> {
    let list = |directory: &Path| -> Result<Vec<String>> {
        let entries = fs::list(directory)?.into_iter().filter(|entry| !entry.is_directory);
        Ok(entries.filter_map(|entry| entry.name.into_string().ok()).collect())
    };
    let mut names = list(path)?;
    names.retain(|name| name == MANIFEST_NAME || name.ends_with(".tss"));
    names.sort_by_key(|name| (name == MANIFEST_NAME, name.clone()));
    if !names.is_empty() {
        return Ok(SealedFiles { directory: path.to_owned(), names, objects: false });
    }
    for directory in [object::directory_in(path), path.to_owned()] {
        if fs::is_directory(&directory)? != Some(true) {
            continue;
        }
        let mut names = list(&directory)?;
        names.retain(|name| object::is_object_file(name));
        names.sort();
        if !names.is_empty() {
            return Ok(SealedFiles { directory, names, objects: true });
        }
    }
    let why = format!("no `{MANIFEST_NAME}`, no shards and no objects in it");
    Err(Error::new(ErrorKind::Missing, "list", why).at(path).hint(
        "give the directory of a packed data set (`tierstream pack INPUT OUTPUT` makes one), or that of a tier with \
         objects",
    ))
}

/// The keys of one data set, or of the objects of one tier, to be changed.
#[derive(Debug)]
pub struct Rewrap<'a> {
    context: &'a WriteContext,
    path: &'a Path,
    threads: usize,
    progress: &'a RewrapProgress,
}

/// One file of the data set; and what it must be, where the manifest says so.
struct Target {
    name: String,
    expected: Option<Expected>,
}

/// What is done to each header.
type Change<'a> = &'a (dyn Fn(&mut [u8; HEADER_BYTES]) -> Result<bool> + Sync);

impl<'a> Rewrap<'a> {
    /// For what is at `path` (see [`sealed_files`]), with up to `threads` files at a time.
    #[must_use]
    pub fn new(
        context: &'a WriteContext,
        path: &'a Path,
        threads: usize,
        progress: &'a RewrapProgress,
    ) -> Self {
        Self { context, path, threads, progress }
    }

    /// Lets `new` open what `known` opens.
    ///
    /// # Errors
    /// When the manifest does not open; `Retry` when another process changes the keys; `Interrupted` when it was
    /// stopped. Files that fail are in the report.
    pub fn add(&self, known: &dyn KeyProvider, new: &dyn KeyProvider) -> Result<RewrapReport> {
        let _lock = self.lock(&sealed_files(self.path)?)?;
        let sealed = sealed_files(self.path)?;
        let known = Both(new, known);
        let targets = self.targets(&sealed, &known)?;
        let add: Change<'_> = &|header| add_wrap(header, &known, new);
        let (added, errors) = self.each(&sealed, &targets, add, Some(new))?;
        Ok(report(&targets, added, 0, errors))
    }

    /// Puts `new` in the place of the keys `leaving`, which `known` holds: in all files before the first loses one.
    ///
    /// # Errors
    /// As [`Rewrap::add`]. When some file could not get the new key, none loses an old one: the report says which.
    pub fn rotate(
        &self,
        known: &dyn KeyProvider,
        leaving: &[KekId],
        new: &dyn KeyProvider,
    ) -> Result<RewrapReport> {
        let _lock = self.lock(&sealed_files(self.path)?)?;
        let sealed = sealed_files(self.path)?;
        let known = Both(new, known);
        let targets = self.targets(&sealed, &known)?;
        let add: Change<'_> = &|header| add_wrap(header, &known, new);
        let (added, errors) = self.each(&sealed, &targets, add, Some(new))?;
        if !errors.is_empty() {
            return Ok(report(&targets, added, 0, errors));
        }
        let leaves = |kek: &KekId| leaving.iter().any(|id| id.fingerprint == kek.fingerprint);
        let remove: Change<'_> = &|header| remove_wraps(header, &leaves, Some(new));
        let (removed, errors) = self.each(&sealed, &targets, remove, Some(new))?;
        Ok(report(&targets, added, removed, errors))
    }

    /// Takes away the keys for which `leaving` says so, the last one too: then the data is gone for ever.
    ///
    /// # Errors
    /// As [`Rewrap::add`], but that no key is needed and nothing is authenticated.
    pub fn destroy(&self, leaving: &(dyn Fn(&KekId) -> bool + Sync)) -> Result<RewrapReport> {
        let sealed = sealed_files(self.path)?;
        let lockable = sealed.objects || sealed.names.iter().any(|name| name == MANIFEST_NAME);
        let _lock = if lockable { self.lock(&sealed)? } else { None };
        let targets = sealed.targets();
        let remove: Change<'_> = &|header| remove_wraps(header, leaving, None);
        let (removed, errors) = self.each(&sealed, &targets, remove, None)?;
        Ok(report(&targets, 0, removed, errors))
    }

    /// One process at a time: two that read, change and write the same header would undo each other's work, and a store
    /// that drains would copy a header as it was.
    fn lock(&self, sealed: &SealedFiles) -> Result<Option<fs::Lock>> {
        let locked =
            if sealed.objects { sealed.directory.clone() } else { sealed.directory.join(MANIFEST_NAME) };
        match fs::lock(&locked) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == ErrorKind::Retry => {
                let why = match sealed.objects {
                    true => "another process has these objects open",
                    false => "another process is changing the keys of this data set",
                };
                Err(Error::new(ErrorKind::Retry, "lock", why).at(&locked))
            }
            Err(error) if error.kind() == ErrorKind::Missing => {
                Err(error.hint("this is no packed data set: `tierstream pack INPUT OUTPUT` makes one"))
            }
            Err(error) if error.kind() == ErrorKind::Denied => Err(error),
            Err(error) => {
                tracing::warn!(%error, "no lock here: see to it that nobody else changes keys now");
                Ok(None)
            }
        }
    }

    /// The shards that the manifest names, shards that lie there beside it, and at last the manifest; or all objects.
    fn targets(&self, sealed: &SealedFiles, known: &dyn KeyProvider) -> Result<Vec<Target>> {
        if sealed.objects {
            return Ok(sealed.targets());
        }
        let reader = self.reader();
        let home = DirectoryHome::new(Directory::open(&sealed.directory)?, Lane::Slow);
        let (_, manifest) = read_manifest(&reader, &home, known)?;
        let mut targets: Vec<Target> = manifest
            .shards
            .iter()
            .map(|entry| Target {
                name: entry.file.clone(),
                expected: Some(Expected { id: entry.file_id(), mac: entry.mac }),
            })
            .collect();
        let listed: std::collections::HashSet<&str> =
            manifest.shards.iter().map(|entry| entry.file.as_str()).collect();
        let others = sealed.targets().into_iter().filter(|target| !listed.contains(target.name.as_str()));
        targets.extend(others);
        Ok(targets)
    }

    fn reader(&self) -> Reader<'a> {
        Reader {
            io: &self.context.io,
            arena: &self.context.arena,
            patience: self.context.patience,
            priority: Priority::Background,
        }
    }

    /// Changes the header of every target, the last one last. Returns how many changed, and what went wrong.
    fn each(
        &self,
        sealed: &SealedFiles,
        targets: &[Target],
        change: Change<'_>,
        opens_after: Option<&dyn KeyProvider>,
    ) -> Result<(u64, Vec<Error>)> {
        let directory = Directory::open(&sealed.directory)?;
        let (changed, next) = (AtomicU64::new(0), AtomicUsize::new(0));
        let errors = Mutex::new(Vec::new());
        let work = |target: &Target| {
            match self.change(&directory, target, change, opens_after) {
                Ok(did) => drop(changed.fetch_add(u64::from(did), Ordering::Relaxed)),
                Err(error) => errors.lock().unwrap_or_else(PoisonError::into_inner).push(error),
            }
            self.progress.headers.fetch_add(1, Ordering::Relaxed);
        };
        let stopped = || self.progress.stop.load(Ordering::Relaxed);
        let Some((last, first)) = targets.split_last() else { return Ok((0, Vec::new())) };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, first.len().max(1)) {
                scope.spawn(|| {
                    while let Some(target) = first.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stopped() {
                            return;
                        }
                        work(target);
                    }
                });
            }
        });
        if stopped() {
            return Err(Error::new(ErrorKind::Interrupted, "change keys", "stopped before the end")
                .at(self.path)
                .hint("run the same command again to finish"));
        }
        work(last);
        let mut errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
        errors.sort_by_key(|error| error.place().map(|place| place.path.clone()));
        Ok((changed.into_inner(), errors))
    }

    /// Reads a header, changes it, writes it back, makes it durable, and reads back what was written.
    fn change(
        &self,
        directory: &Directory,
        target: &Target,
        change: Change<'_>,
        opens_after: Option<&dyn KeyProvider>,
    ) -> Result<bool> {
        let file = DeviceFile::open(directory, &target.name, Access::ReadWrite).map_err(|error| {
            if error.kind() == ErrorKind::Denied {
                return error.hint("keys are changed by whoever may write the data set's files");
            }
            error
        })?;
        let changed = || {
            let read = || -> Result<Box<[u8; HEADER_BYTES]>> {
                let buf = self.context.arena.take(self.context.patience)?;
                let bytes = self.context.io.read(&file, 0, HEADER_BYTES, buf, Lane::Slow)?;
                Ok(Box::new(bytes[..HEADER_BYTES].try_into().expect("4096 bytes")))
            };
            let found_bytes = file.size_bytes()?;
            if found_bytes < to_u64(HEADER_BYTES) {
                return Err(truncated(to_u64(HEADER_BYTES), found_bytes));
            }
            let mut header = read()?;
            // Slots of other keys are written back as they were read, and nothing but their keys could tell a flipped bit.
            if read()? != header {
                let why = "the header reads differently each time";
                return Err(Error::new(ErrorKind::Device, "change keys", why));
            }
            target.check(&header)?;
            if !change(&mut header)? {
                return Ok(false);
            }
            let mut slot = self.context.arena.take(self.context.patience)?;
            slot[..HEADER_BYTES].copy_from_slice(&header[..]);
            let run = |op| self.context.io.run(op, Lane::Slow, Priority::Background).map(drop);
            run(Op::write(std::sync::Arc::clone(&file), 0, HEADER_BYTES, slot))?;
            run(Op::sync(std::sync::Arc::clone(&file)))?;
            let again = read()?;
            if again != header {
                let why = "the header that was written is not the one that is read back";
                return Err(Error::new(ErrorKind::Device, "change keys", why));
            }
            opens_after.map_or(Ok(()), |key| open_header(&again, key).map(drop))?;
            Ok(true)
        };
        changed().map_err(|error: Error| error.at(file.path()))
    }
}

impl SealedFiles {
    fn targets(&self) -> Vec<Target> {
        self.names.iter().map(|name| Target { name: name.clone(), expected: None }).collect()
    }
}

impl Target {
    fn check(&self, header: &[u8; HEADER_BYTES]) -> Result<()> {
        let Some(expected) = self.expected else { return Ok(()) };
        let (found, mac) = Header::parse(header)?;
        if (expected.id, expected.mac) == (found.params.file_id, mac) {
            return Ok(());
        }
        let why = if expected.id == found.params.file_id {
            "header MAC mismatch: it is not the one that the manifest names".to_owned()
        } else {
            format!(
                "another file is in its place: file id {}, the manifest names {}",
                found.params.file_id, expected.id
            )
        };
        Err(Error::new(ErrorKind::Corrupt, "change keys", why)
            .hint("the shard was damaged, swapped or rolled back: restore the data set from its source"))
    }
}

fn report(targets: &[Target], added: u64, removed: u64, mut errors: Vec<Error>) -> RewrapReport {
    let error_count = to_u64(errors.len());
    errors.truncate(ERRORS_KEPT);
    RewrapReport { files: to_u64(targets.len()), added, removed, errors, error_count }
}

/// Unwraps with the first, or else with the second.
#[derive(Debug)]
struct Both<'a>(&'a dyn KeyProvider, &'a dyn KeyProvider);

impl KeyProvider for Both<'_> {
    fn wrap(&self, key: &DataKey, context: &[u8]) -> tierstream_crypto::Result<WrappedKey> {
        self.0.wrap(key, context)
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> tierstream_crypto::Result<DataKey> {
        match self.0.unwrap(wrapped, context) {
            Err(error) if error.kind() == CryptoKind::Missing => self.1.unwrap(wrapped, context),
            unwrapped => unwrapped,
        }
    }
}

#[cfg(test)]
mod tests;
