//! Writing a data set so that it appears whole or not at all.
//!
//! Shards are written into a hidden directory beside the target, the manifest last; then everything is synced and the
//! directory gets its final name in one rename. A writer that is dropped removes what it wrote; one that was killed
//! leaves a directory that nobody holds a lock on, and the next writer of the same target removes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tierstream_crypto::{Cipher, KeyProvider};

use super::open::read_manifest;
use super::stream::Reader;
use super::write::{SealedWriter, WriteContext};
use crate::codec::Dictionary;
use crate::device::{Directory, fs, sync_directory};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileId, Kind, MANIFEST_NAME, Manifest, SealParams, SectionType, ShardEntry};
use crate::home::{DirectoryHome, in_place};
use crate::io::{Lane, Priority};

/// A data set being written.
#[derive(Debug)]
pub struct DataSetWriter<'a> {
    pub(super) context: &'a WriteContext,
    pub(super) keys: Arc<dyn KeyProvider>,
    target: PathBuf,
    pub(super) partial: PathBuf,
    pub(super) directory: Arc<Directory>,
    // flock(2) of the partial directory, held while we write; a killed process loses it. None where the file system
    // locks no directories: what a killed writer leaves there stays.
    _lock: Option<fs::Lock>,
    pub(super) params: SealParams,
    dictionary: Option<Arc<Dictionary>>,
    published: bool,
    // What is complete stays when the writer is dropped before it published.
    pub(super) keep: bool,
}

/// A shard that was written and waits to be listed in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedShard(pub(super) ShardEntry);

impl SealedShard {
    /// Stored bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.0.file_bytes
    }

    /// Its file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.records
    }
}

impl<'a> DataSetWriter<'a> {
    /// Begins a data set at `target`. With `overwrite` an existing data set there is replaced when the new one is
    /// published, as its next generation.
    ///
    /// # Errors
    /// `Misuse` when the target exists and is not to be overwritten, or is no data set; `Denied` when its parent cannot
    /// be written; `Missing` when the parent does not exist, or the key of the data set that is to be overwritten.
    #[expect(clippy::too_many_arguments, reason = "each is one choice of the caller, used once")]
    pub fn create(
        context: &'a WriteContext,
        keys: Arc<dyn KeyProvider>,
        target: &Path,
        overwrite: bool,
        cipher: Cipher,
        compressed: bool,
        block_bytes: u32,
        record_align: u32,
    ) -> Result<Self> {
        let (parent, name) = split(target)?;
        let previous = previous_generation(context, &*keys, target, overwrite)?;
        remove_abandoned(&parent, &name)?;
        let (data_set_id, generation) = match previous {
            Some((id, generation)) => (id, generation + 1),
            None => (random_id()?, 1),
        };
        let params = SealParams {
            kind: Kind::Shard,
            cipher,
            compressed,
            file_id: FileId([0; 16]),
            data_set_id,
            generation,
            block_bytes,
            record_align,
        };
        params.check()?;
        let partial = parent.join(format!("{}{}", partial_prefix(&name), random_id()?));
        fs::create_directory(&partial).map_err(|error| error.hint(writable(&parent)))?;
        // Without a lock of our own the next writer cannot get one either, and leaves the directory alone.
        let lock = fs::lock(&partial).ok();
        let directory =
            Directory::open(&partial).inspect_err(|_| drop(fs::remove_directory_all(&partial)))?;
        Ok(Self::at(context, keys, target.to_owned(), partial, directory, lock, params))
    }

    /// A writer in the hidden directory `partial`, which is there and locked.
    pub(super) fn at(
        context: &'a WriteContext,
        keys: Arc<dyn KeyProvider>,
        target: PathBuf,
        partial: PathBuf,
        directory: Arc<Directory>,
        lock: Option<fs::Lock>,
        params: SealParams,
    ) -> Self {
        let (dictionary, published, keep) = (None, false, false);
        Self { context, keys, target, partial, directory, _lock: lock, params, dictionary, published, keep }
    }

    /// Compresses the blocks of all shards with the zstd dictionary `bytes`; [`Dictionary::train`] makes one.
    ///
    /// # Errors
    /// `Misuse` when the data set is not compressed, or zstd refuses the dictionary.
    pub fn with_dictionary(mut self, bytes: &[u8]) -> Result<Self> {
        if !self.params.compressed {
            return Err(Error::new(ErrorKind::Misuse, "seal", "a dictionary without compression"));
        }
        self.dictionary = Some(Arc::new(Dictionary::for_sealing(bytes)?));
        Ok(self)
    }

