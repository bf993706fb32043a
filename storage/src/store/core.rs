//! The store itself: owns the tiers and the threads, and hands out blocks.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tierstream_crypto::KeyProvider;

use super::data_set::Seen;
use super::load::{Job, Load};
use super::sealed_file::{Expected, SealedFile};
use super::stream::Reader;
use super::{DataSetInfo, RangeRead, RangeSource, Section, StoreConfig};
use crate::buf::{Arena, HeapAllocator};
use crate::catalog::{self, Batch, CatalogStore, Table};
use crate::codec::Scratch;
use crate::device::Directory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BlockKind, FileId, Kind, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SectionType, ShardEntry, capacity,
};
use crate::io::{EngineReport, IoEngine, IoService, Lane, Priority};
use crate::metrics::{Metrics, Snapshot, TierName};
use crate::tier::{BlockKey, BlockRef, FileNo, FileTable, Lookup, MemoryTier, NvmeTier, S3Fifo, Ticket};
use crate::units::{ByteRange, to_u64, to_usize};

/// Buffers that announced and predicted reads leave for those that somebody waits for.
const DEMAND_RESERVE: usize = 8;
/// Blocks that one call to `read` has in flight at most.
const READ_WINDOW: usize = 32;

/// How much a fetch matters and whether it may wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// Its place among others.
    pub priority: Priority,
    /// Within a priority the lowest goes first.
    pub deadline: u64,
}

impl Urgency {
    /// Somebody waits: the fetch waits for room if it must.
    pub const DEMAND: Self = Self { priority: Priority::Demand, deadline: 0 };

    /// A plan needs it at `deadline`: the fetch is refused rather than made to wait.
    #[must_use]
    pub fn announced(deadline: u64) -> Self {
        Self { priority: Priority::Announced, deadline }
    }
}

/// Sealed data sets on three tiers. Clones share the same store; the last one closes it.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
    _threads: Arc<Threads>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Store({}, L1 {} blocks, L2 {:?})",
            self.core.io.report(),
            self.core.l1.slots(),
            self.core.config.l2
        )
    }
}

pub(super) struct Core {
    pub(super) config: StoreConfig,
    pub(super) io: IoService,
    pub(super) io_arena: Arc<Arena>,
    pub(super) l1: MemoryTier,
    pub(super) l2: Option<NvmeTier>,
    pub(super) metrics: Metrics,
    catalog: Option<Arc<dyn CatalogStore>>,
    keys: Arc<dyn KeyProvider>,
    files: Arc<FileTable>,
    shards: RwLock<HashMap<FileNo, Arc<Shard>>>,
    data_sets: RwLock<Vec<Arc<[FileNo]>>>,
    codec: Sender<Job>,
}

/// A shard that a manifest named; opened when it is first read.
struct Shard {
    directory: Arc<Directory>,
    entry: ShardEntry,
    data_set_id: FileId,
    opened: Mutex<Option<Arc<SealedFile>>>,
}

struct Threads {
    core: Arc<Core>,
    codec: Mutex<Vec<JoinHandle<()>>>,
    jobs: Receiver<Job>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        // First no more reads end, then what arrived is opened, then what L2 learned is written down.
        self.core.io.shut_down();
        let threads: Vec<_> = self.codec.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for _ in &threads {
            let _ended = self.core.codec.send(Job::Stop);
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a codec thread panicked");
            }
        }
        // Loads that were handed over behind the message to stop: dropping them ends their flights.
        while self.jobs.try_recv().is_ok() {}
        if let Some(l2) = &self.core.l2 {
            l2.close();
        }
    }
}

