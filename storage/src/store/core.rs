//! The store itself: owns the tiers and the threads, and hands out blocks.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use tierstream_crypto::KeyProvider;

use super::load::{Job, Load};
use super::object::{DrainMode, Objects};
use super::open::Shard;
use super::status::StatusServer;
use super::stream::Reader;
use super::{DataSetInfo, RangeRead, RangeSource, ReadLog, Section, StoreConfig};
use crate::buf::{Arena, SharedAllocator};
use crate::catalog::{self, CatalogStore};
use crate::codec::{Dictionary, Scratch};
use crate::device::Directory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::SectionType;
use crate::host::channel::{Receiver, Sender, bounded};
use crate::host::{JoinHandle, pause, spawn};
use crate::io::{EngineReport, IoService, Lane, Priority, ServiceConfig};
use crate::metrics::{Metrics, Snapshot, TierName};
use crate::tier::{
    Auto, BlockKey, BlockRef, FileNo, FileTable, L1Usage, Lookup, MemoryTier, NvmeTier, Throttle, Ticket,
};
use crate::units::{to_u64, to_usize};

/// Buffers that announced and predicted reads leave for those that somebody waits for.
pub(super) const DEMAND_RESERVE: usize = 8;
/// Working memories that are kept for the next who waits and opens blocks meanwhile.
const HELPERS_KEPT: usize = 16;
/// Where blocks lie: on huge pages, from the machine's pool where it has one.
const PAGES: SharedAllocator = SharedAllocator { prefer_huge: true };
/// How long a store that closes lets devices finish: many times what a full queue takes on an HDD (100 reads at 150 a
/// second), short enough to wait for at a prompt.
const SETTLE_TIME: Duration = Duration::from_secs(5);

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
    pub(super) catalog: Option<Arc<dyn CatalogStore>>,
    pub(super) keys: Arc<dyn KeyProvider>,
    pub(super) files: Arc<FileTable>,
    pub(super) objects: Option<Objects>,
    pub(super) shards: RwLock<HashMap<FileNo, Arc<Shard>>>,
    pub(super) data_sets: RwLock<Vec<Arc<[FileNo]>>>,
    pub(super) opened_at: Duration,
    pub(super) dictionaries: Mutex<Vec<Weak<Dictionary>>>,
    // Once somebody predicts from reads.
    pub(super) read_log: OnceLock<Arc<ReadLog>>,
    // Held by who has blocks written to L2, so that those of one read lie side by side there.
    pub(super) admitting: Mutex<()>,
    codec: Sender<Job>,
    // The other end of `codec`, for who waits for a block and has nothing better to do than to open some.
    jobs: Receiver<Job>,
    // Working memory of those.
    helpers: Mutex<Vec<Scratch>>,
}

struct Threads {
    core: Arc<Core>,
    status: Mutex<Option<StatusServer>>,
    codec: Mutex<Vec<JoinHandle>>,
    drain: Mutex<Option<JoinHandle>>,
    jobs: Receiver<Job>,
}

impl Threads {
    /// Waits until nothing is under way: until every I/O buffer is free. Nobody who could ask for more is left.
    fn settle(&self) {
        let clock = &self.core.config.clock;
        let deadline = clock.now() + SETTLE_TIME;
        let all: Vec<_> = (0..self.core.io_arena.slots())
            .map_while(|_| self.core.io_arena.take(deadline.saturating_sub(clock.now())).ok())
            .collect();
        if all.len() < self.core.io_arena.slots() {
            tracing::warn!("closing the store while reads or writes are still under way");
        }
    }
}

impl Threads {
    /// Ends the drain between two blocks: what is dirty stays so, durable, and is drained after the next opening.
    fn end_drain(&self) {
        let Some(objects) = &self.core.objects else { return };
        objects.stop();
        let thread = self.drain.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the drain's thread panicked");
        }
        objects.remember_heat();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Nobody asks any more.
        drop(self.status.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.end_drain();
        // First what is under way ends, writes to L2 included, then the threads, then what L2 learned is written down.
        self.settle();
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
        Self::build(config, keys, |io, arena| IoService::start(io, Some(arena)))
    }

