//! Catalogs and files that vanish, stay behind, or are swapped.

use std::path::Path;

use super::{DrainMode, Fixture, put, random_bytes};
use crate::error::ErrorKind;
use crate::store::object::{PutOptions, objects_in};
use crate::testing::Random;

fn remove_catalog(fixture: &Fixture) {
    std::fs::remove_file(fixture.path("l2/catalog.redb")).unwrap();
}

fn overwrite(path: &Path, offset: u64, byte: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte; 64], offset).unwrap();
}

#[test]
fn without_its_catalog_nothing_acknowledged_is_lost() {
    let fixture = Fixture::new();
    let mut random = Random::new(5);
    let (clean, dirty, newer) = (
        random_bytes(&mut random, 60_000),
        random_bytes(&mut random, 60_000),
        random_bytes(&mut random, 9_000),
    );
    let store = fixture.open();
    put(&store, "clean", &clean);
    put(&store, "replaced while dirty", &clean);
    put(&store, "deleted", &clean);
    store.flush().unwrap();
    put(&store, "dirty", &dirty);
    put(&store, "replaced while dirty", &newer);
    assert!(store.delete("deleted").unwrap());
    let versions: Vec<u64> = store.list("").unwrap().iter().map(|info| info.version).collect();
    drop(store);
    let summary = objects_in(crate::catalog::CatalogKind::Redb, &fixture.path("l2")).unwrap().unwrap();
    assert_eq!((summary.objects, summary.dirty_objects), (3, 3));
    remove_catalog(&fixture);

    let store = fixture.open();
    let report = store.recovery().unwrap();
    assert_eq!((report.adopted, report.lost, report.dirty, report.unreadable), (4, 0, 3, 0), "{report:?}");
    assert!(!report.is_clean() && report.details.iter().any(|line| line.contains("`dirty`")));
    for (name, bytes) in [("clean", &clean), ("dirty", &dirty), ("replaced while dirty", &newer)] {
        assert_eq!(&store.get(name).unwrap().read_all().unwrap(), bytes, "{name}");
    }
    assert_eq!(store.get("deleted").unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(store.list("").unwrap().iter().map(|info| info.version).collect::<Vec<_>>(), versions);
    // A put after that is newer than all there was.
    assert!(put(&store, "dirty", &newer).version > *versions.iter().max().unwrap());
    store.flush().unwrap();
    drop(store);
    assert_eq!(fixture.files("l3").len(), 3);

    // Everything is clean: L2 may be thrown away as a whole.
    std::fs::remove_dir_all(fixture.path("l2")).unwrap();
    std::fs::create_dir(fixture.path("l2")).unwrap();
    let store = fixture.open();
    assert_eq!(store.recovery().unwrap().adopted, 3);
    for (name, bytes) in [("clean", &clean), ("dirty", &newer), ("replaced while dirty", &newer)] {
        assert_eq!(&store.get(name).unwrap().read_all().unwrap(), bytes, "{name}");
    }
}

#[test]
fn a_damaged_catalog_is_put_aside_and_made_anew() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[7; 30_000]);
    drop(store);
    std::fs::write(fixture.path("l2/catalog.redb"), [7; 10_000]).unwrap();
    let store = fixture.open();
    let report = store.recovery().unwrap();
    assert!(report.catalog_rebuilt.unwrap().contains("damaged") && report.adopted == 1);
    assert_eq!(store.get("x").unwrap().read_all().unwrap(), [7; 30_000]);
}

