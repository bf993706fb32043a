use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tierstream_storage::format::SectionType;
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::store::Section;
use tierstream_storage::testing::Random;
use tierstream_storage::{DataSetInfo, RangeRead, RangeSource, Store, StoreConfig};

use super::*;
use crate::Dtype;
use crate::pack::{Input, Layout, PackConfig, PackProgress, pack};
use tierstream_prefetch::Prefetcher;

const BLOCK: u32 = 8192;
const SAMPLE: usize = 100;
const SAMPLES: u64 = 1000;

/// A packed data set, and what each of its samples is.
struct Fixture {
    dir: tempfile::TempDir,
    keys: Arc<dyn KeyProvider>,
    expected: Vec<Vec<u8>>,
}

fn fixture(layout: Layout) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("loader-test").unwrap());
    let root = dir.path().join("in");
    std::fs::create_dir(&root).unwrap();
    let mut random = Random::new(8);
    let expected: Vec<Vec<u8>> = match layout {
        Layout::PerFile => (0..200)
            .map(|number| {
                let mut bytes = vec![0; usize::try_from(random.below(3000)).unwrap()];
                random.fill(&mut bytes);
                std::fs::write(root.join(format!("{number:04}")), &bytes).unwrap();
                bytes
            })
            .collect(),
        Layout::Cut { .. } => {
            let mut text = vec![0; SAMPLE * usize::try_from(SAMPLES).unwrap()];
            random.fill(&mut text);
            std::fs::write(root.join("text"), &text).unwrap();
            text.chunks(SAMPLE).map(<[u8]>::to_vec).collect()
        }
    };
    let config = PackConfig {
        output: dir.path().join("set"),
        overwrite: false,
        resume: false,
        cipher: Cipher::Sm4Gcm,
        compressed: false,
        dictionary: None,
        block_bytes: BLOCK,
        shard_bytes: 30_000,
        layout,
        threads: 2,
        io: ServiceConfig::default(),
    };
    pack(&Input::scan(&root).unwrap(), &config, &keys, &PackProgress::default()).unwrap();
    Fixture { dir, keys, expected }
}

fn cut() -> Fixture {
    fixture(Layout::Cut { sample_bytes: u64::try_from(SAMPLE).unwrap(), dtype: Dtype::U8 })
}

impl Fixture {
    fn path(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    fn store(&self) -> Store {
        let config =
            StoreConfig { l1_bytes: 32 * u64::from(BLOCK), block_bytes: BLOCK, ..StoreConfig::default() };
        Store::open(config, Arc::clone(&self.keys)).unwrap()
    }
}

fn dataset(store: &Store, path: &Path) -> Dataset {
    Dataset::open(Arc::new(store.clone()), path.to_str().unwrap()).unwrap()
}

/// All sample ids of a loader, after comparing every sample with what it must be.
fn drain(loader: Loader, expected: &[Vec<u8>]) -> Vec<u64> {
    let mut ids = Vec::new();
    for batch in loader {
        let batch = batch.unwrap();
        for (index, id) in batch.sample_ids().iter().enumerate() {
            assert!(batch.sample(index) == expected[usize::try_from(*id).unwrap()], "sample {id}");
        }
        assert_eq!(batch.bytes().as_ptr().addr() % 64, 0, "batches are aligned");
        ids.extend_from_slice(batch.sample_ids());
    }
    ids
}

#[test]
fn every_sample_comes_once_an_epoch_with_and_without_prefetcher() {
    for fixture in [cut(), fixture(Layout::PerFile)] {
        let store = fixture.store();
        let dataset = dataset(&store, &fixture.path());
        let build = || Loader::builder(dataset.clone()).batch_size(7).shuffle(true).seed(5).num_epochs(3);
        let plain = drain(build().build().unwrap(), &fixture.expected);
        let announced =
            drain(build().prefetcher(Prefetcher::new(&store)).build().unwrap(), &fixture.expected);
        assert_eq!(plain, announced, "the order is not of caches");
        let n = fixture.expected.len();
        assert_eq!(plain.len(), 3 * n);
        for epoch in plain.chunks(n) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..u64::try_from(n).unwrap()));
        }
        assert_ne!(plain[..n], plain[n..2 * n], "each epoch has its own order");
        let in_order =
            drain(Loader::builder(dataset.clone()).batch_size(64).build().unwrap(), &fixture.expected);
        assert!(in_order.into_iter().eq(0..u64::try_from(n).unwrap()));
    }
}

#[test]
fn batches_are_cut_as_asked() {
    let fixture = cut();
    let store = fixture.store();
    let dataset = dataset(&store, &fixture.path());
    let sizes = |drop_last| -> Vec<(u64, u64, usize)> {
        let loader = Loader::builder(dataset.clone())
            .batch_size(300)
            .drop_last(drop_last)
            .num_epochs(2)
            .build()
            .unwrap();
        loader.map(|batch| batch.unwrap()).map(|batch| (batch.epoch(), batch.number(), batch.len())).collect()
    };
    let full = [(0, 0, 300), (0, 1, 300), (0, 2, 300)];
    assert_eq!(sizes(true)[..3], full);
    assert_eq!(sizes(true).len(), 6);
    assert_eq!(sizes(false)[..5], [full[0], full[1], full[2], (0, 3, 100), (1, 0, 300)]);
}

