//! Going on with a data set whose writer was interrupted.
//!
//! A writer that is to be resumable seals a *group list* beside its shards whenever a group of them is complete: a
//! manifest of those shards under another name, with a token that tells what was being written. The next writer of the
//! same target takes over the hidden directory if its lists open under its key, carry its token and agree with its
//! settings; it keeps the listed shards that are what the lists say, and removes everything else. Lists are removed
//! before the data set gets its name.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tierstream_crypto::{Cipher, KeyProvider};

use super::open::read_sealed_manifest;
use super::publish::{DataSetWriter, SealedShard, partial_prefix, previous_generation, random_id, split};
use super::sealed_file::{Expected, SealedFile};
use super::stream::Reader;
use super::write::{SealedWriter, WriteContext};
use crate::device::{Directory, fs};
use crate::error::Result;
use crate::format::{FileId, Kind, Manifest, SealParams};
use crate::home::{DirectoryHome, in_place};
use crate::io::{Lane, Priority};

/// What lists of groups are called.
const LIST_PREFIX: &str = "group-";

/// Groups that are complete: number and shards.
pub type Groups = Vec<(usize, Vec<SealedShard>)>;

impl<'a> DataSetWriter<'a> {
    /// As [`DataSetWriter::create`], but goes on with what an interrupted writer of `target` has done, if it was made
    /// from the same `token` with the same settings and key; gives the groups that are complete. What this writer
    /// completes by [`DataSetWriter::checkpoint`] stays when it is dropped unpublished.
    ///
    /// # Errors
    /// As [`DataSetWriter::create`].
    #[expect(clippy::too_many_arguments, reason = "each is one choice of the caller, used once")]
    pub fn resume(
        context: &'a WriteContext,
        keys: Arc<dyn KeyProvider>,
        target: &Path,
        overwrite: bool,
        cipher: Cipher,
        compressed: bool,
        block_bytes: u32,
        record_align: u32,
        token: &serde_json::Value,
    ) -> Result<(Self, Groups)> {
        let (parent, name) = split(target)?;
        let previous = previous_generation(context, &*keys, target, overwrite)?;
        let wanted = SealParams {
            kind: Kind::Shard,
            cipher,
            compressed,
            file_id: FileId([0; 16]),
            data_set_id: previous.map_or(FileId([0; 16]), |(id, _)| id),
            generation: previous.map_or(1, |(_, generation)| generation + 1),
            block_bytes,
            record_align,
        };
        for entry in fs::list(&parent)? {
            let ours = entry.name.to_str().is_some_and(|found| found.starts_with(&partial_prefix(&name)));
            let path = parent.join(&entry.name);
            // Somebody writes it now, or it cannot be locked: it is not ours to go on with.
            let Some(lock) = ours.then(|| fs::lock(&path).ok()).flatten() else { continue };
            let directory = Directory::open(&path)?;
            let Some((params, groups)) = found(context, &*keys, &directory, wanted, token) else { continue };
            let mut writer = Self::at(context, keys, target.to_owned(), path, directory, Some(lock), params);
            writer.keep = true;
            writer.remove_unlisted(&groups)?;
            return Ok((writer, groups));
        }
        let mut writer =
            Self::create(context, keys, target, overwrite, cipher, compressed, block_bytes, record_align)?;
        writer.keep = true;
        Ok((writer, Vec::new()))
    }

    /// Makes durable that group `number` is complete with `shards`.
    ///
    /// # Errors
    /// As the file system says.
    pub fn checkpoint(&self, number: usize, shards: &[SealedShard], token: &serde_json::Value) -> Result<()> {
        let mut list = Manifest::new(
            number.to_string(),
            serde_json::Value::Null,
            self.params.block_bytes,
            self.params.record_align,
        );
        list.source = token.clone();
        list.compressed = self.params.compressed;
        shards.iter().for_each(|SealedShard(entry)| list.push(entry.clone()));
        let params =
            SealParams { kind: Kind::Manifest, compressed: false, file_id: random_id()?, ..self.params };
        let file = format!("{LIST_PREFIX}{number:05}.tsm");
        let upload = in_place(&self.directory, &file, Lane::Slow)?;
        let mut writer = SealedWriter::create(self.context.output(), upload, params, &*self.keys)?;
        writer.write(&list.encode()?)?;
        writer.finish(list.records, Vec::new())?;
        self.directory.sync()
    }