#[test]
fn a_catalog_older_or_newer_than_the_disks_is_corrected() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "a", &[1; 30_000]);
    put(&store, "b", &[2; 30_000]);
    drop(store);
    let before = std::fs::read(fixture.path("l2/catalog.redb")).unwrap();
    let store = fixture.open();
    store.flush().unwrap();
    put(&store, "a", &[3; 30_000]);
    drop(store);
    let after = std::fs::read(fixture.path("l2/catalog.redb")).unwrap();

    // Older: "b" is on L3 by now, and "a" has another version.
    std::fs::write(fixture.path("l2/catalog.redb"), &before).unwrap();
    let store = fixture.open();
    let report = store.recovery().unwrap();
    assert_eq!((report.adopted, report.corrected, report.lost), (1, 1, 0), "{report:?}");
    assert_eq!(store.get("a").unwrap().read_all().unwrap(), [3; 30_000]);
    assert!(store.list("b").unwrap()[0].on_l3);
    drop(store);

    // Newer: the dirty version of "a" and L2's copy of "b" are gone with L2's files. The old "a" is current again, and
    // that is told as a loss; "b" loses nothing.
    std::fs::write(fixture.path("l2/catalog.redb"), &after).unwrap();
    fixture.files("l2").iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let store = fixture.open();
    let report = store.recovery().unwrap();
    assert_eq!((report.adopted, report.corrected, report.lost), (0, 1, 1), "{report:?}");
    assert_eq!(store.get("a").unwrap().read_all().unwrap(), [1; 30_000]);
    assert_eq!(store.get("b").unwrap().read_all().unwrap(), [2; 30_000]);
    drop(store);

    // L3's copy gone, L2's there: it is dirty again and drained again.
    let store = fixture.open();
    put(&store, "c", &[4; 30_000]);
    store.flush().unwrap();
    drop(store);
    let names: Vec<_> = fixture.files("l2").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    names.iter().for_each(|name| std::fs::remove_file(fixture.path("l3/objects").join(name)).unwrap());
    let store = fixture.open();
    assert_eq!(store.recovery().unwrap().dirty, 1);
    store.flush().unwrap();
    assert!(names.iter().all(|name| fixture.path("l3/objects").join(name).exists()));
    assert_eq!(store.get("c").unwrap().read_all().unwrap(), [4; 30_000]);
}

#[test]
fn leftovers_go_and_what_cannot_be_opened_stays() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[1; 30_000]);
    store.flush().unwrap();
    drop(store);
    let file = fixture.files("l3")[0].clone();
    let partial = file.with_extension("tso.partial");
    std::fs::write(&partial, b"half").unwrap();
    let foreign = fixture.path("l3/objects").join(format!("{}.tso", "ab".repeat(16)));
    std::fs::write(&foreign, [9; 8192]).unwrap();
    std::fs::write(fixture.path("l3/objects/README"), b"mine").unwrap();
    // A copy under another id is not another object.
    let copy = fixture.path("l3/objects").join(format!("{}.tso", "cd".repeat(16)));
    std::fs::copy(&file, &copy).unwrap();
    let store = fixture.open();
    let report = store.recovery().unwrap();
    assert_eq!((report.leftovers_removed, report.unreadable), (1, 2), "{report:?}");
    assert!(!partial.exists() && foreign.exists() && copy.exists());
    assert!(fixture.path("l3/objects/README").exists());
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn a_swapped_or_older_file_is_found_out() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "a", &[1; 30_000]);
    store.flush().unwrap();
    let old = fixture.files("l3")[0].clone();
    let old_bytes = std::fs::read(&old).unwrap();
    put(&store, "a", &[2; 30_000]);
    put(&store, "b", &[3; 30_000]);
    store.flush().unwrap();
    drop(store);
    let files = fixture.files("l3");
    assert_eq!(files.len(), 2);
    let (one, other) = (std::fs::read(&files[0]).unwrap(), std::fs::read(&files[1]).unwrap());
    let no_l2 = |fixture: &Fixture| {
        fixture.files("l2").iter().for_each(|file| std::fs::remove_file(file).unwrap());
        fixture.open()
    };
    std::fs::write(&files[0], &other).unwrap();
    std::fs::write(&files[1], &one).unwrap();
    let store = no_l2(&fixture);
    for name in ["a", "b"] {
        let error = store.get(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("another file is in its place"), "{error}");
    }
    drop(store);
    // The older version in the place of each.
    files.iter().for_each(|file| std::fs::write(file, &old_bytes).unwrap());
    let store = no_l2(&fixture);
    for name in ["a", "b"] {
        assert_eq!(store.get(name).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_damaged_copy_on_l2_is_dropped_when_l3_has_one_and_kept_when_not() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[5; 50_000]);
    store.flush().unwrap();
    let open = store.get("x").unwrap();
    overwrite(&fixture.files("l2")[0], 9000, 0xff);
    assert_eq!(open.read_all().unwrap(), [5; 50_000], "read from L3 instead");
    assert!(fixture.files("l2").is_empty());
    let info = store.list("").unwrap().remove(0);
    assert!(!info.on_l2 && info.on_l3);
    // The header alone: found out on opening.
    put(&store, "y", &[6; 50_000]);
    store.flush().unwrap();
    overwrite(&fixture.files("l2")[0], 100, 0xff);
    assert_eq!(store.get("y").unwrap().read_all().unwrap(), [6; 50_000]);

    // Dirty: nothing else has it. It is told, not dropped, and those behind it are drained.
    put(&store, "z", &[7; 50_000]);
    overwrite(&fixture.files("l2")[0], 9000, 0xff);
    put(&store, "behind", &[8; 100]);
    let error = store.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.hint_text().unwrap().contains("1 objects are on L2 alone"), "{error}");
    let status = store.object_status().unwrap();
    assert_eq!((status.dirty_objects, status.stuck_objects), (1, 1));
    assert!(store.list("behind").unwrap()[0].on_l3);
    assert_eq!(store.get("z").unwrap().read_all().unwrap_err().kind(), ErrorKind::Corrupt);
    // A new version heals it.
    put(&store, "z", &[9; 50_000]);
    store.flush().unwrap();
    assert_eq!(store.get("z").unwrap().read_all().unwrap(), [9; 50_000]);
}

