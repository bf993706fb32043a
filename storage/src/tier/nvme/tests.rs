use std::path::Path;

use super::*;
use crate::catalog::{CatalogKind, open as open_catalog};
use crate::tier::FileNo;

const SET_A: FileId = FileId([0xa; 16]);
const SET_B: FileId = FileId([0xb; 16]);
const LEN: usize = 1 << 20;

fn open(dir: &Path, bytes: u64) -> Result<(NvmeTier, Arc<FileTable>)> {
    let files = Arc::new(FileTable::default());
    let catalog = open_catalog(CatalogKind::Redb, dir)?;
    let config = L2Config { directory: dir.to_owned(), bytes };
    Ok((NvmeTier::open(&config, catalog, Arc::clone(&files))?, files))
}

fn key(file: FileNo, block: u32) -> BlockKey {
    BlockKey { file, block }
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

#[test]
fn a_data_set_larger_than_l2_pins_a_share_and_does_not_churn() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    tier.open_data_set(SET_A);
    let file = files.intern(FileId([1; 16]));
    assert_eq!(fill(&tier, file, SET_A), 16);
    assert!(tier.admit(key(file, 500), SET_A, LEN).is_none());
    assert!((0..16).all(|block| tier.lookup(key(file, block)).is_some()));
    assert_eq!(tier.resident_bytes(SET_A), 16 << 20);

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
    tier.forget(key(file, 2));
    drop(tier);

    let (tier, files) = open(dir.path(), 16 << 20).unwrap();
    let file = files.intern(FileId([1; 16]));
    for (block, reservation) in (0..6).zip(&first) {
        let found = tier.lookup(key(file, block));
        assert_eq!(found.is_some(), block != 2 && block != 5, "block {block}");
        if let Some(found) = found {
            assert_eq!((found.offset, found.len), (reservation.place.offset, reservation.place.len));
            assert_eq!(found.file.path(), reservation.place.file.path());
        }
    }
    let next = tier.admit(key(file, 7), SET_A, LEN).unwrap();
    for place in (0..6).filter_map(|block| tier.lookup(key(file, block))) {
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
    let segments = dir.path().join(SEGMENTS_DIR);
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
        &L2Config { directory: dir.path().join("nowhere"), bytes: 16 << 20 },
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
    tier.give_up_writing(&Error::new(ErrorKind::Full, "write", "no space"));
    assert!(tier.admit(key(file, 1), SET_A, LEN).is_none());
    assert!(tier.lookup(key(file, 0)).is_some());
}
