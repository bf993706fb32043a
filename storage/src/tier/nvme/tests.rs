use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::catalog::{CatalogKind, open as open_catalog};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::tier::FileNo;
use crate::tier::l2_device::segment_name;
use crate::tier::write_rate::WriteRate;

const SET_A: FileId = FileId([0xa; 16]);
const SET_B: FileId = FileId([0xb; 16]);
const LEN: usize = 1 << 20;

fn open_all(configs: &[L2Config]) -> Result<(NvmeTier, Arc<FileTable>)> {
    let files = Arc::new(FileTable::default());
    let catalog = open_catalog(CatalogKind::Redb, &configs[0].path)?;
    Ok((NvmeTier::open(configs, None, catalog, Arc::clone(&files))?, files))
}

fn open(dir: &Path, bytes: u64) -> Result<(NvmeTier, Arc<FileTable>)> {
    open_all(&[L2Config { path: dir.to_owned(), bytes }])
}

fn key(file: FileNo, block: u32) -> BlockKey {
    BlockKey { file, block }
}

fn path_of(found: Option<L2Block>) -> PathBuf {
    found.unwrap().place.file.path().to_owned()
}

/// Admits blocks until the tier says no; returns how many.
fn fill(tier: &NvmeTier, file: FileNo, data_set: FileId) -> u32 {
    (0..)
        .find(|block| {
            let reservation = tier.admit(key(file, *block), data_set, LEN);
            reservation.inspect(|reservation| tier.commit(reservation)).is_none()
        })
        .unwrap()
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "open", "tag mismatch")
}

fn broken() -> Error {
    Error::new(ErrorKind::Device, "read", "input/output error")
}

#[test]
fn a_data_set_larger_than_l2_pins_a_share_and_does_not_churn() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    tier.open_data_set(SET_A);
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 16);
    assert!(tier.admit(key(file, 500), SET_A, LEN).is_none());
    assert!((0..16).all(|block| tier.lookup(key(file, block)).is_some()));
    assert_eq!((tier.resident_bytes(SET_A), tier.blocks()), (16 << 20, 16));

    // Another open data set gets nothing; once the first is closed (a new run) it makes room by segments.
    tier.open_data_set(SET_B);
    assert!(tier.admit(key(file, 900), SET_B, LEN).is_none());
    drop(tier);
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    tier.open_data_set(SET_B);
    let other = files.intern(FileId([2; 16]));
    assert_eq!(fill(&tier, other, SET_B), 16);
    assert_eq!(tier.resident_bytes(SET_A), 0);
}

#[test]
fn a_restart_is_warm_and_places_do_not_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    let first: Vec<Reservation> =
        (0..6).map(|block| tier.admit(key(file, block), SET_A, LEN).unwrap()).collect();
    // The last reservation is never written: a crash came first.
    first[..5].iter().for_each(|reservation| tier.commit(reservation));
    tier.forget(key(file, 2), &tier.lookup(key(file, 2)).unwrap(), &broken());
    drop(tier);

    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    for (block, reservation) in (0..6).zip(&first) {
        let found = tier.lookup(key(file, block));
        assert_eq!(found.is_some(), block != 2 && block != 5, "block {block}");
        if let Some(found) = found {
            assert_eq!(
                (found.place.offset, found.place.len),
                (reservation.place.offset, reservation.place.len)
            );
            assert_eq!(found.place.file.path(), reservation.place.file.path());
        }
    }
    let next = tier.admit(key(file, 7), SET_A, LEN).unwrap();
    for place in (0..6).filter_map(|block| tier.lookup(key(file, block))).map(|found| found.place) {
        let overlap = place.file.path() == next.place.file.path()
            && place.offset < next.place.offset + to_u64(LEN)
            && next.place.offset < place.offset + to_u64(LEN);
        assert!(!overlap, "a new block would overwrite an old one");
    }
}

