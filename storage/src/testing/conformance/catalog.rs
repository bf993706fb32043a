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
