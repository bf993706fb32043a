//! Random puts, reads, deletions, drains and reopenings against a plain map.

use std::collections::BTreeMap;

use super::{Fixture, put, random_bytes};
use crate::testing::{Random, announce_seed};
use crate::units::{to_u64, to_usize};

#[test]
fn a_store_of_objects_is_a_map() {
    for seed in 0..4 {
        announce_seed("a_store_of_objects_is_a_map", seed);
        let mut random = Random::new(seed);
        let fixture = Fixture { l2_object_bytes: 600_000, with_l2: seed % 3 != 2, ..Fixture::new() };
        let mut store = fixture.open();
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for _ in 0..120 {
            let name = format!("object-{}", random.below(8));
            match random.below(10) {
                0..=3 => {
                    let bytes = random_bytes(&mut random, 120_000);
                    if store.object_status().unwrap().dirty_bytes > 400_000 {
                        store.flush().unwrap();
                    }
                    put(&store, &name, &bytes);
                    model.insert(name, bytes);
                }
                4 => assert_eq!(store.delete(&name).unwrap(), model.remove(&name).is_some()),
                5 => drop(store.drain_one().unwrap()),
                6 => {
                    drop(store);
                    store = fixture.open();
                    assert!(store.recovery().unwrap().is_clean(), "{:?}", store.recovery());
                }
                _ => match (store.get(&name), model.get(&name)) {
                    (Ok(object), Some(bytes)) => {
                        let start = random.below(to_u64(bytes.len()) + 1);
                        let len = random.below(to_u64(bytes.len()) - start + 1);
                        let mut found = vec![0; to_usize(len)];
                        object.read(start, &mut found).unwrap();
                        assert_eq!(found, bytes[to_usize(start)..to_usize(start + len)]);
                        assert!(object.read(to_u64(bytes.len()) + 1 - len, &mut found).is_err() || len == 0);
                    }
                    (Err(error), None) => assert_eq!(error.kind(), crate::ErrorKind::Missing),
                    (found, expected) => panic!("{name}: {found:?}, expected {:?}", expected.map(Vec::len)),
                },
            }
            let names: Vec<String> = store.list("").unwrap().into_iter().map(|info| info.name).collect();
            assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
        }
        store.flush().unwrap();
        for (name, bytes) in &model {
            assert_eq!(&store.get(name).unwrap().read_all().unwrap(), bytes);
        }
        assert_eq!(fixture.files("l3").len(), model.len(), "nothing is left of what was replaced");
    }
}