    /// Begins shard `number`. Shards may be written from several threads at once.
    ///
    /// # Errors
    /// As the file system says.
    pub fn shard(&self, number: usize) -> Result<SealedWriter<'a>> {
        let params = SealParams { file_id: random_id()?, ..self.params };
        let upload = in_place(&self.directory, &shard_name(number), Lane::Slow)?;
        let shard = SealedWriter::create(self.context.output(), upload, params, &*self.keys)?;
        Ok(match &self.dictionary {
            Some(dictionary) => shard.with_dictionary(Arc::clone(dictionary)),
            None => shard,
        })
    }

    /// Ends a shard that [`DataSetWriter::shard`] began under the same `number`, with its records and index sections.
    ///
    /// # Errors
    /// As the device says.
    pub fn finish_shard(
        &self,
        number: usize,
        shard: SealedWriter<'_>,
        records: u64,
        sections: Vec<(SectionType, Vec<u8>)>,
    ) -> Result<SealedShard> {
        let finished = shard.finish(records, sections)?;
        Ok(SealedShard(ShardEntry {
            file: shard_name(number),
            id: finished.file_id.0,
            mac: finished.mac,
            file_bytes: finished.file_bytes,
            payload_bytes: finished.payload_bytes,
            records,
        }))
    }

    /// Writes the manifest of `shards` and gives the data set its name. Returns its generation.
    ///
    /// # Errors
    /// As the file system says. The target is then as it was; or, when nothing but the last sync failed, it is the new
    /// data set, whole, which a crash of the machine may undo.
    pub fn publish(
        mut self,
        schema: serde_json::Value,
        source: serde_json::Value,
        shards: Vec<SealedShard>,
    ) -> Result<u64> {
        let (parent, name) = split(&self.target)?;
        let mut manifest = Manifest::new(name, schema, self.params.block_bytes, self.params.record_align);
        manifest.source = source;
        manifest.compressed = self.params.compressed;
        shards.into_iter().for_each(|SealedShard(entry)| manifest.push(entry));
        let params =
            SealParams { kind: Kind::Manifest, compressed: false, file_id: random_id()?, ..self.params };
        let upload = in_place(&self.directory, MANIFEST_NAME, Lane::Slow)?;
        let mut writer = SealedWriter::create(self.context.output(), upload, params, &*self.keys)?;
        writer.write(&manifest.encode()?)?;
        writer.finish(manifest.records, Vec::new())?;

        if self.keep {
            self.remove_lists()?;
        }
        self.directory.sync()?;
        let replaced = self.rename()?;
        self.published = true;
        sync_directory(&parent)?;
        // Not before the new name is durable: a crash that lost the exchange, but not what was removed, would leave
        // neither generation.
        if replaced && let Err(error) = fs::remove_directory_all(&self.partial) {
            tracing::warn!(path = %self.partial.display(), %error, "the previous generation could not be removed");
        }
        Ok(self.params.generation)
    }

    /// Puts the new directory in the target's place. Whether something was there, which then has the partial name.
    fn rename(&self) -> Result<bool> {
        if fs::rename_to_new(&self.partial, &self.target)? {
            return Ok(false);
        }
        // There is a data set in the way: we were told to overwrite one, or somebody else was faster.
        if self.params.generation == 1 {
            return Err(exists(&self.target));
        }
        fs::exchange(&self.partial, &self.target).map_err(|error| {
            error.hint("this file system cannot swap directories: remove the old data set first")
        })?;
        Ok(true)
    }
}

impl Drop for DataSetWriter<'_> {
    fn drop(&mut self) {
        let keep = self.published || (self.keep && self.has_lists());
        if !keep && let Err(error) = fs::remove_directory_all(&self.partial) {
            tracing::warn!(path = %self.partial.display(), %error, "an unfinished data set could not be removed");
        }
    }
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:05}.tss")
}

pub(super) fn partial_prefix(name: &str) -> String {
    format!(".{name}.partial-")
}

pub(super) fn random_id() -> Result<FileId> {
    let mut id = [0; 16];
    crate::host::random_bytes(&mut id)?;
    Ok(FileId(id))
}

fn writable(path: &Path) -> String {
    format!("choose an output on a file system that this user can write, or allow it on `{}`", path.display())
}

fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::Misuse, "create", "there is something of this name already")
        .at(target)
        .hint("choose another output, or give --overwrite to replace a data set")
}

/// The target's parent and its name.
pub(super) fn split(target: &Path) -> Result<(PathBuf, String)> {
    let name = target.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let name = name.ok_or_else(|| {
        Error::new(ErrorKind::Misuse, "create", "the output needs a name in UTF-8").at(target)
    })?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((parent, name))
}

/// Id and generation of the data set that is to be overwritten.
pub(super) fn previous_generation(
    context: &WriteContext,
    keys: &dyn KeyProvider,
    target: &Path,
    overwrite: bool,
) -> Result<Option<(FileId, u64)>> {
    if !fs::exists(target)? {
        return Ok(None);
    }
    if !overwrite {
        return Err(exists(target));
    }
    let home = DirectoryHome::new(Directory::open(target)?, Lane::Slow);
    let reader = Reader {
        io: &context.io,
        arena: &context.arena,
        patience: context.patience,
        priority: Priority::Background,
    };
    let (file, _) = read_manifest(&reader, &home, keys)
        .map_err(|error| error.hint("only a data set that opens with the same key is overwritten"))?;
    let params = &file.header().params;
    Ok(Some((params.data_set_id, params.generation)))
}

/// Removes what killed writers of the same target left behind.
fn remove_abandoned(parent: &Path, name: &str) -> Result<()> {
    let prefix = partial_prefix(name);
    for entry in fs::list(parent)? {
        let path = parent.join(&entry.name);
        let ours = entry.name.to_str().is_some_and(|name| name.starts_with(&prefix));
        if !ours {
            continue;
        }
        match fs::lock(&path) {
            Ok(_lock) => {
                tracing::warn!(path = %path.display(), "removing what an interrupted pack left behind");
                match fs::remove_directory_all(&path) {
                    // Another writer does the same.
                    Err(error) if error.kind() == ErrorKind::Missing => {}
                    removed => removed?,
                }
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "another writer's directory is left alone")
            }
        }
    }
    Ok(())
}
