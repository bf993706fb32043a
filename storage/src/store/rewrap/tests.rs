use std::sync::Arc;

use tierstream_crypto::{Cipher, KeyRing, RootKey};

use super::*;
use crate::buf::{Arena, HeapAllocator};
use crate::io::{IoEngine, IoService, PsyncEngine, ServiceConfig};
use crate::store::{DataSetWriter, VerifyProgress, verify};
use crate::testing::{FaultEngine, FaultPlan, announce_seed};

const BLOCK: u32 = 4096;
const SHARDS: usize = 7;

/// A data set of small shards and the key it was packed under.
struct Fixture {
    dir: tempfile::TempDir,
    context: WriteContext,
    old: RootKey,
    new: RootKey,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let context = WriteContext::new(&ServiceConfig::default(), BLOCK, 2).unwrap();
        let old = RootKey::random("job").unwrap();
        let new = RootKey::random_version("job", 2).unwrap();
        let keys: Arc<dyn KeyProvider> = Arc::new(old.clone());
        let path = dir.path().join("set");
        let cipher = Cipher::Aes256Gcm;
        let set = DataSetWriter::create(&context, keys, &path, false, cipher, false, BLOCK, 1).unwrap();
        let shards = (0..SHARDS).map(|number| {
            let mut shard = set.shard(number).unwrap();
            shard.write(&vec![7; 5000]).unwrap();
            set.finish_shard(number, shard, 1, Vec::new()).unwrap()
        });
        let shards = shards.collect();
        set.publish(serde_json::json!({}), serde_json::Value::Null, shards).unwrap();
        Self { dir, context, old, new }
    }

    fn set(&self) -> std::path::PathBuf {
        self.dir.path().join("set")
    }

    fn shard(&self, number: usize) -> std::path::PathBuf {
        self.set().join(format!("shard-{number:05}.tss"))
    }

    fn change(&self, work: impl FnOnce(&Rewrap<'_>) -> Result<RewrapReport>) -> Result<RewrapReport> {
        let (path, progress) = (self.set(), RewrapProgress::default());
        work(&Rewrap::new(&self.context, &path, 3, &progress))
    }

    fn rotate(&self) -> Result<RewrapReport> {
        self.change(|keys| keys.rotate(&self.old, &[self.old.id().clone()], &self.new))
    }

    /// Errors of a whole verification under `key`; more than there are files when not even the manifest opens.
    fn errors(&self, key: &dyn KeyProvider) -> u64 {
        let progress = VerifyProgress::default();
        verify(&self.context, key, &self.set(), 2, &progress).map_or(99, |report| report.error_count)
    }

    fn everything_but_slots(&self) -> Vec<u8> {
        let names = sealed_files(&self.set()).unwrap().names.into_iter();
        let bytes = names.map(|name| std::fs::read(self.set().join(name)).unwrap());
        bytes.flat_map(|bytes| [&bytes[..2048], &bytes[4096..]].concat()).collect()
    }
}

#[test]
fn a_rotation_changes_wraps_alone_and_can_be_repeated() {
    let fixture = Fixture::new();
    let before = fixture.everything_but_slots();
    let report = fixture.rotate().unwrap();
    let files = to_u64(SHARDS) + 1;
    assert_eq!((report.files, report.added, report.removed, report.error_count), (files, files, files, 0));
    assert_eq!((fixture.errors(&fixture.old), fixture.errors(&fixture.new)), (99, 0));
    assert!(fixture.everything_but_slots() == before);
    let again = fixture.rotate().unwrap();
    assert_eq!((again.added, again.removed, again.error_count), (0, 0, 0));
    let wraps = list_wraps(&fixture.set()).unwrap();
    assert!(wraps.iter().all(|file| file.keks == [fixture.new.id().clone()]), "{wraps:?}");
}

#[test]
fn a_second_key_opens_until_it_is_taken_away_and_the_last_one_shreds() {
    let fixture = Fixture::new();
    let other = RootKey::random("other-team").unwrap();
    fixture.change(|keys| keys.add(&fixture.old, &other)).unwrap();
    assert_eq!((fixture.errors(&fixture.old), fixture.errors(&other)), (0, 0));
    // Rotating one key leaves the other's wraps alone.
    fixture.rotate().unwrap();
    assert_eq!((fixture.errors(&fixture.new), fixture.errors(&other)), (0, 0));
    let report = fixture.change(|keys| keys.destroy(&|kek| kek.name == "other-team")).unwrap();
    assert_eq!(report.removed, to_u64(SHARDS) + 1);
    assert_eq!((fixture.errors(&fixture.new), fixture.errors(&other)), (0, 99));
    fixture.change(|keys| keys.destroy(&|kek| kek.name == "job")).unwrap();
    let progress = VerifyProgress::default();
    let error = verify(&fixture.context, &fixture.new, &fixture.set(), 1, &progress).unwrap_err();
    assert!(error.to_string().contains("it was shredded"), "{error}");
}