    /// As [`Store::open`], on an engine of the caller's making.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open_on<F>(config: StoreConfig, keys: Arc<dyn KeyProvider>, engine: F) -> Result<Self>
    where
        F: FnOnce(&Arc<Arena>) -> Result<(Box<dyn crate::io::IoEngine>, EngineReport)> + Send + 'static,
    {
        Self::build(config, keys, |io, arena| {
            let arena = Arc::clone(arena);
            IoService::start_with(io, move || engine(&arena))
        })
    }

    /// I/O buffers that nobody holds, and how many there are.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn free_buffers(&self) -> (usize, usize) {
        (self.core.io_arena.free_slots(), self.core.io_arena.slots())
    }

    fn build(
        config: StoreConfig,
        keys: Arc<dyn KeyProvider>,
        start: impl FnOnce(&ServiceConfig, &Arc<Arena>) -> Result<IoService>,
    ) -> Result<Self> {
        let block_bytes = to_usize(u64::from(config.block_bytes));
        let l1_slots = config.l1_slots()?;
        let policy = Box::new(Auto::until_told(l1_slots));
        let pages = SharedAllocator { prefer_huge: !config.share_l1 };
        let l1 = MemoryTier::new(block_bytes, l1_slots, &pages, policy)?;
        let io_arena = Arena::new("I/O", block_bytes, config.io_slots(), &PAGES)?;
        let files = Arc::new(FileTable::default());
        let (l2, catalog, rebuilt) = match open_l2(&config, &files)? {
            None => (None, None, None),
            Some((l2, catalog, rebuilt)) => (Some(l2), Some(catalog), rebuilt),
        };
        let objects = match &config.objects {
            Some(of) => Some(Objects::open(of, &config, catalog.clone(), rebuilt)?),
            None => None,
        };
        let io = start(&config.io_service(), &io_arena)?;
        // Room for every buffer there is, and the messages to stop.
        let (codec, jobs) = bounded(io_arena.slots() + config.codec_threads);
        let core = Arc::new(Core {
            io,
            io_arena,
            l1,
            l2,
            metrics: Metrics::default(),
            catalog,
            keys,
            files,
            objects,
            shards: RwLock::default(),
            data_sets: RwLock::default(),
            opened_at: config.clock.now(),
            dictionaries: Mutex::default(),
            read_log: OnceLock::new(),
            admitting: Mutex::default(),
            codec,
            jobs: jobs.clone(),
            helpers: Mutex::default(),
            config,
        });
        if core.objects.is_some() {
            core.recover_objects()?;
        }
        let threads = start_codec_threads(core.config.codec_threads.max(1), &jobs)?;
        let (status, codec, drain) = (start_status(&core), Mutex::new(threads), Mutex::default());
        let threads =
            Arc::new(Threads { core: Arc::clone(&core), status: Mutex::new(status), codec, drain, jobs });
        if core.config.objects.as_ref().is_some_and(|objects| objects.drain == DrainMode::Background) {
            *threads.drain.lock().unwrap_or_else(PoisonError::into_inner) = Some(start_drain(&core)?);
        }
        Ok(Self { core, _threads: threads })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// A view of a block that L1 has: no lock, no allocation, no copy. The block stays while the view lives.
    #[must_use]
    pub fn view(&self, key: BlockKey) -> Option<BlockRef> {
        self.core.l1.view(key)
    }

    /// As [`Store::view`], counted as a hit of L1: for who hands the block on.
    #[must_use]
    pub fn hit(&self, key: BlockKey) -> Option<BlockRef> {
        let block = self.core.l1.view(key)?;
        self.core.metrics.hit(TierName::L1, to_u64(block.len()));
        Some(block)
    }

    /// The sealed file that L1 lies in, for other processes to map read only; a block is at [`BlockRef::offset`]. Who
    /// has it can read every block that is or comes there. None unless the settings ask for shared memory.
    #[must_use]
    pub fn shared_l1(&self) -> Option<BorrowedFd<'_>> {
        self.core.l1.shared_file().filter(|_| self.core.config.share_l1)
    }

    /// How the memory of L1 is used.
    #[must_use]
    pub fn l1_usage(&self) -> L1Usage {
        self.core.l1.usage()
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

    /// Adjacent blocks of a file, or the promises of them, in order: what lies side by side on a device is read as one.
    /// Fewer than asked for when room is short, and those of [`RUN_BYTES`](super::RUN_BYTES) at most; none at all only
    /// when there is no room for a fetch that may not wait.
    ///
    /// # Errors
    /// As [`Store::fetch`].
    pub fn fetch_run(&self, file: FileNo, blocks: Range<u32>, urgency: Urgency) -> Result<Vec<Ticket>> {
        let mut tickets = Vec::with_capacity(blocks.len().min(self.core.run_blocks()));
        self.core.fetch_run(file, blocks, urgency, |_, ticket| tickets.push(ticket))?;
        Ok(tickets)
    }
}

