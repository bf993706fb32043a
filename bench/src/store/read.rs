//! Through the store: a packed data set read from L2 block by block, and hits in memory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use hdrhistogram::Histogram;
use tierstream_storage::clock::Clock;
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::store::Urgency;
use tierstream_storage::tier::{BlockKey, L2Config};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{
    DataSetInfo, DataSetWriter, RangeRead, RangeSource, Store, StoreConfig, WriteContext,
};

use super::StoreBench;
use super::report::{HitReport, Report, StoreRead};
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

pub(super) const BLOCK_BYTES: u32 = 64 << 10;
/// Much more than L1 holds, so that passes in order find nothing there.
const PAYLOAD_BYTES: u64 = 64 << 20;
const SMALL_L1_BYTES: u64 = 8 << 20;
/// Blocks of one read: many windows of what one call has in flight.
const READ_BYTES: usize = 4 << 20;
/// Hits measured on each thread.
const HITS: usize = 200_000;

/// A directory that is removed when the measurement ends.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        // Left by a run that was killed.
        let _none = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
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

pub(super) fn location(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(ErrorKind::Misuse, "open", "expected a path in UTF-8").at(path))
}

pub(super) fn random_keys() -> Result<Arc<dyn KeyProvider>> {
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
    pack(&keys, &set, Cipher::Sm4Gcm, 1, |write| {
        let mut chunk = vec![0; 1 << 20];
        let mut random = Random::new(4);
        (0..PAYLOAD_BYTES >> 20).try_for_each(|_| {
            random.fill(&mut chunk);
            write(&chunk)
        })
    })?;
    let config = |l1_bytes| StoreConfig {
        l1_bytes,
        block_bytes: BLOCK_BYTES,
        l2: vec![L2Config { path: l2.clone(), bytes: 2 * PAYLOAD_BYTES }],
        ..StoreConfig::default()
    };

    let small = config(SMALL_L1_BYTES);
    let threads = small.codec_threads;
    let store = Store::open(small, Arc::clone(&keys))?;
    let opened = store.open_data_set(location(&set)?)?;
    let mut to = vec![0; READ_BYTES];
    // The first pass fills L2.
    pass(&store, &opened, &mut to)?;
    let (mut best, mut cipher) = (0.0_f64, 0.0_f64);
    for _ in 0..bench.rounds {
        let before = store.metrics();
        let began = clock.now();
        pass(&store, &opened, &mut to)?;
        let gbps = PAYLOAD_BYTES as f64 / (clock.now() - began).as_secs_f64() / 1e9;
        let after = store.metrics();
        if after.l3.hits > before.l3.hits {
            report.note(&format!("{} blocks of a pass came from L3", after.l3.hits - before.l3.hits));
        }
        best = best.max(gbps);
        let nanos = (after.open_nanos - before.open_nanos) as f64;
        cipher = cipher.max((after.open_bytes - before.open_bytes) as f64 / nanos);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cipher_limit_gbps = cipher * threads.min(cores) as f64;
    report.store_read = StoreRead { gbps: best, open_gbps: cipher, cipher_limit_gbps };
    drop(store);

    let store = Store::open(config(PAYLOAD_BYTES + (64 << 20)), keys)?;
    let opened = store.open_data_set(location(&set)?)?;
    pass(&store, &opened, &mut to)?;
    report.l1_hit_ns = hits(&store, &opened, clock)?;
    Ok(())
}

/// The whole payload once, in order.
fn pass(store: &Store, set: &DataSetInfo, to: &mut [u8]) -> Result<()> {
    let mut start = 0;
    while start < set.payload_bytes {
        let len = (set.payload_bytes - start).min(to_u64(to.len()));
        let range = start..start + len;
        store.read(set, &mut [RangeRead { shard: 0, range, to: &mut to[..to_usize(len)] }])?;
        start += len;
    }
    black_box(to);
    Ok(())
}

/// Views of random blocks, all of which are in memory, on one thread and then on two.
fn hits(store: &Store, set: &DataSetInfo, clock: &Arc<dyn Clock>) -> Result<HitReport> {
    let file = store.files(set)?[0];
    let blocks = set.payload_bytes / u64::from(BLOCK_BYTES);
    let view = |random: &mut Random| -> Result<()> {
        let block = u32::try_from(random.below(blocks)).expect("fewer than 2^32 blocks");
        let ticket = store.fetch(BlockKey { file, block }, Urgency::DEMAND)?;
        let block = ticket.and_then(|ticket| ticket.try_get()).transpose()?;
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
                        (0..HITS).try_for_each(|_| view(&mut random))
                    })
                })
                .collect();
            barrier.wait();
            let began = clock.now();
            for thread in running {
                thread.join().expect("a view does not panic")?;
            }
            Ok((threads * to_u64(HITS)) as f64 / (clock.now() - began).as_secs_f64())
        })
    };
    let mut two_threads = 0.0_f64;
    for _ in 0..3 {
        two_threads = two_threads.max(rate(2)? / rate(1)?);
    }
    let of = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64;
    Ok(HitReport { p50: of(&histogram, 0.5), p99: of(&histogram, 0.99), clock: of(&looks, 0.5), two_threads })
}
