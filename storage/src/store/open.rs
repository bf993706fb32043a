//! Opening data sets: the manifest at once, each shard when it is first read.
//!
//! Guarantees that a shard is the one its manifest names, and that a data set is not older than what the catalog has
//! seen of it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tierstream_crypto::KeyProvider;

use super::DataSetInfo;
use super::core::Core;
use super::data_set::Seen;
use super::sealed_file::{Expected, SealedFile};
use super::stream::Reader;
use crate::catalog::{Batch, Table};
use crate::device::{Directory, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BlockKind, Header, Kind, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SealParams, ShardEntry,
};
use crate::home::{DirectoryHome, ShardHome};
use crate::io::Lane;
use crate::tier::FileNo;
use crate::units::to_usize;

/// A shard that a manifest named; opened when it is first read.
pub(super) struct Shard {
    home: Arc<dyn ShardHome>,
    entry: ShardEntry,
    set: SealParams,
    opened: Mutex<Option<Arc<SealedFile>>>,
}

impl Shard {
    /// Whether `header` is what the manifest says of this shard: all that readers go by was said there.
    fn describes(&self, header: &Header) -> bool {
        let found = SealParams { file_id: self.set.file_id, ..header.params };
        let sizes = (header.file_bytes(), header.payload_bytes, header.record_count);
        found == self.set && sizes == (self.entry.file_bytes, self.entry.payload_bytes, self.entry.records)
    }
}

impl Core {
    /// Opens the data set in the directory `location`.
    pub(super) fn open_data_set(&self, location: &Path) -> Result<Arc<DataSetInfo>> {
        let directory = Directory::open(location).map_err(|error| {
            error.hint("give the directory of a packed data set; `tierstream pack INPUT OUTPUT` makes one")
        })?;
        let home: Arc<dyn ShardHome> = Arc::new(DirectoryHome::new(directory, Lane::Slow));
        let (file, manifest) = read_manifest(&self.reader(), &*home, &*self.keys)?;
        if manifest.block_bytes > self.config.block_bytes {
            let why = format!(
                "blocks of {} bytes, but the store takes {}",
                manifest.block_bytes, self.config.block_bytes
            );
            return Err(Error::new(ErrorKind::Misuse, "open", why).at(file.path()));
        }
        self.check_rollback(&file, location)?;
        let own = file.header().params;
        let (id, params) =
            (own.data_set_id, SealParams { kind: Kind::Shard, compressed: manifest.compressed, ..own });
        let warm = self.l2.as_ref().map_or(0, |l2| {
            l2.open_data_set(id);
            l2.resident_bytes(id)
        });
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        let files: Arc<[FileNo]> = manifest
            .shards
            .iter()
            .map(|entry| {
                let number = self.files.intern(entry.file_id());
                // The same files in another directory: the data set was moved.
                let known = shards.get(&number).is_some_and(|shard| shard.home.location() == home.location());
                if !known {
                    let (home, entry) = (Arc::clone(&home), entry.clone());
                    let shard = Shard { home, entry, set: params, opened: Mutex::default() };
                    shards.insert(number, Arc::new(shard));
                }
                number
            })
            .collect();
        drop(shards);
        let mut sets = self.data_sets.write().unwrap_or_else(PoisonError::into_inner);
        // Opened again, by another client say, it keeps its number.
        let known = sets.iter().position(|known| **known == *files);
        let handle = known.unwrap_or(sets.len());
        let handle = u32::try_from(handle).expect("fewer than 2^32 data sets");
        if known.is_none() {
            sets.push(files);
        }
        Ok(Arc::new(DataSetInfo::new(handle, file.header(), &manifest, file.codec().kernel(), warm)))
    }

