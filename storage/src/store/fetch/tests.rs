use std::sync::Arc;

use tierstream_crypto::Cipher;

use crate::error::ErrorKind;
use crate::format::capacity;
use crate::io::{IoEngine, PsyncEngine};
use crate::store::tests::{BLOCK, Fixture, flip};
use crate::store::{DataSetInfo, RangeSource, Store, StoreConfig, Urgency};
use crate::testing::{FaultEngine, FaultPlan, Random, announce_seed};
use crate::tier::Ticket;
use crate::units::{to_u64, to_usize};

/// Room for a window of many blocks.
fn roomy(fixture: &Fixture) -> StoreConfig {
    StoreConfig { l1_bytes: 256 * u64::from(BLOCK), ..fixture.config() }
}

fn open(fixture: &Fixture, config: StoreConfig) -> (Store, Arc<DataSetInfo>) {
    let store = Store::open(config, Arc::clone(&fixture.keys)).unwrap();
    let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
    (store, set)
}

fn all(store: &Store, set: &DataSetInfo, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for view in store.views(set, 0, range).unwrap() {
        bytes.extend_from_slice(&view.unwrap());
    }
    bytes
}

#[test]
fn blocks_side_by_side_are_one_read_and_one_write_and_lie_so_on_l2() {
    for compressed in [false, true] {
        let fixture = Fixture::new(Cipher::Sm4Gcm, compressed);
        let payload = &fixture.payloads[0];
        let (store, set) = open(&fixture, roomy(&fixture));
        let before = store.metrics().io;
        assert!(all(&store, &set, 0..to_u64(payload.len())) == *payload);
        let cold = store.metrics();
        let (reads, writes) = (cold.io.reads - before.reads, cold.io.writes - before.writes);
        assert_eq!(cold.l3.hits, 41);
        // 41 blocks in runs of up to 32; the header and the tables of the shard as well.
        assert!(reads <= 8 && writes <= 3, "{reads} reads, {writes} writes");
        drop(store);

        let (store, set) = open(&fixture, roomy(&fixture));
        let before = store.metrics().io;
        assert!(all(&store, &set, 0..to_u64(payload.len())) == *payload);
        let warm = store.metrics();
        assert_eq!((warm.l2.hits, warm.l3.hits), (41, 0));
        assert!(warm.io.reads - before.reads <= 8, "{} reads", warm.io.reads - before.reads);
        // What is here costs none.
        assert!(all(&store, &set, 0..to_u64(payload.len())) == *payload);
        assert_eq!(store.metrics().io.reads, warm.io.reads);
        // The last block is there before the buffer that it was opened from is free again.
        let mut looks = 0;
        while store.free_buffers().0 < store.free_buffers().1 {
            looks += 1;
            assert!(looks < 10_000, "{:?}", store.free_buffers());
            crate::host::pause(std::time::Duration::from_millis(1));
        }
    }
}

#[test]
fn a_run_is_as_long_as_there_is_room_and_never_waits_for_what_nobody_needs() {
    let fixture = Fixture::new(Cipher::Aes256Gcm, false);
    let (store, set) = open(&fixture, roomy(&fixture));
    let file = store.files(&set).unwrap()[0];
    let patience = store.patience();
    let longest = store.fetch_run(file, 0..41, Urgency::DEMAND).unwrap();
    assert_eq!(longest.len(), 41, "1 MiB is more");
    let blocks: Vec<_> = longest.iter().map(|ticket| ticket.wait(patience).unwrap()).collect();
    assert!(blocks.iter().zip(0..).all(|(block, number)| block.key().block == number));
    assert!(store.fetch_run(file, 5..5, Urgency::DEMAND).unwrap().is_empty());
    assert_eq!(store.fetch_run(file, 40..42, Urgency::DEMAND).unwrap_err().kind(), ErrorKind::Misuse);
    drop((longest, blocks, store));

    // An L1 whose blocks are all in use.
    let config = StoreConfig { l1_bytes: 16 * u64::from(BLOCK), l2: Vec::new(), ..fixture.config() };
    let (store, set) = open(&fixture, config);
    let file = store.files(&set).unwrap()[0];
    let some: Vec<Ticket> = store.fetch_run(file, 0..41, Urgency::announced(1)).unwrap();
    assert_eq!(some.len(), 16);
    let held: Vec<_> = some.iter().map(|ticket| ticket.wait(patience).unwrap()).collect();
    assert!(store.fetch_run(file, 20..41, Urgency::announced(2)).unwrap().is_empty());
    // What is held is found all the same, the first of a run or not.
    assert_eq!(store.fetch_run(file, 10..20, Urgency::announced(2)).unwrap().len(), 6);
    drop((some, held));
    assert!(!store.fetch_run(file, 20..41, Urgency::DEMAND).unwrap().is_empty());
}