/// Where the settings ask for it: without it the store is as good, so that a failure is only said.
fn start_status(core: &Arc<Core>) -> Option<StatusServer> {
    let first = core.config.l2.first().filter(|_| core.config.tells_status)?;
    StatusServer::start(&first.path, Arc::clone(core))
        .inspect_err(|error| tracing::warn!(%error, "`tierstream status` will find no answer"))
        .ok()
}

/// L2, the catalog beside it, and why that was made anew, if it was.
type OpenedL2 = (NvmeTier, Arc<dyn CatalogStore>, Option<String>);

/// L2 and the catalog beside it, where the settings name devices.
fn open_l2(config: &StoreConfig, files: &Arc<FileTable>) -> Result<Option<OpenedL2>> {
    let Some(first) = config.l2.first() else { return Ok(None) };
    Directory::open(&first.path).map_err(|error| match error.kind() {
        ErrorKind::Misuse => error.hint("give a directory as the first --l2: the catalog is kept there"),
        _ => error.hint(format!("make the L2 directory: mkdir -p {}", first.path.display())),
    })?;
    let (catalog, rebuilt) = catalog::open_or_rebuild(config.catalog, &first.path)?;
    let throttle = config.l2_write_rate.map(|rate| Throttle::new(rate, Arc::clone(&config.clock)));
    let l2 = NvmeTier::open(&config.l2, throttle, Arc::clone(&catalog), Arc::clone(files))?;
    Ok(Some((l2, catalog, rebuilt)))
}

fn start_codec_threads(count: usize, jobs: &Receiver<Job>) -> Result<Vec<JoinHandle>> {
    let mut threads = Vec::with_capacity(count);
    for number in 0..count {
        let jobs = jobs.clone();
        let mut scratch = Scratch::new()?;
        let run = move || {
            while jobs.recv().is_ok_and(|job| job.run(&mut scratch)) {}
        };
        let thread = spawn(&format!("tier-codec-{number}"), run)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no codec thread: {error}")))?;
        threads.push(thread);
    }
    Ok(threads)
}

fn start_drain(core: &Arc<Core>) -> Result<JoinHandle> {
    let core = Arc::clone(core);
    spawn("tier-drain", move || core.drain_until_stopped())
        .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no drain thread: {error}")))
}

impl Core {
    pub(super) fn hand_over(&self, job: Job) {
        // The channel has room for every buffer; only a store whose codec threads are gone refuses, and then the load
        // ends its flight when it is dropped.
        drop(self.codec.try_send(job));
    }

    /// The block of `ticket`, for somebody who waits: opens what has arrived while no codec thread gets to it, which saves
    /// two changes of thread for a block, and sleeps when there is nothing to open.
    pub(super) fn wait_for(&self, ticket: &Ticket) -> Result<BlockRef> {
        let mut scratch = None;
        let block = loop {
            if let Some(block) = ticket.try_get() {
                break block;
            }
            let Ok(job) = self.jobs.try_recv() else { break ticket.wait(self.config.patience) };
            if matches!(job, Job::Stop) {
                self.hand_over(job);
                break ticket.wait(self.config.patience);
            }
            let scratch = match &mut scratch {
                Some(scratch) => scratch,
                none => none.insert(self.helper()?),
            };
            job.run(scratch);
        };
        if let Some(scratch) = scratch {
            let mut helpers = self.helpers.lock().unwrap_or_else(PoisonError::into_inner);
            if helpers.len() < HELPERS_KEPT {
                helpers.push(scratch);
            }
        }
        block
    }

