//! Puts and drains on devices that fail: what was acknowledged is there, what was not is as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fixture, put, random_bytes};
use crate::error::{ErrorKind, Result};
use crate::io::{IoEngine, PsyncEngine};
use crate::store::Store;
use crate::store::object::PutOptions;
use crate::testing::{FaultEngine, FaultPlan, Random, announce_seed};

pub(super) fn open_with(fixture: &Fixture, plan: FaultPlan) -> Result<Store> {
    let config = fixture.config();
    let depth = config.io.fast_depth + config.io.slow_depth;
    Store::open_on(config, Arc::clone(&fixture.keys), move |_| {
        let engine = Box::new(PsyncEngine::new(depth)?);
        let report = engine.report();
        Ok((Box::new(FaultEngine::new(engine, plan)) as Box<dyn IoEngine>, report))
    })
}

fn always(tier: &str, fault: impl FnOnce(&mut FaultPlan)) -> FaultPlan {
    let mut plan = FaultPlan { seed: 1, path_contains: format!("{tier}/objects"), ..FaultPlan::default() };
    fault(&mut plan);
    plan
}

#[test]
fn what_l2_cannot_take_goes_to_l3_under_another_key() {
    for (fault, refused) in [
        (always("l2", |plan| plan.no_space = 1), false),
        (always("l2", |plan| plan.sync_error = 1), true),
        (always("l2", |plan| plan.write_error = 1), true),
    ] {
        let fixture = Fixture::new();
        put(&fixture.open(), "x", &[1; 20_000]);
        let store = open_with(&fixture, fault.clone()).unwrap();
        assert!(put(&store, "x", &[2; 30_000]).on_l3, "{fault:?}");
        assert_eq!(store.get("x").unwrap().read_all().unwrap(), [2; 30_000]);
        let status = store.object_status().unwrap();
        assert_eq!((status.l2_refused.is_some(), status.dirty_objects), (refused, 0), "{fault:?}");
        assert!(fixture.files("l2").is_empty(), "neither the old one nor half a new one: {fault:?}");
        drop(store);
        let store = fixture.open();
        assert!(store.recovery().unwrap().is_clean());
        assert_eq!(store.get("x").unwrap().read_all().unwrap(), [2; 30_000]);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for fault in [
        always("l3", |plan| plan.sync_error = 1),
        always("l3", |plan| plan.write_error = 1),
        always("l3", |plan| plan.no_space = 1),
    ] {
        let fixture = Fixture { with_l2: false, ..Fixture::new() };
        put(&fixture.open(), "x", &[1; 20_000]);
        let store = open_with(&fixture, fault.clone()).unwrap();
        let error = store.put("x", &vec![2; 30_000], &PutOptions::default()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::Full), "{error}");
        assert_eq!(store.get("x").unwrap().read_all().unwrap(), [1; 20_000]);
        assert_eq!(fixture.files("l3").len(), 1, "{fault:?}");
        drop(store);
        let store = fixture.open();
        assert!(store.recovery().unwrap().is_clean());
        assert_eq!(store.get("x").unwrap().read_all().unwrap(), [1; 20_000]);
    }
}

#[test]
fn what_l3_does_not_take_stays_dirty() {
    for fault in [
        always("l3", |plan| plan.sync_error = 1),
        always("l3", |plan| plan.write_error = 1),
        always("l3", |plan| plan.no_space = 1),
        always("l2", |plan| plan.read_error = 1),
    ] {
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store, "x", &[1; 20_000]);
        put(&store, "y", &[2; 20_000]);
        drop(store);
        let store = open_with(&fixture, fault.clone()).unwrap();
        // What L3 refuses is tried again; what L2 does not give is set aside, and tried again by a flush.
        let first = store.drain_one().unwrap_err();
        let second = store.drain_one().unwrap_err();
        let of_l2 = fault.path_contains.starts_with("l2");
        assert_eq!(first.place().unwrap().path != second.place().unwrap().path, of_l2, "{first}, {second}");
        store.flush().unwrap_err();
        let status = store.object_status().unwrap();
        assert!(status.dirty_objects == 2 && status.drain_error.is_some(), "{status:?} {fault:?}");
        assert_eq!(status.stuck_objects, if of_l2 { 2 } else { 0 });
        assert!(fixture.files("l3").is_empty(), "{fault:?}");
        drop(store);
        let store = fixture.open();
        store.flush().unwrap();
        assert_eq!(fixture.files("l3").len(), 2);
    }
}

#[test]
fn random_faults_never_change_what_was_acknowledged() {
    let (mut refused, mut stuck) = (0, 0);
    for seed in 0..24 {
        announce_seed("random_faults", seed);
        let mut random = Random::new(seed);
        let fixture = Fixture { l2_object_bytes: 400_000, with_l2: seed % 4 != 3, ..Fixture::new() };
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for round in 0..3 {
            let plan = FaultPlan {
                seed: seed * 10 + round,
                path_contains: "/objects".to_owned(),
                short: 5,
                interrupted: 9,
                read_error: 60,
                write_error: 60,
                sync_error: 10,
                no_space: 90,
                bit_flip: 0,
            };
            let store = open_with(&fixture, plan).unwrap();
            for _ in 0..15 {
                let name = format!("object-{}", random.below(5));
                let before = model.get(&name).cloned();
                if random.one_in(5) {
                    match store.delete(&name) {
                        Ok(there) => assert_eq!(there, model.remove(&name).is_some()),
                        Err(_) => refused += 1,
                    }
                } else {
                    let bytes = random_bytes(&mut random, 60_000);
                    match store.put(&name, &bytes, &PutOptions::default()) {
                        Ok(_) => drop(model.insert(name.clone(), bytes)),
                        Err(_) => refused += 1,
                    }
                }
                if random.one_in(2) {
                    stuck += u32::from(store.drain_one().is_err());
                }
                match store.get(&name).and_then(|object| object.read_all()) {
                    Ok(found) => {
                        assert_eq!(
                            Some(&found),
                            model.get(&name),
                            "{name}, before {:?}",
                            before.map(|b| b.len())
                        );
                    }
                    Err(error) if error.kind() == ErrorKind::Missing => assert!(!model.contains_key(&name)),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Device, "{error}"),
                }
            }
        }
        let store = fixture.open();
        assert_eq!(store.recovery().unwrap().lost, 0, "{:?}", store.recovery());
        let names: Vec<String> = store.list("").unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
        for (name, bytes) in &model {
            assert_eq!(&store.get(name).unwrap().read_all().unwrap(), bytes);
        }
        store.flush().unwrap();
        assert_eq!(fixture.files("l3").len(), model.len());
    }
    println!("{refused} puts and deletions were refused, {stuck} steps of the drain failed");
    assert!(refused > 10 && stuck > 10, "the faults were felt: {refused}, {stuck}");
}