#[test]
fn a_loader_resumes_at_the_very_next_sample() {
    let fixture = cut();
    let store = fixture.store();
    let dataset = dataset(&store, &fixture.path());
    let build = || {
        let builder =
            Loader::builder(dataset.clone()).batch_size(64).shuffle(true).seed(9).rank(1, 3).num_epochs(3);
        builder.prefetcher(Prefetcher::new(&store))
    };
    let whole = drain(build().build().unwrap(), &fixture.expected);
    for stop_after in 0..=18 {
        let mut loader = build().build().unwrap();
        let mut ids: Vec<u64> =
            (0..stop_after).flat_map(|_| loader.next().unwrap().unwrap().sample_ids().to_vec()).collect();
        let state = serde_json::to_string(&loader.state_dict()).unwrap();
        assert!(state.len() < 1024);
        drop(loader);
        let resumed = build().load_state_dict(serde_json::from_str(&state).unwrap()).build().unwrap();
        ids.extend(drain(resumed, &fixture.expected));
        assert_eq!(ids, whole, "stopped after {stop_after} batches");
    }
}

#[test]
fn settings_and_states_that_make_no_sense_are_refused() {
    let fixture = cut();
    let store = fixture.store();
    let dataset = dataset(&store, &fixture.path());
    let build = || Loader::builder(dataset.clone());
    let state = build().build().unwrap().state_dict();
    let refused = [
        build().batch_size(0),
        build().prefetch_factor(0),
        build().num_workers(0),
        build().epoch_size(0),
        build().rank(2, 2),
        build().rank(SAMPLES, SAMPLES + 1),
        build().batch_size(SAMPLES + 1).drop_last(true),
        build().seed(1).load_state_dict(state.clone()),
        build().shuffle(true).load_state_dict(state.clone()),
        build().epoch_size(99).load_state_dict(state.clone()),
        build().load_state_dict(LoaderState { done: SAMPLES + 1, ..state.clone() }),
        build().load_state_dict(LoaderState { generation: 2, ..state.clone() }),
        build().load_state_dict(LoaderState { data_set: "other".to_owned(), ..state }),
    ];
    for builder in refused {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.hint_text().is_some(), "{error}");
    }
}

#[test]
fn an_error_ends_the_loader_and_names_the_place() {
    use std::os::unix::fs::FileExt;
    let fixture = cut();
    let shard = fixture.path().join("shard-00001.tss");
    let file = std::fs::OpenOptions::new().write(true).open(&shard).unwrap();
    file.write_all_at(b"damage", 4096 + 50).unwrap();
    let store = fixture.store();
    let mut loader = Loader::builder(dataset(&store, &fixture.path())).batch_size(100).build().unwrap();
    let errors: Vec<_> = loader.by_ref().filter_map(std::result::Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind(), ErrorKind::Corrupt);
    assert!(errors[0].to_string().contains("shard-00001.tss"), "{}", errors[0]);
    assert!(loader.next().is_none());
}

/// A source that breaks a promise of its own.
#[derive(Debug)]
struct Panics(Store);

impl RangeSource for Panics {
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>> {
        self.0.open_data_set(location)
    }

    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>> {
        self.0.section(set, shard, section)
    }

    fn read(&self, _: &DataSetInfo, _: &mut [RangeRead<'_>]) -> Result<()> {
        panic!("on purpose")
    }

    fn metrics(&self) -> Snapshot {
        self.0.metrics()
    }
}

#[test]
fn a_panic_while_loading_is_an_error_and_not_the_end_of_the_data() {
    let fixture = cut();
    let source = Arc::new(Panics(fixture.store()));
    let dataset = Dataset::open(source, fixture.path().to_str().unwrap()).unwrap();
    let mut loader = Loader::builder(dataset).batch_size(4).build().unwrap();
    let error = loader.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn a_loader_may_be_dropped_at_any_moment() {
    let fixture = cut();
    let store = fixture.store();
    let dataset = dataset(&store, &fixture.path());
    for taken in 0..6 {
        let builder = Loader::builder(dataset.clone()).batch_size(10).num_epochs(u64::MAX);
        let mut loader = builder.prefetcher(Prefetcher::new(&store)).build().unwrap();
        let held: Vec<Batch> = loader.by_ref().take(taken).map(|batch| batch.unwrap()).collect();
        drop(loader);
        for batch in &held {
            let first = usize::try_from(batch.sample_ids()[0]).unwrap();
            assert!(batch.sample(0) == fixture.expected[first], "a batch outlives its loader");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn ranks_of_any_world_see_every_sample_once(world in 1_u64..7, batch in 1_u64..200, seed: u64) {
        let fixture = shared();
        let store = fixture.store();
        let dataset = dataset(&store, &fixture.path());
        let mut ids = Vec::new();
        for rank in 0..world {
            let loader = Loader::builder(dataset.clone()).batch_size(batch).shuffle(true).seed(seed).rank(rank, world);
            ids.extend(drain(loader.prefetcher(Prefetcher::new(&store)).build().unwrap(), &fixture.expected));
        }
        ids.sort_unstable();
        prop_assert!(ids.into_iter().eq(0..SAMPLES));
    }
}

fn shared() -> &'static Fixture {
    static SHARED: std::sync::OnceLock<Fixture> = std::sync::OnceLock::new();
    SHARED.get_or_init(cut)
}
