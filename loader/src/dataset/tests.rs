use std::path::Path;

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::testing::{Random, announce_seed, tell};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetWriter, Store, StoreConfig, WriteContext};

use super::*;
use crate::Dtype;
use crate::index::{RECORD_ENDS, RECORD_LENGTH, SCHEMA, push_end};
use crate::schema::Field;

const BLOCK: u32 = 8192;
/// Payload bytes of a block.
const CAPACITY: u64 = 8192 - 64;

fn keys() -> Arc<dyn KeyProvider> {
    Arc::new(RootKey::random("dataset-test").unwrap())
}

/// A data set of one shard with records of these lengths; its bytes.
fn write(
    path: &Path,
    keys: &Arc<dyn KeyProvider>,
    block: u32,
    lens: &[usize],
    every: Option<u64>,
) -> Vec<u8> {
    let mut payload = vec![0; lens.iter().sum()];
    Random::new(5).fill(&mut payload);
    let context = WriteContext::new(&ServiceConfig::default(), block, 1).unwrap();
    let (keys, cipher) = (Arc::clone(keys), Cipher::Sm4Gcm);
    let set = DataSetWriter::create(&context, keys, path, false, cipher, false, block, 1).unwrap();
    let mut shard = set.shard(0).unwrap();
    shard.write(&payload).unwrap();
    let mut ends = Vec::new();
    let mut end = 0;
    for len in lens {
        end += to_u64(*len);
        push_end(&mut ends, end);
    }
    let places = match every {
        Some(length) => (RECORD_LENGTH, length.to_le_bytes().to_vec()),
        None => (RECORD_ENDS, ends),
    };
    let field = Field { name: "data".to_owned(), dtype: Dtype::U8, shape: vec![-1] };
    let schema = Schema::new(field).unwrap().to_json();
    let text = serde_json::to_vec(&schema).unwrap();
    let shard = set.finish_shard(0, shard, to_u64(lens.len()), vec![places, (SCHEMA, text)]).unwrap();
    set.publish(schema, serde_json::Value::Null, vec![shard]).unwrap();
    payload
}

fn open(path: &Path, keys: &Arc<dyn KeyProvider>, block: u32) -> Dataset {
    let config =
        StoreConfig { l1_bytes: 64 * u64::from(block), block_bytes: block, ..StoreConfig::default() };
    let store = Store::open(config, Arc::clone(keys)).unwrap();
    Dataset::open(Arc::new(store), path.to_str().unwrap()).unwrap()
}

#[test]
fn a_sample_costs_its_own_blocks_and_no_other() {
    let seed = 21;
    announce_seed("a_sample_costs_its_own_blocks_and_no_other", seed);
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut random = Random::new(seed);
    // Short ones, one that fills a block, and some over several.
    let sizes = [1, 100, 5000, 8128, 8129, 20_000, 100_000];
    let lens: Vec<usize> = (0..60).map(|_| sizes[to_usize(random.below(to_u64(sizes.len())))]).collect();
    let payload = write(&dir.path().join("set"), &keys, BLOCK, &lens, None);
    for sample in (0..to_u64(lens.len())).step_by(3) {
        // A store of its own, so that nothing is in L1.
        let dataset = open(&dir.path().join("set"), &keys, BLOCK);
        let read = dataset.locate(sample).unwrap();
        let (start, end) = (read.range.start, read.range.end);
        assert_eq!(end - start, to_u64(lens[to_usize(sample)]));
        let own = end.div_ceil(CAPACITY) - start / CAPACITY;
        let mut found = vec![0; to_usize(end - start)];
        dataset.read(&mut [RangeRead { shard: 0, range: read.range, to: &mut found }]).unwrap();
        assert!(found == payload[to_usize(start)..to_usize(end)]);
        let metrics = dataset.source().metrics();
        assert_eq!(metrics.l3.hits, own, "sample {sample} of {} bytes at {start}", end - start);
        assert!(metrics.l3.bytes <= own * u64::from(BLOCK), "{metrics:?}");
    }
}