impl Store {
    /// Opens a store; `keys` unwrap the data keys of its files.
    ///
    /// # Errors
    /// `Misuse` for settings that make no sense, `Missing` when the L2 directory does not exist, `Full` when it has no
    /// room, `Retry` when another process has it open.
    pub fn open(config: StoreConfig, keys: Arc<dyn KeyProvider>) -> Result<Self> {
        let (engine, depth) = (config.io.engine, config.io.fast_depth + config.io.slow_depth);
        Self::build(config, keys, move |arena| crate::io::ladder::open(engine, depth, Some(arena)))
    }

    /// As [`Store::open`], on an engine of the caller's making.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open_on<F>(config: StoreConfig, keys: Arc<dyn KeyProvider>, engine: F) -> Result<Self>
    where
        F: FnOnce(&Arc<Arena>) -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        Self::build(config, keys, engine)
    }

    fn build<F>(config: StoreConfig, keys: Arc<dyn KeyProvider>, engine: F) -> Result<Self>
    where
        F: FnOnce(&Arc<Arena>) -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        let block_bytes = to_usize(u64::from(config.block_bytes));
        let l1 = Arena::new("L1", block_bytes, config.l1_slots()?, &HeapAllocator)?;
        let io_arena = Arena::new("I/O", block_bytes, config.io_slots(), &HeapAllocator)?;
        let files = Arc::new(FileTable::default());
        let (l2, catalog) = match &config.l2 {
            None => (None, None),
            Some(l2) => {
                Directory::open(&l2.directory).map_err(|error| {
                    error.hint(format!("make the L2 directory: mkdir -p {}", l2.directory.display()))
                })?;
                let catalog = catalog::open(config.catalog, &l2.directory)?;
                (Some(NvmeTier::open(l2, Arc::clone(&catalog), Arc::clone(&files))?), Some(catalog))
            }
        };
        let arena = Arc::clone(&io_arena);
        let io = IoService::start_with(&config.io, move || engine(&arena))?;
        // Room for every buffer there is, and the messages to stop.
        let (codec, jobs) = bounded(io_arena.slots() + config.codec_threads);
        let core = Arc::new(Core {
            io,
            io_arena,
            l1: MemoryTier::new(l1, Box::new(S3Fifo::default())),
            l2,
            metrics: Metrics::default(),
            catalog,
            keys,
            files,
            shards: RwLock::default(),
            data_sets: RwLock::default(),
            codec,
            config,
        });
        let threads = start_codec_threads(core.config.codec_threads.max(1), &jobs)?;
        let threads = Arc::new(Threads { core: Arc::clone(&core), codec: Mutex::new(threads), jobs });
        Ok(Self { core, _threads: threads })
    }

    /// Which I/O engine runs and why.
    #[must_use]
    pub fn io_report(&self) -> &EngineReport {
        self.core.io.report()
    }

    /// Blocks that fit L1.
    #[must_use]
    pub fn l1_blocks(&self) -> usize {
        self.core.l1.slots()
    }

    /// What a block takes of L1, in bytes.
    #[must_use]
    pub fn l1_block_bytes(&self) -> u64 {
        to_u64(self.core.l1.slot_bytes())
    }

    /// How long reads wait.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.core.config.patience
    }

    /// The store's numbers for the shards of a data set it has open, in order.
    ///
    /// # Errors
    /// `Misuse` for a data set of another source.
    pub fn files(&self, set: &DataSetInfo) -> Result<Arc<[FileNo]>> {
        let sets = self.core.data_sets.read().unwrap_or_else(PoisonError::into_inner);
        let files = sets.get(to_usize(u64::from(set.handle))).filter(|files| files.len() == set.shards.len());
        files
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "read", "the data set is not open in this store"))
    }

    /// A block, or the promise of one. `None` when there is no room for a fetch that may not wait.
    ///
    /// # Errors
    /// When the shard cannot be opened; for a demand also `Full` when no room came free.
    pub fn fetch(&self, key: BlockKey, urgency: Urgency) -> Result<Option<Ticket>> {
        self.core.fetch(key, urgency)
    }
}