#[test]
fn one_process_writes_the_objects_of_an_l3() {
    let fixture = Fixture { with_l2: false, ..Fixture::new() };
    let store = fixture.open();
    let error = fixture.try_open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    drop(store);
    fixture.open();
    std::fs::remove_dir_all(fixture.path("l3")).unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(error.kind() == ErrorKind::Missing && error.hint_text().unwrap().contains("mkdir"), "{error}");
}

#[test]
fn a_store_closes_with_dirty_objects_and_the_next_drains_them() {
    let fixture = Fixture { drain: DrainMode::Manual, ..Fixture::new() };
    let store = fixture.open();
    for number in 0..5 {
        put(&store, &format!("object {number}"), &[number; 20_000]);
    }
    drop(store);
    let fixture = Fixture { drain: DrainMode::Background, ..fixture };
    let store = fixture.open();
    assert_eq!(store.recovery().unwrap().dirty, 5);
    store.flush().unwrap();
    assert_eq!((fixture.files("l3").len(), store.object_status().unwrap().dirty_objects), (5, 0));
}

#[test]
fn names_and_metadata_have_limits() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for name in ["", "a\nb", &"x".repeat(1025)] {
        let error = store.put(name, &vec![1], &PutOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }
    let long = [("key".to_owned(), "v".repeat(70_000))].into();
    let options = PutOptions { metadata: long, ..PutOptions::default() };
    assert_eq!(store.put("x", &vec![1], &options).unwrap_err().kind(), ErrorKind::Misuse);
    let metadata = [("step".to_owned(), "1000".to_owned())].into();
    let options = PutOptions { metadata, write_through: true };
    assert!(store.put(&"x".repeat(1024), &vec![1], &options).unwrap().on_l3);
    assert_eq!(store.get(&"x".repeat(1024)).unwrap().metadata(), &options.metadata);
}

/// Opens with faults on what is read of the objects of `tier`.
fn open_with_read_errors(fixture: &Fixture, tier: &str, one_in: u64) -> crate::Result<crate::Store> {
    let plan = crate::testing::FaultPlan {
        seed: 5,
        path_contains: format!("{tier}/objects"),
        read_error: one_in,
        bit_flip: one_in * 2,
        ..Default::default()
    };
    super::faults::open_with(fixture, plan)
}