    /// The shard of that number, opened if nobody has read it yet.
    pub(super) fn shard(&self, file: FileNo) -> Result<Arc<SealedFile>> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let shard = shards.get(&file).cloned();
        drop(shards);
        if shard.is_none()
            && let Some(file) = self.object_file(file)
        {
            return Ok(file);
        }
        let shard = shard
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "read", "the shard is not open in this store"))?;
        // Held while opening, so that many readers of a new shard open it once.
        let mut opened = shard.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*opened {
            return Ok(Arc::clone(file));
        }
        let expected = Expected { id: shard.entry.file_id(), mac: shard.entry.mac };
        let mut file =
            SealedFile::open(&self.reader(), &*shard.home, &shard.entry.file, &*self.keys, Some(expected))?;
        if !shard.describes(file.header()) {
            let why = "the shard is not the one its manifest describes";
            return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
        }
        file.share_dictionary(&mut self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner));
        let file = Arc::new(file);
        *opened = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Directories of the data sets that are open.
    pub(super) fn open_directories(&self) -> Vec<String> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<String> =
            shards.values().map(|shard| shard.home.location().display().to_string()).collect();
        found.sort();
        found.dedup();
        found
    }

    /// The shard of that number, if a data set that is open has it.
    pub(super) fn known_shard(&self, file: FileNo) -> Option<Result<Arc<SealedFile>>> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let known = shards.contains_key(&file);
        drop(shards);
        known.then(|| self.shard(file))
    }

    /// Refuses a data set older than one this store has seen under the same id, and remembers this one and its place.
    fn check_rollback(&self, file: &SealedFile, location: &Path) -> Result<()> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let params = &file.header().params;
        let found = Seen { generation: params.generation, mac: *file.mac() };
        let key = Seen::key(params.data_set_id);
        let remembered = catalog.get(Table::DataSets, &key)?.as_deref().and_then(Seen::decode);
        let seen = remembered.as_ref().map(|(seen, _)| *seen);
        if let Some(seen) = seen.filter(|seen| *seen != found && !self.config.allow_rollback)
            && seen.generation >= found.generation
        {
            let why = format!(
                "the data set was rolled back: generation {}, but generation {} was seen before{}",
                found.generation,
                seen.generation,
                if seen.generation == found.generation { " with other contents" } else { "" }
            );
            return Err(Error::new(ErrorKind::Corrupt, "open", why)
                .at(file.path())
                .hint("if you restored an older copy on purpose, use --allow-rollback once"));
        }
        // Absolute, so that it can be found from elsewhere.
        let location = std::path::absolute(location).unwrap_or_else(|_| location.to_owned());
        if remembered.is_none_or(|remembered| remembered != (found, location.clone())) {
            let mut batch = Batch::default();
            batch.put(Table::DataSets, &key, &found.encode(&location));
            catalog.apply(&batch)?;
        }
        Ok(())
    }
}

/// Opens and authenticates the manifest of the data set in `home`.
pub(super) fn read_manifest(
    reader: &Reader<'_>,
    home: &dyn ShardHome,
    keys: &dyn KeyProvider,
) -> Result<(SealedFile, Manifest)> {
    read_sealed_manifest(reader, home, MANIFEST_NAME, keys).map_err(|error| {
        if error.kind() == ErrorKind::Missing
            && error.place().is_some_and(|place| matches!(fs::is_directory(&place.path), Ok(None)))
        {
            return error.hint("this is no packed data set: `tierstream pack INPUT OUTPUT` makes one");
        }
        error
    })
}

/// As [`read_manifest`], for a file of another name.
pub(super) fn read_sealed_manifest(
    reader: &Reader<'_>,
    home: &dyn ShardHome,
    name: &str,
    keys: &dyn KeyProvider,
) -> Result<(SealedFile, Manifest)> {
    let file = SealedFile::open(reader, home, name, keys, None)?;
    let header = file.header();
    let params = &header.params;
    // Uncompressed, so that the file is as long as what is read from it.
    if params.kind != Kind::Manifest || params.compressed || header.payload_bytes > MANIFEST_BYTES_MAX {
        let why = format!("a {} of {} bytes is no manifest", params.kind.name(), header.payload_bytes);
        return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
    }
    let mut json = Vec::with_capacity(to_usize(header.payload_bytes));
    reader.open_all(&file, BlockKind::Data, |_, plain| {
        json.extend_from_slice(plain);
        Ok(())
    })?;
    let manifest = Manifest::parse(&json).map_err(|error| error.at(file.path()))?;
    if (manifest.block_bytes, manifest.record_align) != (params.block_bytes, params.record_align) {
        let why = "the manifest's header and its text give blocks or records other lengths";
        return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
    }
    Ok((file, manifest))
}