#[test]
fn one_damaged_block_of_a_run_is_named_or_healed_and_the_others_are_delivered() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let payload = fixture.payloads[0].clone();
    let (store, set) = open(&fixture, roomy(&fixture));
    assert!(all(&store, &set, 0..to_u64(payload.len())) == payload);
    drop(store);
    // L2: one byte of each of its segments' third block.
    for segment in std::fs::read_dir(fixture.l2().join("segments")).unwrap() {
        flip(&segment.unwrap().path(), 2 * u64::from(BLOCK) + 9);
    }
    let (store, set) = open(&fixture, roomy(&fixture));
    assert!(all(&store, &set, 0..to_u64(payload.len())) == payload);
    let healed = store.metrics();
    assert_eq!((healed.l2_dropped_blocks, healed.l3.hits), (1, 1), "{healed:?}");
    drop(store);

    // L3: block 7.
    flip(&fixture.set().join("shard-00000.tss"), 4096 + 7 * u64::from(BLOCK) + 700);
    let config = StoreConfig { l2: Vec::new(), ..roomy(&fixture) };
    let (store, set) = open(&fixture, config);
    let mut views = store.views(&set, 0, 0..to_u64(payload.len())).unwrap();
    let whole: Vec<_> = views.by_ref().take(7).map(|view| view.unwrap().to_vec()).collect();
    assert!(whole.concat() == payload[..7 * to_usize(capacity(BLOCK))]);
    let error = views.next().unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("data block 7"), "{error}");
    assert!(views.next().is_none(), "an error ends it");
    let from = 8 * capacity(BLOCK);
    assert!(all(&store, &set, from..to_u64(payload.len())) == payload[to_usize(from)..]);
}

#[test]
fn a_run_that_cannot_be_read_as_one_is_read_block_by_block() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, true);
    for seed in 0..20 {
        announce_seed("runs under faults", seed);
        let plan = FaultPlan { seed, read_error: 3, short: 3, interrupted: 5, ..FaultPlan::default() };
        // One block that L3 fails twice is an error; L2 then has to be warm for none to be met.
        let plan = FaultPlan { path_contains: "/l2/".to_owned(), ..plan };
        let store = Store::open_on(roomy(&fixture), Arc::clone(&fixture.keys), move |_| {
            let engine = FaultEngine::new(Box::new(PsyncEngine::new(64)?), plan);
            let report = engine.report();
            Ok((Box::new(engine) as Box<dyn IoEngine>, report))
        })
        .unwrap();
        let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
        let mut random = Random::new(seed);
        for _ in 0..6 {
            let len = to_u64(fixture.payloads[0].len());
            let (a, b) = (random.below(len + 1), random.below(len + 1));
            let range = a.min(b)..a.max(b);
            let expected = &fixture.payloads[0][to_usize(range.start)..to_usize(range.end)];
            assert!(all(&store, &set, range) == expected);
        }
    }
}

#[test]
fn views_that_are_kept_bound_what_is_read_ahead() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let patience = std::time::Duration::from_millis(20);
    let config =
        StoreConfig { l1_bytes: 16 * u64::from(BLOCK), l2: Vec::new(), patience, ..fixture.config() };
    let (store, set) = open(&fixture, config);
    let len = to_u64(fixture.payloads[0].len());
    let mut kept = Vec::new();
    let error = store.views(&set, 0, 0..len).unwrap().find_map(|view| match view {
        Ok(view) => {
            kept.push(view);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!((error.unwrap().kind(), kept.len()), (ErrorKind::Full, 16));
    let block = to_usize(capacity(BLOCK));
    assert!(kept.iter().zip(fixture.payloads[0].chunks(block)).all(|(view, plain)| **view == *plain));
    kept.clear();
    assert_eq!(all(&store, &set, 100..len), fixture.payloads[0][100..]);
    // Dropped half-way, what was asked for comes all the same and is found by the next.
    drop(store.views(&set, 0, 0..len).unwrap().next());
    assert_eq!(all(&store, &set, 3..3), [0; 0]);
    assert_eq!(store.views(&set, 0, 0..len + 1).unwrap_err().kind(), ErrorKind::Misuse);
}
