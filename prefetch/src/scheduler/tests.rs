use std::path::PathBuf;

use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::testing::Random;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetWriter, RangeRead, StoreConfig, WriteContext};

use super::*;
use crate::plan::PlannedRead;

const BLOCK: u32 = 4096;

struct Fixture {
    _dir: tempfile::TempDir,
    set: PathBuf,
    keys: Arc<dyn KeyProvider>,
    payload: Vec<u8>,
}

impl Fixture {
    fn new(blocks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("set");
        let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("prefetch-test").unwrap());
        let mut payload = vec![0; to_usize(blocks * capacity(BLOCK))];
        Random::new(5).fill(&mut payload);
        let context = WriteContext::new(&Default::default(), BLOCK, 1).unwrap();
        let writer =
            DataSetWriter::create(&context, Arc::clone(&keys), &set, false, Cipher::Sm4Gcm, false, BLOCK, 1)
                .unwrap();
        let mut shard = writer.shard(0).unwrap();
        shard.write(&payload).unwrap();
        let shard = writer.finish_shard(0, shard, 1, Vec::new()).unwrap();
        writer.publish(serde_json::Value::Null, serde_json::Value::Null, vec![shard]).unwrap();
        Self { _dir: dir, set, keys, payload }
    }

    fn open(&self, l1_blocks: u64) -> (Store, Arc<DataSetInfo>) {
        let config = StoreConfig {
            l1_bytes: l1_blocks * u64::from(BLOCK),
            block_bytes: BLOCK,
            codec_threads: 1,
            ..StoreConfig::default()
        };
        let store = Store::open(config, Arc::clone(&self.keys)).unwrap();
        let set = store.open_data_set(self.set.to_str().unwrap()).unwrap();
        (store, set)
    }

    fn shuffled(&self, seed: u64, reads: u64) -> Vec<PlannedRead> {
        let mut random = Random::new(seed);
        let len = to_u64(self.payload.len());
        (0..reads)
            .map(|_| {
                let start = random.below(len - 1000);
                PlannedRead { shard: 0, range: start..start + random.below(1000) }
            })
            .collect()
    }

    fn read(&self, store: &Store, set: &DataSetInfo, read: &PlannedRead) {
        let mut to = vec![0; to_usize(read.range.end - read.range.start)];
        store.read(set, &mut [RangeRead { shard: 0, range: read.range.clone(), to: &mut to }]).unwrap();
        assert!(to == self.payload[to_usize(read.range.start)..to_usize(read.range.end)]);
    }
}

/// Waits until the prefetcher has asked for so many blocks.
fn settle(prefetcher: &Prefetcher, blocks: u64) {
    let mut rounds = 0_u64;
    while prefetcher.stats().announced_blocks < blocks {
        std::thread::yield_now();
        rounds += 1;
        assert!(rounds < 50_000_000, "the prefetcher stands still");
    }
}

#[test]
fn every_block_is_asked_for_before_its_read_and_read_once() {
    let fixture = Fixture::new(64);
    let (store, set) = fixture.open(128);
    let prefetcher = Prefetcher::new(&store);
    let plan = fixture.shuffled(1, 300);
    let announcement = prefetcher.announce(&set, Box::new(plan.clone().into_iter())).unwrap();
    let mut blocks = std::collections::HashSet::new();
    for (position, read) in plan.iter().enumerate() {
        if !read.range.is_empty() {
            blocks.extend(read.range.start / capacity(BLOCK)..read.range.end.div_ceil(capacity(BLOCK)));
        }
        settle(&prefetcher, to_u64(blocks.len()));
        fixture.read(&store, &set, read);
        announcement.progress(to_u64(position) + 1);
    }
    assert_eq!(store.metrics().l3.hits, to_u64(blocks.len()));
    drop(announcement);
    assert_eq!(prefetcher.budget.used(), 0);
}

#[test]
fn a_plan_larger_than_l1_stays_within_its_budget_and_lets_go() {
    let fixture = Fixture::new(400);
    let (store, set) = fixture.open(32);
    let prefetcher = Prefetcher::new(&store);
    let plan = fixture.shuffled(2, 3000);
    let announcement = prefetcher.announce(&set, Box::new(plan.clone().into_iter())).unwrap();
    for (position, read) in plan.iter().enumerate() {
        fixture.read(&store, &set, read);
        announcement.progress(to_u64(position) + 1);
        assert!(prefetcher.budget.used() <= prefetcher.budget.total());
    }
    // Dropped in the middle of another plan, all is given back.
    let announcement2 = prefetcher.announce(&set, Box::new(plan.into_iter())).unwrap();
    drop(announcement2);
    drop(announcement);
    assert_eq!(prefetcher.budget.used(), 0);
    assert!(prefetcher.stats().announced_blocks > 400);
}

#[test]
fn a_job_that_departs_from_its_plan_still_reads_the_right_bytes() {
    let fixture = Fixture::new(64);
    let (store, set) = fixture.open(32);
    let prefetcher = Prefetcher::new(&store);
    let announced = fixture.shuffled(3, 200);
    let _announcement = prefetcher.announce(&set, Box::new(announced.into_iter())).unwrap();
    settle(&prefetcher, 1);
    for read in fixture.shuffled(4, 500) {
        fixture.read(&store, &set, &read);
    }
}

#[test]
fn a_plan_that_names_what_is_not_there_harms_nobody() {
    let fixture = Fixture::new(8);
    let (store, set) = fixture.open(32);
    let prefetcher = Prefetcher::new(&store);
    let len = to_u64(fixture.payload.len());
    let plan = vec![
        PlannedRead { shard: 9, range: 0..10 },
        PlannedRead { shard: 0, range: len..len + 100_000 },
        PlannedRead { shard: 0, range: 0..10 },
    ];
    let _announcement = prefetcher.announce(&set, Box::new(plan.into_iter())).unwrap();
    settle(&prefetcher, 1);
    fixture.read(&store, &set, &PlannedRead { shard: 0, range: 0..10 });
}

#[test]
fn runs_that_nobody_announced_are_fetched_ahead_and_noise_is_not() {
    let fixture = Fixture::new(1200);
    let (store, set) = fixture.open(256);
    let prefetcher = Prefetcher::new(&store);
    let prediction = prefetcher.predict().unwrap();
    let block = capacity(BLOCK);
    for number in 0..1000 {
        let before = prefetcher.stats();
        fixture.read(&store, &set, &PlannedRead { shard: 0, range: number * block..(number + 1) * block });
        // The test owns the pace: the predictor has looked at this read before the next is made.
        let mut rounds = 0_u64;
        let seen = |stats: &PrefetchStats| stats.used_blocks + stats.late_predictions + stats.missed_blocks;
        while seen(&prefetcher.stats()) == seen(&before) {
            std::thread::yield_now();
            rounds += 1;
            assert!(rounds < 50_000_000, "the predictor does not see the read of block {number}");
        }
    }
    let stats = prefetcher.stats();
    assert!(stats.used_blocks + stats.late_predictions > 800, "{stats:?}");
    assert!(stats.unused_blocks < 50, "{stats:?}");
    drop(prediction);
    assert_eq!(prefetcher.budget.used(), 0, "it lets go of what it held");
}