#[test]
fn lost_segments_and_stray_files_are_sorted_out_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 16);
    drop(tier);
    let segments = dir.path().join("segments");
    std::fs::remove_file(segments.join(segment_name(1))).unwrap();
    std::fs::write(segments.join(segment_name(77)), b"stray").unwrap();
    std::fs::write(segments.join("notes.txt"), b"not ours").unwrap();

    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert_eq!(tier.resident_bytes(SET_A), 12 << 20);
    assert!(!segments.join(segment_name(77)).exists());
    assert!(segments.join("notes.txt").exists());
    tier.admit(key(file, 100), SET_A, LEN).unwrap();
    assert!(segments.join(segment_name(78)).exists(), "numbers are not used twice");
}

#[test]
fn less_capacity_drops_the_oldest_and_impossible_capacity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    assert_eq!(fill(&tier, files.intern(FileId([1; 16])), SET_A), 16);
    drop(tier);
    let (tier, _) = open(dir.path(), 8 << 20).unwrap();
    assert_eq!(tier.resident_bytes(SET_A), 8 << 20);
    drop(tier);

    let error = open(dir.path(), 1 << 60).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.hint_text().unwrap().contains("--l2-size"), "{error}");
    assert_eq!(open(dir.path(), 1 << 20).unwrap_err().kind(), ErrorKind::Misuse);
    let missing = NvmeTier::open(
        &[L2Config { path: dir.path().join("nowhere"), bytes: 16 << 20 }],
        None,
        open_catalog(CatalogKind::Redb, dir.path()).unwrap(),
        Arc::default(),
    );
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Missing);
}

#[test]
fn after_a_failed_write_nothing_is_admitted_but_all_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    let reservation = tier.admit(key(file, 0), SET_A, LEN).unwrap();
    tier.commit(&reservation);
    tier.give_up(&reservation, &Error::new(ErrorKind::Full, "write", "no space"));
    assert!(tier.admit(key(file, 1), SET_A, LEN).is_none());
    assert!(tier.lookup(key(file, 0)).is_some());
    assert!(tier.report()[0].read_only && !tier.report()[0].retired);
}

#[test]
fn blocks_are_striped_and_the_next_device_goes_on_where_one_is_full() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let configs = [(&dirs[0], 8 << 20), (&dirs[1], 16 << 20)]
        .map(|(dir, bytes)| L2Config { path: dir.path().to_owned(), bytes });
    let (tier, files) = open_all(&configs).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 24);
    let device = |tier: &NvmeTier, block| tier.lookup(key(file, block)).unwrap().device;
    assert!((0..16).all(|block| device(&tier, block) == usize::try_from(block % 2).unwrap()));
    assert!((16..24).all(|block| device(&tier, block) == 1));
    let in_order = tier.all_blocks();
    assert!(in_order.is_sorted_by_key(|(_, block)| block.compact.packed()) && in_order.len() == 24);
    drop(tier);
    // Devices named in another order: what is on each is found by what is there.
    let moved = [configs[0].clone(), configs[1].clone()];
    let (tier, _) = open_all(&moved).unwrap();
    assert_eq!((tier.blocks(), device(&tier, 20)), (24, 1));
}

