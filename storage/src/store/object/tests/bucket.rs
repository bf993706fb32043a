//! Objects whose home is no directory.

use std::sync::Arc;

use super::{DrainMode, Fixture, put, random_bytes};
use crate::error::ErrorKind;
use crate::home::ShardHome;
use crate::store::object::PutOptions;
use crate::testing::{Bucket, Random};

fn on_a_bucket() -> (Fixture, Bucket) {
    let bucket = Bucket::new("bucket").unwrap();
    let home = Some(Arc::new(bucket.clone()) as Arc<dyn ShardHome>);
    (Fixture { home, drain: DrainMode::Manual, ..Fixture::new() }, bucket)
}

#[test]
fn objects_are_put_drained_read_and_found_again_in_a_bucket() {
    let (fixture, bucket) = on_a_bucket();
    let mut random = Random::new(8);
    let (first, second) = (random_bytes(&mut random, 200_000), random_bytes(&mut random, 200_000));
    let store = fixture.open();
    put(&store, "first", &first);
    assert!(bucket.list().unwrap().is_empty());
    store.flush().unwrap();
    let options = PutOptions { write_through: true, ..PutOptions::default() };
    assert!(store.put("second", &second, &options).unwrap().on_l3);
    assert_eq!((bucket.list().unwrap().len(), bucket.unfinished()), (2, 0));
    drop(store);

    // Nothing but the bucket is left: the catalog is made anew from it, and blocks are ranges of its keys.
    std::fs::remove_dir_all(fixture.path("l2")).unwrap();
    std::fs::create_dir(fixture.path("l2")).unwrap();
    let store = fixture.open();
    assert_eq!(store.recovery().unwrap().adopted, 2);
    let before = bucket.gets();
    for (name, bytes) in [("first", &first), ("second", &second)] {
        assert!(&store.get(name).unwrap().read_all().unwrap() == bytes, "{name}");
    }
    assert!(bucket.gets() - before >= 2 * 10, "{} ranges", bucket.gets() - before);

    // Replaced and deleted, nothing stays.
    put(&store, "first", &second);
    assert!(store.delete("second").unwrap());
    store.flush().unwrap();
    assert_eq!(bucket.list().unwrap().len(), 1);
    assert!(store.get("first").unwrap().read_all().unwrap() == second);
    drop(store);
    assert!(fixture.open().recovery().unwrap().is_clean());
}

#[test]
fn damage_in_a_bucket_is_found_and_a_bucket_needs_l2_for_the_catalog() {
    let (fixture, bucket) = on_a_bucket();
    let store = fixture.open();
    let options = PutOptions { write_through: true, ..PutOptions::default() };
    store.put("x", &vec![1; 50_000], &options).unwrap();
    let key = bucket.list().unwrap().remove(0);
    bucket.damage(&key, |bytes| bytes[9000] ^= 1);
    let error = store.get("x").unwrap().read_all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.place().unwrap().path.starts_with("bucket"), "{error}");
    drop(store);
    let error = Fixture { with_l2: false, ..fixture }.try_open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
}