#[test]
fn what_a_device_does_not_give_is_not_taken_for_missing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "clean", &[1; 30_000]);
    store.flush().unwrap();
    put(&store, "dirty", &[2; 30_000]);
    drop(store);
    for tier in ["l2", "l3"] {
        remove_catalog(&fixture);
        // For good: the opening says so, and what. Now and then: it is asked again.
        let error = open_with_read_errors(&fixture, "l2", 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        assert!(
            error.to_string().contains("l2/objects") && error.hint_text().unwrap().contains("move the file")
        );
        let store = open_with_read_errors(&fixture, tier, 3).unwrap();
        assert_eq!((store.recovery().unwrap().adopted, store.recovery().unwrap().unreadable), (2, 0));
    }
}

#[test]
fn without_a_catalog_a_damaged_file_is_not_passed_over() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[1; 30_000]);
    put(&store, "y", &[2; 30_000]);
    drop(store);
    remove_catalog(&fixture);
    let file = fixture.files("l2")[0].clone();
    overwrite(&file, 100, 0xff);
    // A second opening finds the catalog that the first one made, which is no more complete.
    for _ in 0..2 {
        let error = fixture.try_open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("the catalog does not say"), "{error}");
        assert_eq!(error.place().unwrap().path, file);
    }
    std::fs::rename(&file, fixture.path("aside")).unwrap();
    assert_eq!(fixture.open().list("").unwrap().len(), 1);
}

#[test]
fn a_deletion_outlives_a_file_that_could_not_be_opened() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[1; 30_000]);
    store.flush().unwrap();
    let file = fixture.files("l3")[0].clone();
    let whole = std::fs::read(&file).unwrap();
    assert!(store.delete("x").unwrap());
    store.flush().unwrap();
    drop(store);
    // It is back, as after a crash that lost its removal, and cannot be opened.
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let store = fixture.open();
    assert_eq!(store.recovery().unwrap().unreadable, 1);
    let error = store.get("x").unwrap_err();
    assert!(
        error.kind() == ErrorKind::Missing && error.hint_text().unwrap().contains("1 object files"),
        "{error}"
    );
    assert!(!store.delete("x").unwrap(), "nobody knows of one");
    put(&store, "y", &[2; 10]);
    assert!(store.delete("y").unwrap());
    store.flush().unwrap();
    assert_eq!(store.object_status().unwrap().dirty_objects, 0);
    drop(store);
    drop(fixture.open());
    // Now it can.
    std::fs::write(&file, &whole).unwrap();
    let store = fixture.open();
    assert_eq!(store.get("x").unwrap_err().kind(), ErrorKind::Missing);
    store.flush().unwrap();
    assert!(fixture.files("l2").is_empty() && fixture.files("l3").is_empty(), "{:?}", fixture.files("l3"));
    drop(store);
    assert!(fixture.open().recovery().unwrap().is_clean());
}

#[test]
fn what_a_failed_catalog_was_not_told_is_looked_for() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let objects = store.core().objects.as_ref().unwrap();
    objects.lock().catalog_refused = true;
    objects.refuse_l2(&crate::Error::new(ErrorKind::Device, "commit", "the catalog failed"));
    assert!(put(&store, "x", &[1; 30_000]).on_l3);
    drop(store);
    let file = fixture.files("l3")[0].clone();
    let whole = std::fs::read(&file).unwrap();
    overwrite(&file, 100, 0xff);
    assert_eq!(fixture.try_open().unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(fixture.open().get("x").unwrap().read_all().unwrap(), [1; 30_000]);
    // From then on the catalog knows it.
    overwrite(&file, 100, 0xff);
    assert_eq!(fixture.open().get("x").unwrap_err().kind(), ErrorKind::Corrupt);
}