fn start_codec_threads(count: usize, jobs: &Receiver<Job>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::with_capacity(count);
    for number in 0..count {
        let jobs = jobs.clone();
        let mut scratch = Scratch::new()?;
        let run = move || {
            while let Ok(Job::Arrived { load, from, place, outcome, buf }) = jobs.recv() {
                load.arrived(from, &place, outcome, buf, &mut scratch);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("tier-codec-{number}"))
            .spawn(run)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no codec thread: {error}")))?;
        threads.push(thread);
    }
    Ok(threads)
}

impl Core {
    pub(super) fn hand_over(&self, job: Job) {
        // The channel has room for every buffer; only a store whose codec threads are gone refuses, and then the load
        // ends its flight when it is dropped.
        drop(self.codec.try_send(job));
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            io: &self.io,
            arena: &self.io_arena,
            patience: self.config.patience,
            priority: Priority::Demand,
        }
    }

    fn shard(&self, file: FileNo) -> Result<Arc<SealedFile>> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let shard = shards.get(&file).cloned();
        drop(shards);
        let shard = shard
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "read", "the shard is not open in this store"))?;
        // Held while opening, so that many readers of a new shard open it once.
        let mut opened = shard.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*opened {
            return Ok(Arc::clone(file));
        }
        let expected = Expected { id: shard.entry.file_id(), mac: shard.entry.mac };
        let file = SealedFile::open(
            &self.reader(),
            &shard.directory,
            &shard.entry.file,
            &*self.keys,
            Some(expected),
        )?;
        let header = file.header();
        let belongs = header.params.kind == Kind::Shard && header.params.data_set_id == shard.data_set_id;
        if !belongs || header.payload_bytes != shard.entry.payload_bytes {
            let why = "the shard is not the one its manifest describes";
            return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
        }
        let file = Arc::new(file);
        *opened = Some(Arc::clone(&file));
        Ok(file)
    }

    fn fetch(self: &Arc<Self>, key: BlockKey, urgency: Urgency) -> Result<Option<Ticket>> {
        let demand = urgency.priority == Priority::Demand;
        if let Some(ticket) = self.l1.get(key) {
            if demand && ticket.try_get().is_none() {
                self.io.raise(Lane::Fast, key.tag(), Priority::Demand);
                self.io.raise(Lane::Slow, key.tag(), Priority::Demand);
            }
            return Ok(Some(ticket));
        }
        let file = self.shard(key.file)?;
        if u64::from(key.block) >= file.header().block_count() {
            let why = format!("data block {} of {}", key.block, file.header().block_count());
            return Err(Error::new(ErrorKind::Misuse, "read", why).at(file.path()));
        }
        let buf = if demand {
            self.io_arena.take(self.config.patience)?
        } else {
            match self.io_arena.try_take(DEMAND_RESERVE) {
                Some(buf) => buf,
                None => return Ok(None),
            }
        };
        match self.l1_room(key, demand)? {
            None => Ok(None),
            Some(Lookup::Load(flight, slot)) => {
                let ticket = Ticket::pending(key, Arc::clone(&flight));
                let order = (urgency.priority, urgency.deadline);
                Load::new(self, key, file, (flight, slot), order).start(buf);
                Ok(Some(ticket))
            }
            Some(Lookup::Found(ticket)) => Ok(Some(ticket)),
            Some(Lookup::Full) => Err(l1_full(self.l1.slots())),
        }
    }

    /// An L1 slot for `key`; a demand waits for one.
    fn l1_room(&self, key: BlockKey, demand: bool) -> Result<Option<Lookup>> {
        let clock = &self.config.clock;
        let deadline = clock.now() + self.config.patience;
        loop {
            match self.l1.get_or_load(key) {
                Lookup::Full if !demand => return Ok(None),
                // Rare: all of L1 is held by readers. A block that is let go stays resident, so that there is no event
                // to wait for.
                Lookup::Full if clock.now() < deadline => std::thread::park_timeout(Duration::from_millis(1)),
                Lookup::Full => return Err(l1_full(self.l1.slots())),
                lookup => return Ok(Some(lookup)),
            }
        }
    }

    /// Copies what `block` has of `range` to its place in `to`.
    fn copy(block_number: u64, block: &[u8], capacity: u64, range: &ByteRange, to: &mut [u8]) {
        let block_start = block_number * capacity;
        let start = range.start.max(block_start);
        let end = range.end.min(block_start + to_u64(block.len()));
        let from = &block[to_usize(start - block_start)..to_usize(end - block_start)];
        to[to_usize(start - range.start)..to_usize(end - range.start)].copy_from_slice(from);
    }

    fn read(
        self: &Arc<Self>,
        set: &DataSetInfo,
        files: &[FileNo],
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let capacity = capacity(set.block_bytes);
        let mut waiting: VecDeque<(usize, u64, Ticket)> = VecDeque::new();
        let window = READ_WINDOW.min(self.l1.slots() / 4).max(1);
        for index in 0..reads.len() {
            let RangeRead { shard, range, to } = &mut reads[index];
            check_range(set, *shard, range, to.len())?;
            for number in range.start / capacity..range.end.div_ceil(capacity) {
                let block = u32::try_from(number).expect("fewer than 2^32 blocks in a file");
                let key = BlockKey { file: files[*shard], block };
                let ticket = self.fetch(key, Urgency::DEMAND)?.ok_or_else(|| l1_full(self.l1.slots()))?;
                match ticket.try_get() {
                    Some(block) => {
                        let block = block?;
                        self.metrics.hit(TierName::L1, overlap(number, capacity, range));
                        Self::copy(number, &block, capacity, range, to);
                    }
                    None => {
                        self.metrics.demand_wait();
                        waiting.push_back((index, number, ticket));
                    }
                }
            }
            while waiting.len() > window {
                self.finish_one(&mut waiting, capacity, reads)?;
            }
        }
        while !waiting.is_empty() {
            self.finish_one(&mut waiting, capacity, reads)?;
        }
        Ok(())
    }

    fn finish_one(
        &self,
        waiting: &mut VecDeque<(usize, u64, Ticket)>,
        capacity: u64,
        reads: &mut [RangeRead<'_>],
    ) -> Result<()> {
        let Some((index, number, ticket)) = waiting.pop_front() else { return Ok(()) };
        let block: BlockRef = ticket.wait(self.config.patience)?;
        let RangeRead { range, to, .. } = &mut reads[index];
        Self::copy(number, &block, capacity, range, to);
        Ok(())
    }

    /// Refuses a data set older than one this store has seen under the same id, and remembers this one.
    fn check_rollback(&self, file: &SealedFile) -> Result<()> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let params = &file.header().params;
        let found = Seen { generation: params.generation, mac: *file.mac() };
        let key = Seen::key(params.data_set_id);
        let seen = catalog.get(Table::DataSets, &key)?.as_deref().and_then(Seen::decode);
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
        if seen != Some(found) {
            let mut batch = Batch::default();
            batch.put(Table::DataSets, &key, &found.encode());
            catalog.apply(&batch)?;
        }
        Ok(())
    }
}