    /// Removes shards that no list names: they were being written when the writer ended.
    fn remove_unlisted(&self, groups: &Groups) -> Result<()> {
        let listed: HashSet<&str> =
            groups.iter().flat_map(|(_, shards)| shards).map(SealedShard::file).collect();
        let numbers: HashSet<String> =
            groups.iter().map(|(number, _)| format!("{LIST_PREFIX}{number:05}.tsm")).collect();
        for entry in fs::list(&self.partial)? {
            let known =
                entry.name.to_str().is_some_and(|name| listed.contains(name) || numbers.contains(name));
            if !known {
                fs::remove_file(&self.partial.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Whether a group is complete.
    pub(super) fn has_lists(&self) -> bool {
        let is_list =
            |entry: &fs::Entry| entry.name.to_str().is_some_and(|name| name.starts_with(LIST_PREFIX));
        fs::list(&self.partial).is_ok_and(|entries| entries.iter().any(is_list))
    }

    /// Removes all lists: the manifest takes their place.
    pub(super) fn remove_lists(&self) -> Result<()> {
        for entry in fs::list(&self.partial)? {
            if entry.name.to_str().is_some_and(|name| name.starts_with(LIST_PREFIX)) {
                fs::remove_file(&self.partial.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

/// The complete groups in `directory` that agree with what is `wanted`, and their parameters. None when there are none.
fn found(
    context: &WriteContext,
    keys: &dyn KeyProvider,
    directory: &Arc<Directory>,
    wanted: SealParams,
    token: &serde_json::Value,
) -> Option<(SealParams, Groups)> {
    let reader = Reader {
        io: &context.io,
        arena: &context.arena,
        patience: context.patience,
        priority: Priority::Background,
    };
    let home = DirectoryHome::new(Arc::clone(directory), Lane::Slow);
    let mut of: Option<FileId> = None;
    let mut groups = Groups::new();
    for entry in fs::list(directory.path()).ok()? {
        let Some(name) = entry.name.to_str().filter(|name| name.starts_with(LIST_PREFIX)) else { continue };
        // A list that was cut off by a crash is no list: its group is written again.
        let Ok((file, list)) = read_sealed_manifest(&reader, &home, name, keys) else { continue };
        let params = file.header().params;
        let new = wanted.generation == 1;
        let agrees = (params.cipher, params.generation, params.block_bytes, params.record_align)
            == (wanted.cipher, wanted.generation, wanted.block_bytes, wanted.record_align)
            && list.compressed == wanted.compressed
            && &list.source == token
            && (new || params.data_set_id == wanted.data_set_id)
            && of.is_none_or(|of| of == params.data_set_id);
        let number = list.name.parse().ok().filter(|number| name == format!("{LIST_PREFIX}{number:05}.tsm"));
        let whole = || {
            list.shards.iter().all(|shard| {
                let expected = Expected { id: shard.file_id(), mac: shard.mac };
                SealedFile::open(&reader, &home, &shard.file, keys, Some(expected)).is_ok()
            })
        };
        if let Some(number) = number.filter(|_: &usize| agrees && whole()) {
            of = Some(params.data_set_id);
            groups.push((number, list.shards.into_iter().map(SealedShard).collect()));
        }
    }
    groups.sort_by_key(|(number, _)| *number);
    of.map(|data_set_id| (SealParams { data_set_id, ..wanted }, groups))
}