    fn helper(&self) -> Result<Scratch> {
        let kept = self.helpers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(Scratch::new, Ok)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            io: &self.io,
            arena: &self.io_arena,
            patience: self.config.patience,
            priority: Priority::Demand,
        }
    }

    /// All numbers now: what was counted, and what the tiers and the queue say of themselves.
    pub(super) fn snapshot(&self) -> Snapshot {
        let l1 = self.l1.usage();
        let l2 = self.l2.as_ref();
        let devices = l2.map(NvmeTier::report).unwrap_or_default();
        Snapshot {
            l1_blocks: l1.blocks,
            l1_committed_bytes: l1.committed_bytes,
            l1_used_bytes: l1.used_bytes,
            l1_evictions: l1.evictions,
            l2_blocks: l2.map_or(0, |l2| to_u64(l2.blocks())),
            l2_allocated_bytes: devices.iter().map(|device| device.allocated_bytes).sum(),
            l2_throttled_bytes: l2.map_or(0, NvmeTier::throttled_bytes),
            l2_errors: devices.iter().map(|device| device.errors).sum(),
            l2_retired_devices: l2.map_or(0, NvmeTier::retired_devices),
            io: self.io.counters().snapshot(),
            dirty_bytes: self.objects.as_ref().map_or(0, |objects| objects.status().dirty_bytes),
            io_queue_depth: to_u64(self.io_arena.slots() - self.io_arena.free_slots()),
            ..self.metrics.snapshot()
        }
    }

    /// See [`Store::fetch`].
    pub(super) fn fetch(self: &Arc<Self>, key: BlockKey, urgency: Urgency) -> Result<Option<Ticket>> {
        let demand = urgency.priority == Priority::Demand;
        if let Some(ticket) = self.l1.get(key) {
            if demand && ticket.try_get().is_none() {
                self.raise(key);
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
        match self.l1_room(key, file.plain_bytes(u64::from(key.block)), demand)? {
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

    /// Somebody waits for a block that is on its way: if its read is still queued, it goes ahead of what nobody waits for.
    pub(super) fn raise(&self, key: BlockKey) {
        let fast = (0..self.config.l2.len()).map(Lane::fast);
        fast.chain([Lane::Slow]).for_each(|lane| self.io.raise(lane, key.tag(), Priority::Demand));
    }

    /// Room in L1 for the `len` bytes of `key`; a demand waits for one.
    pub(super) fn l1_room(&self, key: BlockKey, len: usize, demand: bool) -> Result<Option<Lookup>> {
        let clock = &self.config.clock;
        let deadline = clock.now() + self.config.patience;
        loop {
            match self.l1.get_or_load_of(key, len) {
                Lookup::Full if !demand => return Ok(None),
                // Rare: all of L1 is held by readers. A block that is let go stays resident, so that there is no event
                // to wait for.
                Lookup::Full if clock.now() < deadline => pause(Duration::from_millis(1)),
                Lookup::Full => return Err(l1_full(self.l1.slots())),
                lookup => return Ok(Some(lookup)),
            }
        }
    }
}

pub(super) fn l1_full(slots: usize) -> Error {
    Error::new(ErrorKind::Full, "read", format!("all {slots} blocks of L1 are in use"))
        .hint("raise --l1-size, or lower --batch-size")
}

impl RangeSource for Store {
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>> {
        self.core.open_data_set(Path::new(location))
    }

    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>> {
        let files = self.files(set)?;
        let number = files.get(shard).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "read", format!("shard {shard} of {}", files.len()))
        })?;
        let file = self.core.shard(*number)?;
        super::index::read_section(&file, &self.core.reader(), section)
    }

    fn read(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()> {
        let files = self.files(set)?;
        self.core.read(set, &files, reads)
    }

    fn metrics(&self) -> Snapshot {
        self.core.snapshot()
    }
}