fn overlap(number: u64, capacity: u64, range: &ByteRange) -> u64 {
    range.end.min((number + 1) * capacity) - range.start.max(number * capacity)
}

fn check_range(set: &DataSetInfo, shard: usize, range: &ByteRange, len: usize) -> Result<()> {
    let payload = set.shards.get(shard).map_or(0, |shard| shard.payload_bytes);
    if range.start > range.end || range.end > payload || range.end - range.start != to_u64(len) {
        let why = format!("bytes {range:?} of shard {shard}, which has {payload}, into {len}");
        return Err(Error::new(ErrorKind::Misuse, "read", why));
    }
    Ok(())
}

fn l1_full(slots: usize) -> Error {
    Error::new(ErrorKind::Full, "read", format!("all {slots} blocks of L1 are in use"))
        .hint("raise --l1-size, or lower --batch-size")
}

impl RangeSource for Store {
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>> {
        let core = &self.core;
        let directory = Directory::open(Path::new(location)).map_err(|error| {
            error.hint("give the directory of a packed data set; `tierstream pack INPUT OUTPUT` makes one")
        })?;
        let (file, manifest) = read_manifest(&core.reader(), &directory, &*core.keys)?;
        if manifest.block_bytes > core.config.block_bytes {
            let why = format!(
                "blocks of {} bytes, but the store takes {}",
                manifest.block_bytes, core.config.block_bytes
            );
            return Err(Error::new(ErrorKind::Misuse, "open", why).at(file.path()));
        }
        core.check_rollback(&file)?;
        let id = file.header().params.data_set_id;
        let warm = core.l2.as_ref().map_or(0, |l2| {
            l2.open_data_set(id);
            l2.resident_bytes(id)
        });
        let mut shards = core.shards.write().unwrap_or_else(PoisonError::into_inner);
        let files: Arc<[FileNo]> = manifest
            .shards
            .iter()
            .map(|entry| {
                let number = core.files.intern(entry.file_id());
                let (directory, entry) = (Arc::clone(&directory), entry.clone());
                shards.entry(number).or_insert_with(|| {
                    Arc::new(Shard { directory, entry, data_set_id: id, opened: Mutex::default() })
                });
                number
            })
            .collect();
        drop(shards);
        let mut sets = core.data_sets.write().unwrap_or_else(PoisonError::into_inner);
        // Opened again, by another client say, it keeps its number.
        let known = sets.iter().position(|known| **known == *files);
        let handle = known.unwrap_or(sets.len());
        let handle = u32::try_from(handle).expect("fewer than 2^32 data sets");
        if known.is_none() {
            sets.push(files);
        }
        Ok(Arc::new(DataSetInfo::new(handle, file.header(), &manifest, file.codec().kernel(), warm)))
    }

    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>> {
        let files = self.files(set)?;
        let number = files.get(shard).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "read", format!("shard {shard} of {}", files.len()))
        })?;
        let file = self.core.shard(*number)?;
        if file.header().index_bytes == 0 {
            return Ok(None);
        }
        Ok(file.read_index(&self.core.reader())?.section(section))
    }

    fn read(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()> {
        let files = self.files(set)?;
        self.core.read(set, &files, reads)
    }

    fn metrics(&self) -> Snapshot {
        self.core.metrics.snapshot()
    }
}

/// Opens and authenticates the manifest of the data set in `directory`.
pub(super) fn read_manifest(
    reader: &Reader<'_>,
    directory: &Directory,
    keys: &dyn KeyProvider,
) -> Result<(SealedFile, Manifest)> {
    let file = SealedFile::open(reader, directory, MANIFEST_NAME, keys, None).map_err(|error| {
        if error.kind() == ErrorKind::Missing && error.place().is_some_and(|place| !place.path.exists()) {
            return error.hint("this is no packed data set: `tierstream pack INPUT OUTPUT` makes one");
        }
        error
    })?;
    let header = file.header();
    if header.params.kind != Kind::Manifest || header.payload_bytes > MANIFEST_BYTES_MAX {
        let why = format!("a {} of {} bytes is no manifest", header.params.kind.name(), header.payload_bytes);
        return Err(Error::new(ErrorKind::Corrupt, "open", why).at(file.path()));
    }
    let mut json = Vec::with_capacity(to_usize(header.payload_bytes));
    reader.open_all(&file, BlockKind::Data, |_, plain| {
        json.extend_from_slice(plain);
        Ok(())
    })?;
    let manifest = Manifest::parse(&json).map_err(|error| error.at(file.path()))?;
    Ok((file, manifest))
}
