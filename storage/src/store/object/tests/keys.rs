//! Objects under other keys: as data sets, by their headers alone.

use std::sync::Arc;

use tierstream_crypto::{KeyProvider, RootKey};

use super::{Fixture, put};
use crate::error::ErrorKind;
use crate::io::ServiceConfig;
use crate::store::{Rewrap, RewrapProgress, WriteContext, list_wraps, sealed_files};

#[test]
fn objects_are_listed_shared_rotated_and_shredded_on_both_tiers() {
    let [old, new, other] = ["old", "new", "other"].map(|name| RootKey::random(name).unwrap());
    let mut fixture = Fixture { keys: Arc::new(old.clone()), ..Fixture::new() };
    let store = fixture.open();
    put(&store, "clean", &[1; 30_000]);
    store.flush().unwrap();
    put(&store, "dirty", &[2; 30_000]);
    let context = WriteContext::new(&ServiceConfig::default(), 4096, 2).unwrap();
    let progress = RewrapProgress::default();
    let (l2, l3) = (fixture.path("l2"), fixture.path("l3"));
    let keys = [Rewrap::new(&context, &l2, 2, &progress), Rewrap::new(&context, &l3, 2, &progress)];
    // A store that drains would copy headers as they were.
    for of_tier in &keys {
        assert_eq!(of_tier.add(&old, &new).unwrap_err().kind(), ErrorKind::Retry);
    }
    drop(store);
    let files = sealed_files(&l2).unwrap();
    assert_eq!((files.objects, files.names.len(), files.directory), (true, 2, l2.join("objects")));
    for of_tier in &keys {
        let report = of_tier.add(&old, &other).unwrap();
        assert_eq!((report.added, report.error_count), (report.files, 0));
    }
    // First every tier gets the new key, then the old one goes: at any moment one key opens all.
    for of_tier in &keys {
        of_tier.add(&old, &new).unwrap();
    }
    for of_tier in &keys {
        let report = of_tier.rotate(&old, &[old.id().clone()], &new).unwrap();
        assert_eq!((report.added, report.removed, report.error_count), (0, report.files, 0), "{report:?}");
    }
    for (tier, count) in [(&l2, 2), (&l3, 1)] {
        let wraps = list_wraps(tier).unwrap();
        let names =
            |keks: &[tierstream_crypto::KekId]| keks.iter().map(|kek| kek.name.clone()).collect::<Vec<_>>();
        assert!(
            wraps.len() == count && wraps.iter().all(|file| names(&file.keks) == ["other", "new"]),
            "{wraps:?}"
        );
    }
    for key in [new, other] {
        fixture.keys = Arc::new(key) as Arc<dyn KeyProvider>;
        let store = fixture.open();
        assert!(store.recovery().unwrap().is_clean(), "the catalog goes by what keys do not change");
        assert_eq!(store.get("clean").unwrap().read_all().unwrap(), [1; 30_000]);
        assert_eq!(store.get("dirty").unwrap().read_all().unwrap(), [2; 30_000]);
        store.flush().unwrap();
    }
    fixture.keys = Arc::new(old);
    assert_eq!(fixture.open().get("clean").unwrap_err().kind(), ErrorKind::Missing);
    for of_tier in &keys {
        of_tier.destroy(&|_| true).unwrap();
    }
    let error = fixture.open().get("clean").unwrap_err();
    assert!(error.to_string().contains("it was shredded"), "{error}");
    assert_eq!(sealed_files(fixture.dir.path()).unwrap_err().kind(), ErrorKind::Missing);
}
