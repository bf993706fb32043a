//! Objects end to end: against a plain map, with faults, with files and catalogs that vanish.

mod bucket;
mod faults;
mod keys;
mod model;
mod recovery;
mod scrub;
mod tensors;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tierstream_crypto::{KeyProvider, RootKey};

use super::*;
use crate::error::Result;
use crate::store::{Store, StoreConfig};
use crate::testing::Random;
use crate::tier::L2Config;
use crate::units::to_usize;

const BLOCK: u32 = 8 * 1024;

/// Directories for L2 and L3, and a key.
struct Fixture {
    dir: tempfile::TempDir,
    keys: Arc<dyn KeyProvider>,
    l2_object_bytes: u64,
    with_l2: bool,
    home: Option<Arc<dyn crate::home::ShardHome>>,
    drain: DrainMode,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for tier in ["l2", "l3"] {
            std::fs::create_dir(dir.path().join(tier)).unwrap();
        }
        let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("objects").unwrap());
        Self { dir, keys, l2_object_bytes: 4 << 20, with_l2: true, home: None, drain: DrainMode::Manual }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> StoreConfig {
        let objects = ObjectConfig {
            put_patience: Duration::ZERO,
            drain: self.drain,
            home: self.home.clone(),
            ..ObjectConfig::new(self.path("l3"), self.l2_object_bytes)
        };
        StoreConfig {
            l1_bytes: 1 << 20,
            block_bytes: BLOCK,
            l2: self
                .with_l2
                .then(|| L2Config { path: self.path("l2"), bytes: 8 << 20 })
                .into_iter()
                .collect(),
            objects: Some(objects),
            codec_threads: 2,
            ..StoreConfig::default()
        }
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Store> {
        Store::open(self.config(), Arc::clone(&self.keys))
    }

    /// Names of the object files of a tier, sorted.
    fn files(&self, tier: &str) -> Vec<PathBuf> {
        files_in(&self.path(tier).join("objects"))
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|of| of == "tso" || of == "partial")).collect();
    files.sort();
    files
}

fn random_bytes(random: &mut Random, most: u64) -> Vec<u8> {
    let mut bytes = vec![0; to_usize(random.below(most))];
    random.fill(&mut bytes);
    bytes
}

fn put(store: &Store, name: &str, bytes: &[u8]) -> PutReport {
    store.put(name, &bytes, &PutOptions::default()).unwrap()
}

#[test]
fn an_object_is_dirty_then_clean_then_gone() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let bytes = random_bytes(&mut Random::new(1), 100_000);
    let report = put(&store, "run/1/model", &bytes);
    assert!(!report.on_l3);
    assert_eq!((fixture.files("l2").len(), fixture.files("l3").len()), (1, 0));
    let status = store.object_status().unwrap();
    assert_eq!((status.objects, status.dirty_objects, status.dirty_bytes), (1, 1, report.file_bytes));
    assert_eq!(store.get("run/1/model").unwrap().read_all().unwrap(), bytes);

    let drained = store.drain_one().unwrap().unwrap();
    assert_eq!((drained.bytes, drained.version), (report.file_bytes, report.version));
    assert_eq!(store.drain_one().unwrap(), None);
    let counted = crate::RangeSource::metrics(&store);
    assert_eq!((counted.drained_objects, counted.drained_bytes), (1, report.file_bytes));
    let info = store.list("run/").unwrap().pop().unwrap();
    assert!(info.on_l2 && info.on_l3 && info.reads == 1, "{info:?}");
    assert_eq!(
        std::fs::read(&fixture.files("l2")[0]).unwrap(),
        std::fs::read(&fixture.files("l3")[0]).unwrap()
    );
    drop(store);

    let store = fixture.open();
    assert!(store.recovery().unwrap().is_clean());
    let object = store.get("run/1/model").unwrap();
    assert_eq!((object.read_all().unwrap(), object.info().reads), (bytes.clone(), 2));
    assert!(store.delete("run/1/model").unwrap());
    assert!(!store.delete("run/1/model").unwrap());
    assert_eq!(store.get("run/1/model").unwrap_err().kind(), crate::ErrorKind::Missing);
    assert!(store.list("").unwrap().is_empty());
    assert_eq!(object.read_all().unwrap(), bytes, "who has it open goes on reading");
    store.flush().unwrap();
    assert!(fixture.files("l2").is_empty() && fixture.files("l3").is_empty());
    drop((object, store));
    assert!(fixture.open().recovery().unwrap().is_clean());
}

#[test]
fn a_replaced_object_is_read_to_its_end_and_leaves_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "x", &[1; 50_000]);
    let old = store.get("x").unwrap();
    store.flush().unwrap();
    put(&store, "x", &[2; 60_000]);
    assert_eq!(old.read_all().unwrap(), [1; 50_000]);
    assert_eq!(store.get("x").unwrap().read_all().unwrap(), [2; 60_000]);
    // Until the new version is on L3, the old one is L3's answer.
    assert_eq!((fixture.files("l2").len(), fixture.files("l3").len()), (1, 1));
    put(&store, "x", &[3; 10]);
    store.flush().unwrap();
    assert_eq!((fixture.files("l2").len(), fixture.files("l3").len()), (1, 1));
    assert_eq!(old.read_all().unwrap(), [1; 50_000]);
    assert_eq!(store.get("x").unwrap().read_all().unwrap(), [3; 10]);
}

#[test]
fn without_l2_a_put_is_durable_on_l3() {
    let fixture = Fixture { with_l2: false, ..Fixture::new() };
    let store = fixture.open();
    assert!(put(&store, "x", b"one").on_l3 && put(&store, "x", b"two").on_l3);
    assert_eq!(fixture.files("l3").len(), 1);
    drop(store);
    let store = fixture.open();
    assert_eq!(store.get("x").unwrap().read_all().unwrap(), b"two");
    assert!(store.delete("x").unwrap());
    assert!(fixture.files("l3").is_empty());
}

#[test]
fn the_background_drains_and_a_full_l2_pushes_back() {
    let fixture = Fixture { l2_object_bytes: 230_000, ..Fixture::new() };
    let store = fixture.open();
    put(&store, "a", &[1; 90_000]);
    put(&store, "b", &[2; 90_000]);
    let error = store.put("c", &vec![3; 90_000], &PutOptions::default()).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Full, "{error}");
    assert!(error.hint_text().unwrap().contains("--l2-size"));
    assert!(put(&store, "too large for L2", &[4; 300_000]).on_l3);
    assert_eq!(store.drain_one().unwrap().unwrap().name, "a");
    // The clean one makes room; the dirty one stays.
    put(&store, "c", &[3; 90_000]);
    let info = store.list("").unwrap();
    assert_eq!(
        info.iter().map(|of| (of.on_l2, of.on_l3)).collect::<Vec<_>>()[..3],
        [(false, true), (true, false), (true, false)]
    );
    drop(store);
    // What was left is drained by the next store's thread.
    let fixture = Fixture { drain: DrainMode::Background, ..fixture };
    let store = fixture.open();
    for (name, byte, len) in [("a", 1, 90_000), ("b", 2, 90_000), ("c", 3, 90_000)] {
        assert_eq!(store.get(name).unwrap().read_all().unwrap(), vec![byte; len]);
    }
    store.flush().unwrap();
    assert_eq!(store.object_status().unwrap().dirty_bytes, 0);
}