#[test]
fn what_cannot_get_the_new_key_keeps_the_whole_on_the_old_one() {
    type Damage = fn(&Fixture);
    // Damaged, swapped, missing, cut short: each in a data set of its own.
    let damage: [(&str, Damage); 4] = [
        ("MAC", |fixture| {
            let mut bytes = std::fs::read(fixture.shard(2)).unwrap();
            bytes[2020] ^= 1;
            std::fs::write(fixture.shard(2), bytes).unwrap();
        }),
        ("another file is in its place", |fixture| {
            std::fs::copy(fixture.shard(1), fixture.shard(2)).unwrap();
        }),
        ("No such file", |fixture| std::fs::remove_file(fixture.shard(2)).unwrap()),
        ("cut short", |fixture| std::fs::write(fixture.shard(2), b"TIERSEAL").unwrap()),
    ];
    for (words, damage) in damage {
        let fixture = Fixture::new();
        damage(&fixture);
        let report = fixture.rotate().unwrap();
        assert_eq!((report.error_count, report.removed), (1, 0), "{words}");
        let error = &report.errors[0];
        assert!(error.to_string().contains("shard-00002.tss"), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        // The damaged file is as it was; all others open under either key.
        assert_eq!((fixture.errors(&fixture.old), fixture.errors(&fixture.new)), (1, 1), "{words}");
    }
}

#[test]
fn a_stranger_and_a_second_process_are_refused() {
    let fixture = Fixture::new();
    let stranger = RootKey::random("stranger").unwrap();
    let refused = fixture.change(|keys| keys.add(&stranger, &fixture.new)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Missing);
    let lock = fs::lock(&fixture.set().join(MANIFEST_NAME)).unwrap();
    let busy = fixture.rotate().unwrap_err();
    assert!(busy.kind() == ErrorKind::Retry && busy.to_string().contains("another process"), "{busy}");
    drop(lock);
    assert_eq!(fixture.errors(&fixture.old), 0);

    let progress = RewrapProgress::default();
    progress.stop.store(true, Ordering::Relaxed);
    let path = fixture.set();
    let keys = Rewrap::new(&fixture.context, &path, 1, &progress);
    let stopped = keys.rotate(&fixture.old, &[fixture.old.id().clone()], &fixture.new).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    assert_eq!((fixture.errors(&fixture.old), fixture.errors(&fixture.new)), (0, 99));
}

#[test]
fn slots_that_trade_places_between_files_open_nothing() {
    let fixture = Fixture::new();
    let (mut a, mut b) = (std::fs::read(fixture.shard(0)).unwrap(), std::fs::read(fixture.shard(1)).unwrap());
    a[2048..4096].swap_with_slice(&mut b[2048..4096]);
    std::fs::write(fixture.shard(0), a).unwrap();
    std::fs::write(fixture.shard(1), b).unwrap();
    assert_eq!(fixture.errors(&fixture.old), 2);
    let report = fixture.rotate().unwrap();
    assert_eq!((report.error_count, report.removed), (2, 0), "nor are they wrapped anew");
}

#[test]
fn a_damaged_slot_is_reported_and_cleared_by_the_next_rotation() {
    let fixture = Fixture::new();
    let mut bytes = std::fs::read(fixture.shard(3)).unwrap();
    bytes[2048 + 1024 + 5] = 1;
    std::fs::write(fixture.shard(3), bytes).unwrap();
    assert_eq!(list_wraps(&fixture.set()).unwrap()[3].damaged_slots, 1);
    assert_eq!(fixture.errors(&fixture.old), 1, "verification tells");
    let ring = KeyRing::new([fixture.new.clone(), fixture.old.clone()]).unwrap();
    fixture.rotate().unwrap();
    assert_eq!(fixture.errors(&ring), 0);
}

/// Devices that fail, lie and forget: whatever comes of a rotation, no file is without a key, the third key's wraps are
/// left alone, and one key opens everything.
#[test]
fn on_a_failing_device_nothing_is_lost_and_the_rotation_ends_at_last() {
    let (mut failed, mut rounds) = (0, 0);
    for seed in 0..30 {
        announce_seed("rotation on a failing device", seed);
        let mut fixture = Fixture::new();
        let third = RootKey::random("third").unwrap();
        fixture.change(|keys| keys.add(&fixture.old, &third)).unwrap();
        let mut failing = failing(seed);
        loop {
            rounds += 1;
            std::mem::swap(&mut fixture.context, &mut failing);
            let done = fixture.rotate().is_ok_and(|report| report.error_count == 0);
            std::mem::swap(&mut fixture.context, &mut failing);
            failed += u64::from(!done);
            let wraps = list_wraps(&fixture.set()).unwrap();
            assert!(wraps.iter().all(|file| file.keks.len() >= 2 && file.damaged_slots == 0), "{wraps:?}");
            let (old, new) = (fixture.errors(&fixture.old), fixture.errors(&fixture.new));
            assert!(old == 0 || new == 0, "{old} {new}");
            assert_eq!(fixture.errors(&third), 0);
            if done {
                assert_eq!((old, new), (99, 0));
                break;
            }
        }
    }
    println!("{rounds} rotations, {failed} of them failed");
    assert!(failed > 20, "{failed} of {rounds} rotations failed: the test shows little");
}

fn failing(seed: u64) -> WriteContext {
    let config = ServiceConfig::default();
    let arena = Arena::new("write", 4096, 32, &HeapAllocator).unwrap();
    let depth = config.fast_depth + config.slow_depth;
    let plan = FaultPlan {
        seed,
        short: 9,
        interrupted: 5,
        read_error: 60,
        no_space: 30,
        bit_flip: 40,
        ..FaultPlan::default()
    };
    let io = IoService::start_with(&config, move || {
        let engine = FaultEngine::new(Box::new(PsyncEngine::new(depth)?), plan);
        let report = engine.report();
        Ok((Box::new(engine) as Box<dyn IoEngine>, report))
    });
    WriteContext { io: io.unwrap(), arena, patience: std::time::Duration::from_secs(30) }
}
