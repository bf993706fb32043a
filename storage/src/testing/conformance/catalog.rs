//! The suite of [`CatalogStore`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::{Batch, CatalogStore, Table};
use crate::error::{ErrorKind, Result};
use crate::testing::{Random, announce_seed};

type Open<'a> = &'a dyn Fn(&Path) -> Result<Arc<dyn CatalogStore>>;
const TABLES: u64 = Table::ALL.len() as u64;

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Runs the suite on catalogs that `open` gives for directories within `dir`.
///
/// # Panics
/// When the catalog breaks a promise of the trait.
pub fn catalog_store(dir: &Path, open: Open<'_>) {
    tables_do_not_mix(open, dir);
    for (name, suite) in [
        ("large", large_batches_keep_their_order as fn(Open<'_>, &Path)),
        ("threads", batches_of_threads_do_not_mix),
    ] {
        let of_suite = dir.join(name);
        std::fs::create_dir_all(&of_suite).expect("a directory for the test");
        suite(open, &of_suite);
    }
    for seed in 0..4 {
        let of_seed = dir.join(seed.to_string());
        std::fs::create_dir_all(&of_seed).expect("a directory for the test");
        random_batches_match_a_map(open, &of_seed, seed);
    }
}

fn entries(
    catalog: &dyn CatalogStore,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    catalog.scan(table, from, to, &mut visit).expect("a scan");
    found
}

fn tables_do_not_mix(open: Open<'_>, dir: &Path) {
    let catalog = open(dir).expect("an empty catalog");
    assert_eq!(catalog.get(Table::Blocks, b"k").expect("a read"), None);
    assert!(entries(&*catalog, Table::Blocks, b"", None).is_empty());
    catalog.apply(&Batch::default()).expect("an empty batch");

    let mut batch = Batch::default();
    for (table, value) in Table::ALL.into_iter().zip(1_u8..) {
        batch.put(table, b"", &[value]);
        batch.put(table, b"k", &[value, value]);
        batch.put(table, b"gone", b"soon");
        batch.delete(table, b"gone");
        batch.delete(table, b"never there");
    }
    catalog.apply(&batch).expect("a batch");
    for (table, value) in Table::ALL.into_iter().zip(1_u8..) {
        assert_eq!(catalog.get(table, b"k").expect("a read"), Some(vec![value, value]));
        let all = entries(&*catalog, table, b"", None);
        assert_eq!(all, vec![(vec![], vec![value]), (b"k".to_vec(), vec![value, value])]);
        let mut visited = 0;
        let mut once = |_: &[u8], _: &[u8]| {
            visited += 1;
            ControlFlow::Break(())
        };
        catalog.scan(table, b"", None, &mut once).expect("a scan that is broken off");
        assert_eq!(visited, 1);
    }

    let second = open(dir).expect_err("two openers at once");
    assert_eq!(second.kind(), ErrorKind::Retry, "{second}");
}

fn random_batches_match_a_map(open: Open<'_>, dir: &Path, seed: u64) {
    announce_seed("catalog conformance", seed);
    let mut random = Random::new(seed);
    let mut model = Model::new();
    let mut catalog = open(dir).expect("an empty catalog");
    for _ in 0..40 {
        let mut batch = Batch::default();
        for _ in 0..random.below(30) {
            let table = Table::ALL[crate::units::to_usize(random.below(TABLES))];
            let key = random.below(64).to_be_bytes()[5..].to_vec();
            if random.one_in(3) {
                batch.delete(table, &key);
                model.remove(&(table, key));
            } else {
                let mut value = vec![0; crate::units::to_usize(random.below(200))];
                random.fill(&mut value);
                batch.put(table, &key, &value);
                model.insert((table, key), value);
            }
        }
        catalog.apply(&batch).expect("a batch");
        if random.one_in(8) {
            drop(catalog);
            catalog = open(dir).expect("the same catalog again");
        }
        let table = Table::ALL[crate::units::to_usize(random.below(TABLES))];
        let (from, to) = (random.below(64).to_be_bytes(), random.below(64).to_be_bytes());
        let (from, to) = (&from[5..], (!random.one_in(4)).then_some(&to[5..]));
        let expected: Vec<_> = model
            .iter()
            .filter(|((of, key), _)| *of == table && &key[..] >= from && to.is_none_or(|to| &key[..] < to))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(entries(&*catalog, table, from, to), expected, "seed {seed}");
    }
}

/// Keys as long as the longest names, values of megabytes, many changes at once; and of one key the last change counts.
fn large_batches_keep_their_order(open: Open<'_>, dir: &Path) {
    let long_key = vec![b'n'; 1024];
    let large = vec![0xa5; 3 << 20];
    let catalog = open(dir).expect("an empty catalog");
    let mut batch = Batch::default();
    batch.put(Table::Objects, &long_key, b"first");
    batch.delete(Table::Objects, &long_key);
    batch.put(Table::Objects, &long_key, &large);
    batch.put(Table::Objects, b"gone", b"here");
    batch.delete(Table::Objects, b"gone");
    for number in 0..5000_u32 {
        batch.put(Table::Blocks, &number.to_be_bytes(), &number.to_le_bytes());
    }
    catalog.apply(&batch).expect("a large batch");
    drop(catalog);
    let catalog = open(dir).expect("the same catalog again");
    assert_eq!(catalog.get(Table::Objects, &long_key).expect("a read"), Some(large));
    assert_eq!(catalog.get(Table::Objects, b"gone").expect("a read"), None);
    let (from, to) = (100_u32.to_be_bytes(), 4000_u32.to_be_bytes());
    assert_eq!(entries(&*catalog, Table::Blocks, &from, Some(&to)).len(), 3900);
}

/// Batches of several threads do not mix: each sets all its keys to one value, and nobody ever sees two.
fn batches_of_threads_do_not_mix(open: Open<'_>, dir: &Path) {
    const KEYS: u8 = 8;
    let catalog = open(dir).expect("an empty catalog");
    std::thread::scope(|scope| {
        for writer in 0..3_u8 {
            let catalog = &catalog;
            scope.spawn(move || {
                for round in 0..15_u8 {
                    let mut batch = Batch::default();
                    (0..KEYS).for_each(|key| batch.put(Table::Objects, &[key], &[writer, round]));
                    catalog.apply(&batch).expect("a batch");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                let seen = entries(&*catalog, Table::Objects, b"", None);
                assert!(seen.is_empty() || seen.len() == usize::from(KEYS), "half a batch: {seen:?}");
                assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].1), "two batches: {seen:?}");
            }
        });
    });
    let last = entries(&*catalog, Table::Objects, b"", None);
    assert!(last.iter().all(|(_, value)| value[1] == 14), "a batch that came last is seen: {last:?}");
}