#[test]
fn a_device_that_fails_again_and_again_is_retired_and_its_blocks_move_to_the_other() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let configs = dirs.each_ref().map(|dir| L2Config { path: dir.path().to_owned(), bytes: 16 << 20 });
    let (tier, files) = open_all(&configs).unwrap();
    let file = files.intern(FileId([1; 16]));
    for block in 0..16 {
        tier.commit(&tier.admit(key(file, block), SET_A, LEN).unwrap());
    }
    // Failures with a success in between say that a sector is bad, not the device.
    for block in (0..14).step_by(2) {
        tier.forget(key(file, block), &tier.lookup(key(file, block)).unwrap(), &broken());
    }
    tier.read_succeeded(0);
    tier.forget(key(file, 14), &tier.lookup(key(file, 14)).unwrap(), &broken());
    assert_eq!(tier.retired_devices(), 0);
    for block in 0..8 {
        tier.commit(&tier.admit(key(file, 100 + 2 * block), SET_A, LEN).unwrap());
    }
    let on_first: Vec<_> = tier.all_blocks().into_iter().filter(|(_, block)| block.device == 0).collect();
    for attempt in 0..8 {
        let (key, block) = &on_first[attempt % on_first.len()];
        tier.forget(*key, block, &broken());
    }
    assert_eq!(tier.retired_devices(), 1);
    let report = tier.report();
    assert!(report[0].retired && !report[1].retired && report[0].errors >= 8, "{report:?}");
    assert!(tier.all_blocks().iter().all(|(_, block)| block.device == 1));
    let again = tier.admit(key(file, 0), SET_A, LEN).unwrap();
    assert_eq!(again.device, 1);
    // The other goes as well: L2 is empty and stays so, nothing fails.
    (0..8).for_each(|_| tier.give_up(&again, &broken()));
    assert_eq!((tier.retired_devices(), tier.blocks()), (2, 0));
    assert!(tier.admit(key(file, 0), SET_A, LEN).is_none() && tier.lookup(key(file, 1)).is_none());
}

#[test]
fn a_damaged_block_leaves_a_hole_that_heals_a_full_l2() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 8 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 8);
    let old = tier.lookup(key(file, 3)).unwrap();
    tier.forget(key(file, 3), &old, &damaged());
    assert!(tier.lookup(key(file, 3)).is_none());
    let again = tier.admit(key(file, 3), SET_A, LEN).unwrap();
    assert_eq!(
        (again.place.offset, path_of(Some(old.clone()))),
        (old.place.offset, again.place.file.path().into())
    );
    tier.commit(&again);
    // Somebody who looked it up before reports the old place late: where another block is by now nothing happens.
    tier.forget(key(file, 2), &old, &damaged());
    assert!(tier.lookup(key(file, 2)).is_some());
    drop(tier);
    let (tier, files) = open(dir.path(), 8 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert!(tier.blocks() == 8 && tier.lookup(key(file, 3)).is_some());
}

#[test]
fn a_write_rate_holds_admission_back_until_there_is_budget() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let rate = WriteRate::per_second(2 << 20);
    let throttle = Throttle::new(rate, Arc::clone(&clock) as Arc<dyn Clock>);
    let catalog = open_catalog(CatalogKind::Redb, dir.path()).unwrap();
    let config = [L2Config { path: dir.path().to_owned(), bytes: 64 << 20 }];
    let tier = NvmeTier::open(&config, Some(throttle), catalog, Arc::default()).unwrap();
    let admitted = |from: u32| {
        (from..from + 10).filter(|block| tier.admit(key(FileNo(0), *block), SET_A, LEN).is_some()).count()
    };
    tier.files.intern(FileId([1; 16]));
    assert_eq!(admitted(0), 2);
    clock.advance(Duration::from_millis(1600));
    assert_eq!(admitted(10), 2, "no more than one window is saved up");
    assert_eq!(tier.throttled_bytes(), 16 << 20);
}

