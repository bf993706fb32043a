//! Through the store: a packed data set read from L2, in turns with the raw engine on the same bytes, and hits in memory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use hdrhistogram::Histogram;
use tierstream_storage::clock::Clock;
use tierstream_storage::device::{Access, DeviceFile, Directory};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::tier::{BlockKey, L2Config};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{
    DataSetInfo, DataSetWriter, RangeRead, RangeSource, Store, StoreConfig, WriteContext,
};

use super::engine::{self, Job};
use super::report::{HitReport, Report, StoreSides};
use super::{Row, StoreBench};
use crate::os::Usage;
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

pub(super) const BLOCK_BYTES: u32 = 64 << 10;
/// What is read at most; much more than L1 holds, so that passes in order find nothing there.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;
const SMALL_L1_BYTES: u64 = 32 << 20;
/// Bytes of one call that copies: a large batch.
const READ_BYTES: usize = 16 << 20;
/// Bytes in memory for the hits: many times the processor's caches.
const HIT_BYTES: u64 = 64 << 20;
/// Hits measured on each thread.
const HITS: usize = 200_000;
/// Hits of each thread where only their number in a second counts.
const RATE_HITS: usize = 2_000_000;
/// Comparisons of two threads with one.
const RATE_ROUNDS: usize = 5;

/// A directory that is removed when the measurement ends.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        // Left by a run that was killed.
        let _none = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Packs what `fill` writes into a data set at `path`; returns what `fill` does.
pub(super) fn pack<T>(
    keys: &Arc<dyn KeyProvider>,
    path: &Path,
    cipher: Cipher,
    record_align: u32,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let context = WriteContext::new(&ServiceConfig::default(), BLOCK_BYTES, 1)?;
    let keys = Arc::clone(keys);
    let set = DataSetWriter::create(&context, keys, path, false, cipher, false, BLOCK_BYTES, record_align)?;
    let mut shard = set.shard(0)?;
    let mut records = 0;
    let filled = fill(&mut |record| {
        records += 1;
        shard.align()?;
        shard.write(record)
    })?;
    let shard = set.finish_shard(0, shard, records, Vec::new())?;
    set.publish(serde_json::json!({}), serde_json::Value::Null, vec![shard])?;
    Ok(filled)
}

pub(crate) fn location(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(ErrorKind::Misuse, "open", "expected a path in UTF-8").at(path))
}

pub(crate) fn random_keys() -> Result<Arc<dyn KeyProvider>> {
    Ok(Arc::new(RootKey::random("bench")?))
}

/// Fills the report's `store_read` and `l1_hit_ns`.
///
/// # Errors
/// As the device and the store say.
pub(super) fn run(bench: &StoreBench, clock: &Arc<dyn Clock>, report: &mut Report) -> Result<()> {
    let place = Place::new(&bench.directory, "tierstream-bench-store")?;
    let (set, l2) = (place.path().join("set"), place.path().join("l2"));
    std::fs::create_dir(&l2).map_err(|error| Error::io("create", &l2, error))?;
    let keys = random_keys()?;
    let payload_bytes = (bench.file_bytes / 4).clamp(HIT_BYTES, PAYLOAD_BYTES_MAX);
    pack(&keys, &set, Cipher::Sm4Gcm, 1, |write| {
        let mut chunk = vec![0; 1 << 20];
        let mut random = Random::new(4);
        (0..payload_bytes >> 20).try_for_each(|_| {
            random.fill(&mut chunk);
            write(&chunk)
        })
    })?;
    let config = |l1_bytes| StoreConfig {
        l1_bytes,
        block_bytes: BLOCK_BYTES,
        l2: vec![L2Config { path: l2.clone(), bytes: 2 * payload_bytes }],
        ..StoreConfig::default()
    };
    let store = Store::open(config(SMALL_L1_BYTES), Arc::clone(&keys))?;
    let opened = store.open_data_set(location(&set)?)?;
    // The first pass fills L2, and may move it into place.
    let mut to = vec![0; READ_BYTES];
    copied(&store, &opened, &mut to)?;
    through_store(bench, clock, &store, &opened, &set, report)?;
    drop(store);

    let store = Store::open(config(HIT_BYTES + (64 << 20)), keys)?;
    let opened = store.open_data_set(location(&set)?)?;
    report.l1_hit_ns = hits(&store, &opened, clock)?;
    Ok(())
}

