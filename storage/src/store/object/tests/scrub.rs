//! Scrubbing objects: each tier heals the other, and what neither can is told.

use super::{Fixture, put, random_bytes};
use crate::store::VerifyProgress;
use crate::testing::{Random, announce_seed, tell};
use crate::units::{to_u64, to_usize};

#[test]
fn a_thousand_flipped_bytes_on_either_tier_are_healed_from_the_other() {
    let seed = 31;
    announce_seed("scrub of objects", seed);
    let mut random = Random::new(seed);
    let fixture = Fixture::new();
    let store = fixture.open();
    let contents: Vec<Vec<u8>> = (0..20).map(|_| random_bytes(&mut random, 100_000)).collect();
    for (number, bytes) in contents.iter().enumerate() {
        put(&store, &format!("object {number}"), bytes);
    }
    store.flush().unwrap();
    // Half of the objects on L2, the others on L3: ids are the same on both.
    let (l2, l3) = (fixture.files("l2"), fixture.files("l3"));
    let files: Vec<_> = l2[..10].iter().chain(&l3[10..]).collect();
    for _ in 0..1000 {
        let file = files[to_usize(random.below(to_u64(files.len())))];
        let mut bytes = std::fs::read(file).unwrap();
        let at = to_usize(random.below(to_u64(bytes.len())));
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(file, bytes).unwrap();
    }
    let found = store.scrub_objects(2, &VerifyProgress::default()).unwrap();
    assert_eq!((found.files, found.damaged, found.healed), ((20, 20), (10, 10), (10, 10)), "{found:?}");
    assert_eq!(found.error_count, 0, "{found:?}");
    tell(&format!(
        "scrub of objects: 1000 bytes flipped in {} files, {} dropped from L2, {} written to L3 again",
        files.len(),
        found.healed.0,
        found.healed.1
    ));
    let again = store.scrub_objects(1, &VerifyProgress::default()).unwrap();
    assert_eq!((again.files, again.damaged), ((10, 20), (0, 0)), "{again:?}");
    drop(store);
    // L3 alone has all of it, whole.
    std::fs::remove_dir_all(fixture.path("l2")).unwrap();
    std::fs::create_dir(fixture.path("l2")).unwrap();
    let store = fixture.open();
    for (number, bytes) in contents.iter().enumerate() {
        assert!(&store.get(&format!("object {number}")).unwrap().read_all().unwrap() == bytes, "{number}");
    }
}

#[test]
fn what_is_damaged_on_its_only_tier_is_told_and_left() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "dirty", &[1; 50_000]);
    let file = fixture.files("l2")[0].clone();
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    (bytes[9000], bytes[30_000]) = (bytes[9000] ^ 1, bytes[30_000] ^ 1);
    std::fs::write(&file, &bytes).unwrap();
    let found = store.scrub_objects(1, &VerifyProgress::default()).unwrap();
    assert_eq!((found.files, found.damaged, found.healed, found.error_count), ((1, 0), (1, 0), (0, 0), 2));
    let place = found.errors[0].place().unwrap();
    assert_eq!((&place.path, place.offset, place.block), (&file, Some(4096), Some(("data", 0))), "{found:?}");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(store.scrub_objects(1, &VerifyProgress::default()).unwrap().error_count, 0);
    assert_eq!(store.get("dirty").unwrap().read_all().unwrap(), [1; 50_000]);
    let stop = VerifyProgress { stop: true.into(), ..VerifyProgress::default() };
    assert_eq!(store.scrub_objects(1, &stop).unwrap_err().kind(), crate::ErrorKind::Interrupted);
}