#[test]
fn a_raw_device_keeps_its_segments_and_shares_the_index_with_directories() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    std::fs::File::create(&raw).unwrap().set_len(20 << 20).unwrap();
    let configs = [
        L2Config { path: dir.path().to_owned(), bytes: 8 << 20 },
        L2Config { path: raw.clone(), bytes: 16 << 20 },
    ];
    let (tier, files) = open_all(&configs).unwrap();
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 24);
    let mut places: Vec<u64> = tier
        .all_blocks()
        .iter()
        .filter(|(_, block)| block.device == 1)
        .map(|(_, block)| block.place.offset)
        .collect();
    places.sort_unstable();
    let apart = places.windows(2).all(|pair| pair[0] + to_u64(LEN) <= pair[1]);
    assert!(places.len() == 16 && places[0] >= 1 << 20 && apart, "{places:?}");
    drop(tier);

    let (tier, _) = open_all(&configs).unwrap();
    assert_eq!(tier.blocks(), 24);
    drop(tier);
    let smaller = [configs[0].clone(), L2Config { bytes: 8 << 20, ..configs[1].clone() }];
    let (tier, files) = open_all(&smaller).unwrap();
    let kept = tier.all_blocks().iter().filter(|(_, block)| block.device == 1).count();
    assert_eq!(kept, 8);
    tier.open_data_set(SET_B);
    assert_eq!(fill(&tier, files.intern(FileId([2; 16])), SET_B), 16, "segments are used again");
    drop(tier);
    std::fs::write(&raw, vec![7; 20 << 20]).unwrap();
    assert_eq!(open_all(&configs).unwrap_err().kind(), ErrorKind::Misuse, "somebody else's data");
    let too_much = [configs[0].clone(), L2Config { bytes: 1 << 40, ..configs[1].clone() }];
    std::fs::write(&raw, vec![0; 20 << 20]).unwrap();
    assert_eq!(open_all(&too_much).unwrap_err().kind(), ErrorKind::Full);
}

/// The index of an L2 of 100 GB in blocks of 64 KiB. The time is printed; what is asserted is that all is there.
#[test]
fn an_index_of_a_million_and_a_half_blocks_is_restored() {
    const BLOCKS: u32 = 1_600_000;
    const STORED: usize = 64 << 10;
    const PER_SEGMENT: u32 = (256 << 20) / (64 << 10);
    let dir = tempfile::tempdir().unwrap();
    let segments = dir.path().join("segments");
    std::fs::create_dir(&segments).unwrap();
    let catalog = open_catalog(CatalogKind::Redb, dir.path()).unwrap();
    let journal = Journal::start(Arc::clone(&catalog), Default::default()).unwrap();
    let shard = |block: u32| FileId([u8::try_from(block / 8192 % 200).unwrap(); 16]);
    let clock = SystemClock::new();
    for block in 0..BLOCKS {
        let segment = 1 + block / PER_SEGMENT;
        if block % PER_SEGMENT == 0 {
            // Sparse: only the lengths matter here.
            let file = std::fs::File::create(segments.join(segment_name(segment))).unwrap();
            file.set_len(256 << 20).unwrap();
            let record = SegmentRecord { data_set: SET_A, device: [0; 16], base: 0, bytes: 256 << 20 };
            journal.note(Change::NewSegment(segment, record));
        }
        let offset = u64::from(block % PER_SEGMENT) * to_u64(STORED);
        let place = Place::new(segment, offset, to_u64(STORED));
        let change = Change::Block { file: shard(block), block, place, present: true };
        // A store admits at the speed of a device; here the queue would run over.
        journal.note_surely(change);
    }
    journal.close();
    let written = clock.now();
    let config = [L2Config { path: dir.path().to_owned(), bytes: 100 << 30 }];
    let files = Arc::new(FileTable::default());
    let tier = NvmeTier::open(&config, None, Arc::clone(&catalog), Arc::clone(&files)).unwrap();
    let opened = clock.now();
    assert_eq!(tier.blocks(), usize::try_from(BLOCKS).unwrap());
    for block in (0..BLOCKS).step_by(9973) {
        let found = tier.lookup(key(files.intern(shard(block)), block)).unwrap();
        assert_eq!(found.place.offset, u64::from(block % PER_SEGMENT) * to_u64(STORED));
    }
    println!(
        "{BLOCKS} blocks: reopened in {:?}, {:.1} bytes of memory each; journalled in {written:?}; catalog {} bytes",
        opened - written,
        tier.index_bytes() as f64 / f64::from(BLOCKS),
        std::fs::metadata(dir.path().join("catalog.redb")).unwrap().len(),
    );
    assert!(tier.index_bytes() <= 26 * usize::try_from(BLOCKS).unwrap());
}
