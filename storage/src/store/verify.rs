//! Reads and authenticates every block of a data set, and lists what is damaged.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tierstream_crypto::KeyProvider;

use super::error_list::ErrorList;
use super::open::read_manifest;
use super::sealed_file::{Expected, SealedFile};
use super::stream::Reader;
use super::write::WriteContext;
use crate::codec::Scratch;
use crate::device::Directory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BlockKind, Manifest, ShardEntry};
use crate::home::{DirectoryHome, ShardHome};
use crate::host::pause;
use crate::io::{Lane, Priority};
use crate::tier::Throttle;
use crate::units::{to_u64, to_usize};

/// What is done so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// Stored bytes read and checked.
    pub bytes: AtomicU64,
    /// Set from outside to end early.
    pub stop: std::sync::atomic::AtomicBool,
    /// How fast to go; as fast as the devices do without it.
    pub pace: Option<Throttle>,
}

/// Longest pause before a look at whether to stop.
const PAUSE_MAX: Duration = Duration::from_millis(100);

impl VerifyProgress {
    /// Counts `bytes` that were read and checked, and waits as long as the pace asks for.
    pub(super) fn passed(&self, bytes: usize) {
        self.bytes.fetch_add(to_u64(bytes), Ordering::Relaxed);
        let Some(pace) = &self.pace else { return };
        while let Err(wait) = pace.take(bytes) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            pause(wait.min(PAUSE_MAX));
        }
    }
}

/// What [`verify`] found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Shards looked at.
    pub shards: usize,
    /// Blocks that are whole.
    pub blocks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// Generation of the data set.
    pub generation: u64,
    /// How its blocks are sealed.
    pub cipher: &'static str,
    /// What is damaged or unreadable, at most a hundred entries.
    pub errors: Vec<Error>,
    /// How many errors there were in all.
    pub error_count: u64,
}

/// What was found so far; shared by the threads of one walk.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) blocks: AtomicU64,
    pub(super) errors: ErrorList,
}

impl Tally {
    pub(super) fn damaged_slots(&self, file: &SealedFile) {
        for why in &file.header().damaged_slots {
            let error = Error::new(ErrorKind::Corrupt, "verify", why.as_str()).at(file.path());
            self.errors
                .note(error.hint("another slot opens the file; `tierstream keys rotate` clears this one"));
        }
    }
}

/// Checks the data set in the directory `path` on `threads` threads. Damage is reported, not returned as an error.
///
/// # Errors
/// When the manifest itself cannot be read or authenticated; `Interrupted` when it was stopped.
pub fn verify(
    context: &WriteContext,
    keys: &dyn KeyProvider,
    path: &Path,
    threads: usize,
    progress: &VerifyProgress,
) -> Result<VerifyReport> {
    let reader = Reader {
        io: &context.io,
        arena: &context.arena,
        patience: context.patience,
        priority: Priority::Background,
    };
    check(&reader, keys, path, threads, progress)
}

/// As [`verify`], through `reader`.
pub(super) fn check(
    reader: &Reader<'_>,
    keys: &dyn KeyProvider,
    path: &Path,
    threads: usize,
    progress: &VerifyProgress,
) -> Result<VerifyReport> {
    let home = DirectoryHome::new(Directory::open(path)?, Lane::Slow);
    let (manifest_file, manifest) = read_manifest(reader, &home, keys)?;
    let tally = Tally::default();
    tally.damaged_slots(&manifest_file);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(entry) = manifest.shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = verify_shard(reader, &home, keys, entry, progress, &tally) {
                tally.errors.note(error);
            }
            if progress.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(manifest.shards.len()) {
            scope.spawn(work);
        }
        work();
    });
    if progress.stop.load(Ordering::Relaxed) {
        return Err(Error::new(ErrorKind::Interrupted, "verify", "stopped before the end").at(path));
    }
    unlisted_files(&home, &manifest, &tally)?;
    let (errors, error_count) = tally.errors.into_parts();
    Ok(VerifyReport {
        shards: manifest.shards.len(),
        blocks: tally.blocks.into_inner(),
        bytes: progress.bytes.load(Ordering::Relaxed),
        generation: manifest_file.header().params.generation,
        cipher: manifest_file.header().params.cipher.name(),
        errors,
        error_count,
    })
}

fn verify_shard(
    reader: &Reader<'_>,
    home: &dyn ShardHome,
    keys: &dyn KeyProvider,
    entry: &ShardEntry,
    progress: &VerifyProgress,
    tally: &Tally,
) -> Result<()> {
    let expected = Expected { id: entry.file_id(), mac: entry.mac };
    let file = SealedFile::open(reader, home, &entry.file, keys, Some(expected))?;
    check_file(reader, &file, progress, tally)
}

/// Reads and authenticates every block of `file`.
///
/// # Errors
/// When it cannot be read on; `Interrupted` when it was stopped.
pub(super) fn check_file(
    reader: &Reader<'_>,
    file: &SealedFile,
    progress: &VerifyProgress,
    tally: &Tally,
) -> Result<()> {
    tally.damaged_slots(file);
    let header = file.header();
    let mut scratch = Scratch::new()?;
    let mut plain = vec![0; header.block_slot_bytes()];
    for kind in [BlockKind::Data, BlockKind::Index] {
        let total = if kind == BlockKind::Data { header.payload_bytes } else { header.index_bytes };
        reader.for_each(file, kind, |number, stored| {
            if progress.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Interrupted, "verify", "stopped"));
            }
            let len = to_usize(crate::format::plain_bytes(total, header.params.block_bytes, number));
            match file.codec().open(kind, number, len, stored, &mut plain, &mut scratch) {
                Ok(()) => drop(tally.blocks.fetch_add(1, Ordering::Relaxed)),
                // One bad block says nothing about the next: note it and go on.
                Err(error) => {
                    let place = file.place(kind, number)?;
                    tally.errors.note(error.at_offset(place.offset, to_u64(place.len)).at(file.path()));
                }
            }
            progress.passed(stored.len());
            Ok(())
        })?;
    }
    Ok(())
}

/// A sealed file that no manifest names was put there by somebody else, or left by an older pack.
fn unlisted_files(home: &dyn ShardHome, manifest: &Manifest, tally: &Tally) -> Result<()> {
    for name in home.list()? {
        let listed = manifest.shards.iter().any(|shard| name == shard.file);
        if name.ends_with(".tss") && !listed {
            let error = Error::new(ErrorKind::Corrupt, "verify", "this shard is not in the manifest");
            tally.errors.note(error.at(&home.location().join(&name)).hint("it is never read; remove it"));
        }
    }
    Ok(())
}