/// Rounds of the raw engine on the data set's file, at the store's block size and at 1 MiB, and of the store on its L2,
/// which holds the same bytes: delivered as views, and copied to the caller as the loader does.
fn through_store(
    bench: &StoreBench,
    clock: &Arc<dyn Clock>,
    store: &Store,
    set: &DataSetInfo,
    path: &Path,
    report: &mut Report,
) -> Result<()> {
    let directory = Directory::open(path)?;
    let shards = std::fs::read_dir(path).map_err(|error| Error::io("list", path, error))?.flatten();
    // The one shard is the longest file beside the manifest.
    let shard = shards.max_by_key(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
    let shard = shard.map(|entry| entry.file_name()).unwrap_or_default();
    let file = DeviceFile::open(&directory, &shard.to_string_lossy(), Access::Read)?;
    let file = std::slice::from_ref(&file);
    let blocks = Job { block_bytes: BLOCK_BYTES as usize, depth: 32, random: false, window: bench.window };
    let large = Job { block_bytes: 1 << 20, depth: 16, ..blocks.clone() };
    let mut sides = StoreSides::default();
    let mut to = vec![0; READ_BYTES];
    let before = store.metrics();
    for _ in 0..bench.rounds {
        sides.engine_64k.push(engine::run(file, &blocks, &**clock)?);
        sides.views.push(timed(bench, &**clock, || viewed(store, set))?);
        sides.engine_1m.push(engine::run(file, &large, &**clock)?);
        sides.copies.push(timed(bench, &**clock, || copied(store, set, &mut to))?);
    }
    let after = store.metrics();
    if after.l3.hits > before.l3.hits {
        report.note(&format!("{} blocks came from L3, not from L2", after.l3.hits - before.l3.hits));
    }
    let nanos = (after.open_nanos - before.open_nanos) as f64;
    let cipher = (after.open_bytes - before.open_bytes) as f64 / nanos;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    report.store(sides, cipher, cores);
    Ok(())
}

/// Passes for about the time of a window; a row counts blocks of 64 KiB.
fn timed(bench: &StoreBench, clock: &dyn Clock, mut pass: impl FnMut() -> Result<u64>) -> Result<Row> {
    let (began, usage) = (clock.now(), Usage::of_process());
    let mut bytes = 0;
    while clock.now() - began < bench.window {
        bytes += pass()?;
    }
    let (elapsed, used) = ((clock.now() - began).as_secs_f64(), Usage::of_process().since(usage));
    let ios = bytes as f64 / f64::from(BLOCK_BYTES);
    Ok(Row {
        iops: ios / elapsed,
        gbps: bytes as f64 / elapsed / 1e9,
        cpu_us_per_io: (used.user + used.system).as_secs_f64() * 1e6 / ios,
    })
}

/// The whole payload once, in order, as views of L1; returns its bytes.
fn viewed(store: &Store, set: &DataSetInfo) -> Result<u64> {
    let mut bytes = 0;
    for view in store.views(set, 0, 0..set.payload_bytes)? {
        let view = view?;
        black_box(view.first());
        bytes += to_u64(view.len());
    }
    Ok(bytes)
}

/// The whole payload once, in order, copied to `to` by calls of its length; returns its bytes.
fn copied(store: &Store, set: &DataSetInfo, to: &mut [u8]) -> Result<u64> {
    let mut start = 0;
    while start < set.payload_bytes {
        let len = (set.payload_bytes - start).min(to_u64(to.len()));
        let range = start..start + len;
        store.read(set, &mut [RangeRead { shard: 0, range, to: &mut to[..to_usize(len)] }])?;
        start += len;
    }
    black_box(to);
    Ok(start)
}

/// Views of random blocks, all of which are in memory, on one thread and then on two.
fn hits(store: &Store, set: &DataSetInfo, clock: &Arc<dyn Clock>) -> Result<HitReport> {
    let file = store.files(set)?[0];
    let blocks = HIT_BYTES / u64::from(BLOCK_BYTES);
    for view in store.views(set, 0, 0..HIT_BYTES)? {
        drop(view?);
    }
    let view = |random: &mut Random| -> Result<()> {
        let block = u32::try_from(random.below(blocks)).expect("fewer than 2^32 blocks");
        let block = store.view(BlockKey { file, block });
        let block = block.ok_or_else(|| Error::new(ErrorKind::Retry, "read", "a block left memory"))?;
        black_box(block[0]);
        Ok(())
    };
    let mut histogram = Histogram::<u64>::new(3).expect("3 digits are valid");
    let mut looks = Histogram::<u64>::new(3).expect("3 digits are valid");
    let mut random = Random::new(1);
    let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    for _ in 0..HITS {
        let began = clock.now();
        view(&mut random)?;
        histogram.saturating_record(nanos(clock.now() - began));
        let began = clock.now();
        looks.saturating_record(nanos(clock.now() - began));
    }
    let rate = |threads: u64| -> Result<f64> {
        let barrier = Barrier::new(to_usize(threads) + 1);
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|seed| {
                    let (barrier, view) = (&barrier, &view);
                    scope.spawn(move || {
                        let mut random = Random::new(seed);
                        barrier.wait();
                        (0..RATE_HITS).try_for_each(|_| view(&mut random))
                    })
                })
                .collect();
            barrier.wait();
            let began = clock.now();
            for thread in running {
                thread.join().expect("a view does not panic")?;
            }
            Ok((threads * to_u64(RATE_HITS)) as f64 / (clock.now() - began).as_secs_f64())
        })
    };
    let mut ratios = (0..RATE_ROUNDS).map(|_| Ok(rate(2)? / rate(1)?)).collect::<Result<Vec<f64>>>()?;
    ratios.sort_by(f64::total_cmp);
    let two_threads = ratios[RATE_ROUNDS / 2];
    let of = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64;
    Ok(HitReport { p50: of(&histogram, 0.5), p99: of(&histogram, 0.99), clock: of(&looks, 0.5), two_threads })
}
