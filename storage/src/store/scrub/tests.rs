use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::RangeSource;
use crate::io::{IoEngine, PsyncEngine};
use crate::store::tests::{BLOCK, Fixture, flip};
use crate::store::{DataSetInfo, RangeRead, StoreConfig};
use crate::testing::{Deaths, FaultEngine, FaultPlan, Random, announce_seed, tell};
use crate::tier::L2Config;
use crate::units::to_usize;
use tierstream_crypto::Cipher;

/// Reads all of every shard through the tiers and compares.
fn read_all(fixture: &Fixture, store: &Store, set: &DataSetInfo) {
    for (shard, payload) in fixture.payloads.iter().enumerate() {
        let mut to = vec![0; payload.len()];
        store.read(set, &mut [RangeRead { shard, range: 0..to_u64(payload.len()), to: &mut to }]).unwrap();
        assert!(&to == payload, "shard {shard} differs");
    }
}

/// Waits until what is being written to L2 is there: until all buffers are free.
fn settle(store: &Store) {
    let arena = &store.core().io_arena;
    let all: Vec<_> =
        (0..arena.slots()).map(|_| arena.take(std::time::Duration::from_secs(60)).unwrap()).collect();
    drop(all);
}

fn scrub(store: &Store) -> L2Scrub {
    store.scrub_l2(2, &VerifyProgress::default()).unwrap()
}

#[test]
fn a_thousand_flipped_bytes_on_l2_are_healed() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, true);
    let (store, set) = fixture.open();
    read_all(&fixture, &store, &set);
    // The last blocks are still being written.
    drop(store);
    let (store, set) = fixture.open();
    let blocks = store.core().l2.as_ref().unwrap().all_blocks();
    assert!(blocks.len() > 40);
    drop(store);
    let seed = 17;
    announce_seed("flipped bytes", seed);
    let mut random = Random::new(seed);
    for _ in 0..1000 {
        let (_, block) = &blocks[to_usize(random.below(to_u64(blocks.len())))];
        let offset = block.place.offset + random.below(to_u64(block.place.len));
        let file = std::fs::OpenOptions::new().read(true).write(true).open(block.place.file.path()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, offset).unwrap();
    }

    let (store, _) = fixture.open();
    let found = scrub(&store);
    assert!(found.damaged > 20 && found.healed == found.damaged && found.dropped == 0, "{found:?}");
    assert_eq!((found.blocks, found.unchecked, found.error_count), (to_u64(blocks.len()), 0, 0));
    assert_eq!(store.metrics().l2_healed_blocks, found.healed);
    tell(&format!(
        "scrub: 1000 bytes of L2 flipped in {} of {} blocks, {} healed from L3",
        found.damaged, found.blocks, found.healed
    ));
    let again = scrub(&store);
    assert_eq!((again.blocks, again.damaged), (found.blocks, 0), "{again:?}");
    drop(store);
    let (store, set_again) = fixture.open();
    assert_eq!(set_again.l2_warm_bytes, set.l2_warm_bytes, "healed blocks are remembered");
    read_all(&fixture, &store, &set_again);
    assert_eq!((store.metrics().l3.hits, store.metrics().l2_dropped_blocks), (0, 0));
}

#[test]
fn what_l3_cannot_heal_is_named_with_shard_block_and_offset() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (store, set) = fixture.open();
    read_all(&fixture, &store, &set);
    drop(store);
    let (store, set) = fixture.open();
    let blocks = store.core().l2.as_ref().unwrap().all_blocks();
    let file = store.files(&set).unwrap()[0];
    drop(store);
    let shard = fixture.set().join("shard-00000.tss");
    let offset = 4096 + 5 * u64::from(BLOCK);
    flip(&shard, offset + 99);
    for (_, block) in blocks.iter().filter(|(key, _)| key.file == file && (5..7).contains(&key.block)) {
        flip(block.place.file.path(), block.place.offset + 1);
    }
    let (store, _) = fixture.open();
    let found = scrub(&store);
    assert_eq!((found.damaged, found.healed, found.error_count), (2, 1, 1), "{found:?}");
    let place = found.errors[0].place().unwrap().clone();
    assert_eq!((place.path, place.block, place.offset), (shard.clone(), Some(("data", 5)), Some(offset)));
    let verified = store.verify(&fixture.set(), 2, &VerifyProgress::default()).unwrap();
    assert_eq!((verified.error_count, verified.errors[0].place().unwrap().offset), (1, Some(offset)));
    // Damage on L3 that no block of L2 asks for is not met by a scrub of L2.
    assert_eq!(scrub(&store).error_count, 0);
}