#[test]
fn the_index_of_a_million_samples_takes_five_bytes_each_and_none_where_they_are_alike() {
    const SAMPLES: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let lens: Vec<usize> = (0..SAMPLES).map(|number| number % 23).collect();
    let block = 64 << 10;
    write(&dir.path().join("set"), &keys, block, &lens, None);
    let clock = SystemClock::new();
    let dataset = open(&dir.path().join("set"), &keys, block);
    let last = dataset.locate(to_u64(SAMPLES) - 1).unwrap();
    tell(&format!("opened {SAMPLES} samples in {:?}", clock.now()));
    assert_eq!(last.range.end, to_u64(lens.iter().sum()));
    let index = dataset.index(0).unwrap();
    let (mapped, beside) = (index.mapped_bytes(), size_of::<ShardIndex>());
    tell(&format!("{mapped} bytes mapped, {beside} beside them"));
    assert!(mapped + beside <= 5 * SAMPLES + 2 * 4096, "{mapped} and {beside} bytes");
    // Each sample lies behind the one before.
    let mut end = 0;
    for (number, len) in (0..).zip(&lens) {
        let range = dataset.locate(number).unwrap().range;
        assert_eq!((range.start, range.end), (end, end + to_u64(*len)));
        end = range.end;
    }

    write(&dir.path().join("alike"), &keys, block, &vec![8; SAMPLES], Some(8));
    let alike = open(&dir.path().join("alike"), &keys, block);
    assert_eq!(alike.locate(999_999).unwrap().range, 7_999_992..8_000_000);
    assert_eq!(alike.index(0).unwrap().mapped_bytes(), 0);
}

#[test]
fn hostile_record_sections_give_an_error_or_a_place_within_the_payload() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let lens = [10, 0, 5000, 8128, 3, 20_000];
    let payload = to_u64(lens.iter().sum());
    let records = to_u64(lens.len());
    let good: Vec<u8> = lens
        .iter()
        .scan(0, |end, len| {
            *end += to_u64(*len);
            Some(end.to_le_bytes()[..5].to_vec())
        })
        .flatten()
        .collect();
    let context = WriteContext::new(&ServiceConfig::default(), BLOCK, 1).unwrap();
    let mut tried = 0;
    let mut hostile = |section: tierstream_storage::format::SectionType, bytes: Vec<u8>| {
        let path = dir.path().join(format!("set-{tried}"));
        tried += 1;
        let set =
            DataSetWriter::create(&context, Arc::clone(&keys), &path, false, Cipher::Sm4Gcm, false, BLOCK, 1);
        let set = set.unwrap();
        let mut shard = set.shard(0).unwrap();
        shard.write(&vec![7; to_usize(payload)]).unwrap();
        let shard = set.finish_shard(0, shard, records, vec![(section, bytes)]).unwrap();
        let schema = serde_json::json!({"fields":[{"name":"x","dtype":"u8","shape":[-1]}]});
        set.publish(schema, serde_json::Value::Null, vec![shard]).unwrap();
        let dataset = open(&path, &keys, BLOCK);
        for sample in 0..records + 2 {
            match dataset.locate(sample) {
                Ok(read) => {
                    assert!(read.range.start <= read.range.end && read.range.end <= payload, "{read:?}");
                    let mut to = vec![0; to_usize(read.range.end - read.range.start)];
                    dataset.read(&mut [RangeRead { shard: 0, range: read.range, to: &mut to }]).unwrap();
                    assert!(to.iter().all(|byte| *byte == 7));
                }
                Err(error) => {
                    let expected = if sample < records { ErrorKind::Corrupt } else { ErrorKind::Misuse };
                    assert_eq!(error.kind(), expected, "{error}");
                }
            }
        }
        std::fs::remove_dir_all(path).unwrap();
    };
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            hostile(RECORD_ENDS, bad);
        }
    }
    for len in [0, 1, 4, 5, good.len() - 1, good.len() - 5, good.len() + 5, 5000] {
        hostile(RECORD_ENDS, good.iter().copied().cycle().take(len).collect());
    }
    for length in [0, 1, payload / records, payload / records + 1, payload, u64::MAX, u64::MAX / records + 1]
    {
        hostile(RECORD_LENGTH, length.to_le_bytes().to_vec());
    }
    for len in [0, 7, 9] {
        hostile(RECORD_LENGTH, vec![1; len]);
    }
}