#[test]
fn blocks_of_data_sets_that_are_not_open_are_left_alone_and_counted() {
    let fixture = Fixture::new(Cipher::Aes256Gcm, true);
    let (store, set) = fixture.open();
    read_all(&fixture, &store, &set);
    drop(store);
    let store = Store::open(fixture.config(), Arc::clone(&fixture.keys)).unwrap();
    let known = known_data_sets(&**store.core().catalog.as_ref().unwrap()).unwrap();
    assert_eq!((known.len(), known[0].generation), (1, 1));
    assert_eq!(known[0].location, fixture.set());
    let found = scrub(&store);
    assert!(found.unchecked > 40 && found.blocks == 0 && found.damaged == 0, "{found:?}");
    let stop = VerifyProgress { stop: AtomicBool::new(true), ..VerifyProgress::default() };
    assert_eq!(store.scrub_l2(1, &stop).unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn an_epoch_ends_with_equal_bytes_while_one_device_of_l2_dies_and_then_the_other() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let second = fixture.dir.path().join("second");
    std::fs::create_dir(&second).unwrap();
    let l2 = vec![L2Config { path: fixture.l2(), bytes: 8 << 20 }, L2Config { path: second, bytes: 8 << 20 }];
    let dead: Deaths = Arc::new([("/l2/", AtomicBool::new(false)), ("/second/", AtomicBool::new(false))]);
    let config = StoreConfig { l2, l1_bytes: u64::from(BLOCK) * 16, ..fixture.config() };
    let engine = Arc::clone(&dead);
    let store = Store::open_on(config, Arc::clone(&fixture.keys), move |_| {
        let psync = Box::new(PsyncEngine::new(64)?);
        let report = psync.report();
        let engine = FaultEngine::new(psync, FaultPlan::default()).with_deaths(engine);
        Ok((Box::new(engine) as Box<dyn IoEngine>, report))
    })
    .unwrap();
    let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
    read_all(&fixture, &store, &set);
    let devices = |store: &Store| store.core().l2.as_ref().unwrap().report();
    assert!(devices(&store).iter().all(|device| device.allocated_bytes > 0), "striped over both");
    read_all(&fixture, &store, &set);
    settle(&store);
    let warm = store.metrics();
    assert!(warm.l2.hits > 0 && warm.l2_retired_devices == 0, "{warm:?}");

    dead[0].1.store(true, Ordering::SeqCst);
    read_all(&fixture, &store, &set);
    let one_left = store.metrics();
    assert_eq!(one_left.l2_retired_devices, 1, "{one_left:?}");
    assert!(one_left.l2.hits > warm.l2.hits && one_left.l2_errors >= 8, "the other goes on: {one_left:?}");
    assert!(devices(&store)[0].retired && !devices(&store)[1].retired);
    // What the dead one had moves to the other.
    read_all(&fixture, &store, &set);
    settle(&store);
    let moved = store.metrics();
    read_all(&fixture, &store, &set);
    assert_eq!(store.metrics().l3.hits, moved.l3.hits, "all comes from the device that is left");

    dead[1].1.store(true, Ordering::SeqCst);
    read_all(&fixture, &store, &set);
    read_all(&fixture, &store, &set);
    let none_left = store.metrics();
    assert_eq!((none_left.l2_retired_devices, none_left.l2_blocks), (2, 0), "{none_left:?}");
    tell(&format!(
        "L2 lost while it was read: {} errors, 2 devices retired, {} blocks from L2 and {} from L3, all bytes equal",
        none_left.l2_errors, none_left.l2.hits, none_left.l3.hits
    ));
}
