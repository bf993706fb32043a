use std::path::{Path, PathBuf};
use std::sync::Arc;

use tierstream_crypto::{Cipher, KeyProvider, RootKey};

use super::*;
use crate::error::{ErrorKind, Result};
use crate::format::{MANIFEST_NAME, SectionType, capacity};
use crate::io::{EngineChoice, IoEngine, ServiceConfig, UringEngine};
use crate::testing::{FaultEngine, FaultPlan, Random};
use crate::tier::L2Config;
use crate::units::{to_u64, to_usize};

pub(super) const BLOCK: u32 = 16 * 1024;
const NAMES: SectionType = SectionType(18);

/// A data set on disk, and what its payloads are.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) keys: Arc<dyn KeyProvider>,
    pub(super) payloads: Vec<Vec<u8>>,
}

fn context() -> WriteContext {
    WriteContext::new(&ServiceConfig::default(), BLOCK, 2).unwrap()
}

fn payloads(seed: u64, lens: &[usize]) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut payload = |len: &usize| {
        let mut bytes = vec![0; *len];
        random.fill(&mut bytes);
        // Half of it compresses.
        bytes[..len / 2].iter_mut().for_each(|byte| *byte %= 3);
        bytes
    };
    lens.iter().map(&mut payload).collect()
}

impl Fixture {
    pub(super) fn new(cipher: Cipher, compressed: bool) -> Self {
        let block = to_usize(capacity(BLOCK));
        let payloads = payloads(11, &[block * 40 + 17, 1, block, 0, block * 9 - 1]);
        let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("store-test").unwrap());
        let fixture = Self { dir: tempfile::tempdir().unwrap(), keys, payloads };
        std::fs::create_dir(fixture.l2()).unwrap();
        fixture.write(cipher, compressed, false).unwrap();
        fixture
    }

    pub(super) fn set(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    pub(super) fn l2(&self) -> PathBuf {
        self.dir.path().join("l2")
    }

    fn write(&self, cipher: Cipher, compressed: bool, overwrite: bool) -> Result<u64> {
        let context = context();
        let keys = Arc::clone(&self.keys);
        let set =
            DataSetWriter::create(&context, keys, &self.set(), overwrite, cipher, compressed, BLOCK, 1)?;
        let mut shards = Vec::new();
        for (number, payload) in self.payloads.iter().enumerate() {
            let mut shard = set.shard(number)?;
            for piece in payload.chunks(10_007) {
                shard.write(piece)?;
            }
            let names = vec![u8::try_from(number).unwrap(); 30_000];
            shards.push(set.finish_shard(number, shard, 1, vec![(NAMES, names)])?);
        }
        set.publish(serde_json::json!({"fields": []}), serde_json::Value::Null, shards)
    }

    pub(super) fn config(&self) -> StoreConfig {
        let l2 = vec![L2Config { path: self.l2(), bytes: 8 << 20 }];
        StoreConfig { l1_bytes: 1 << 20, block_bytes: BLOCK, l2, codec_threads: 2, ..StoreConfig::default() }
    }

    pub(super) fn open(&self) -> (Store, Arc<DataSetInfo>) {
        let store = Store::open(self.config(), Arc::clone(&self.keys)).unwrap();
        let set = store.open_data_set(self.set().to_str().unwrap()).unwrap();
        (store, set)
    }

    /// Reads random ranges, many at a time, and the whole of every shard, and compares.
    fn check(&self, store: &Store, set: &DataSetInfo, seed: u64) -> Result<()> {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        for _ in 0..20 {
            let mut wanted: Vec<(usize, std::ops::Range<u64>)> = (0..random.below(40))
                .map(|_| {
                    let shard = to_usize(random.below(to_u64(self.payloads.len())));
                    let len = to_u64(self.payloads[shard].len());
                    let (a, b) = (random.below(len + 1), random.below(len + 1));
                    (shard, a.min(b)..a.max(b).min(a.min(b) + 50_000))
                })
                .collect();
            if random.one_in(5) {
                wanted.extend(
                    self.payloads.iter().enumerate().map(|(shard, all)| (shard, 0..to_u64(all.len()))),
                );
            }
            let mut buffers: Vec<Vec<u8>> =
                wanted.iter().map(|(_, range)| vec![0; to_usize(range.end - range.start)]).collect();
            let mut reads: Vec<RangeRead<'_>> = wanted
                .iter()
                .zip(&mut buffers)
                .map(|((shard, range), to)| RangeRead { shard: *shard, range: range.clone(), to })
                .collect();
            store.read(set, &mut reads)?;
            for ((shard, range), found) in wanted.iter().zip(&buffers) {
                let expected = &self.payloads[*shard][to_usize(range.start)..to_usize(range.end)];
                assert!(found == expected, "shard {shard} {range:?} differs, seed {seed}");
            }
        }
        Ok(())
    }
}

pub(super) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn what_was_written_is_read_through_all_tiers_and_again_after_a_restart() {
    for (cipher, compressed) in [(Cipher::Sm4Gcm, false), (Cipher::Sm4Gcm, true), (Cipher::Aes256Gcm, true)] {
        let fixture = Fixture::new(cipher, compressed);
        let (store, set) = fixture.open();
        assert_eq!((set.generation, set.l2_warm_bytes), (1, 0));
        fixture.check(&store, &set, 1).unwrap();
        let names = store.section(&set, 2, NAMES).unwrap().unwrap();
        assert!(names.len() == 30_000 && names.iter().all(|byte| *byte == 2));
        assert!(store.section(&set, 2, SectionType(99)).unwrap().is_none());
        let cold = store.metrics();
        assert!(cold.l3.hits > 0 && cold.l1.hits > 0 && cold.demand_waits > 0, "{cold:?}");
        assert!(cold.open_bytes > 0);
        drop(store);

        let (store, set) = fixture.open();
        assert!(set.l2_warm_bytes > 0, "L2 is warm after a restart");
        fixture.check(&store, &set, 2).unwrap();
        let warm = store.metrics();
        assert!(warm.l2.hits > 0 && warm.l3.hits == 0, "all comes from L2: {warm:?}");
    }
}

#[test]
fn without_l2_and_with_threads_instead_of_uring_the_bytes_are_the_same() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, true);
    let io = ServiceConfig { engine: EngineChoice::Psync, ..ServiceConfig::default() };
    let config = StoreConfig { l2: Vec::new(), io, ..fixture.config() };
    let store = Store::open(config, Arc::clone(&fixture.keys)).unwrap();
    assert_eq!(store.io_report().name, "psync");
    let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
    fixture.check(&store, &set, 3).unwrap();
    assert_eq!(store.metrics().l2.hits, 0);
}

#[test]
fn a_range_may_be_longer_than_l1() {
    let fixture = Fixture::new(Cipher::Aes256Gcm, false);
    let config = StoreConfig { l1_bytes: 16 * u64::from(BLOCK), l2: Vec::new(), ..fixture.config() };
    let store = Store::open(config, Arc::clone(&fixture.keys)).unwrap();
    let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
    let mut to = vec![0; fixture.payloads[0].len()];
    assert!(to.len() > 2 * 16 * to_usize(capacity(BLOCK)), "more blocks than L1 has");
    let range = 0..to_u64(to.len());
    store.read(&set, &mut [RangeRead { shard: 0, range, to: &mut to }]).unwrap();
    assert!(to == fixture.payloads[0]);
}

#[test]
fn many_readers_of_one_block_cost_one_read() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (store, set) = fixture.open();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let mut byte = [0];
                store.read(&set, &mut [RangeRead { shard: 0, range: 5..6, to: &mut byte }]).unwrap();
                assert_eq!(byte[0], fixture.payloads[0][5]);
            });
        }
    });
    assert_eq!(store.metrics().l3.hits, 1);
}

#[test]
fn a_ruined_l2_costs_time_but_no_byte() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, true);
    let (store, set) = fixture.open();
    fixture.check(&store, &set, 4).unwrap();
    drop(store);
    // Every kind of fault at once, on L2 alone, on a warm L2 and on the way back into it.
    for seed in 0..12 {
        let plan = FaultPlan {
            seed,
            path_contains: "/l2/".to_owned(),
            short: 5,
            interrupted: 7,
            read_error: 6,
            no_space: if seed % 3 == 0 { 9 } else { 0 },
            bit_flip: 4,
            ..FaultPlan::default()
        };
        let depth = 64;
        let store = Store::open_on(fixture.config(), Arc::clone(&fixture.keys), move |arena| {
            let inner: Box<dyn IoEngine> = match UringEngine::new(depth, Some(arena)) {
                Ok(engine) => Box::new(engine),
                Err(_) => Box::new(crate::io::PsyncEngine::new(depth)?),
            };
            let engine = FaultEngine::new(inner, plan);
            let report = engine.report();
            Ok((Box::new(engine) as Box<dyn IoEngine>, report))
        })
        .unwrap();
        let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
        fixture.check(&store, &set, seed).unwrap();
        let seen = store.metrics();
        assert!(seen.l2_dropped_blocks > 0 || seen.l2.hits == 0, "seed {seed}: {seen:?}");
    }
}

#[test]
fn l2_may_vanish_while_the_store_is_open() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (store, set) = fixture.open();
    fixture.check(&store, &set, 5).unwrap();
    std::fs::remove_dir_all(fixture.l2()).unwrap();
    fixture.check(&store, &set, 6).unwrap();
}

#[test]
fn a_flipped_byte_on_l3_is_named_and_not_delivered() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let shard = fixture.set().join("shard-00000.tss");
    let offset = 4096 + 3 * u64::from(BLOCK);
    flip(&shard, offset + 700);
    let (store, set) = fixture.open();
    let start = 3 * capacity(BLOCK);
    let mut to = vec![0xee; 100];
    let error =
        store.read(&set, &mut [RangeRead { shard: 0, range: start..start + 100, to: &mut to }]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(
        text.contains("shard-00000.tss")
            && text.contains("data block 3")
            && text.contains(&offset.to_string())
    );
    assert_eq!(to, [0xee; 100], "nothing was delivered");
    // The neighbours are whole.
    store.read(&set, &mut [RangeRead { shard: 0, range: start - 50..start, to: &mut to[..50] }]).unwrap();

    let report = verify(&context(), &*fixture.keys, &fixture.set(), 2, &VerifyProgress::default()).unwrap();
    assert_eq!((report.error_count, report.errors.len(), report.shards), (1, 1, 5));
    let place = report.errors[0].place().unwrap().clone();
    assert_eq!((place.path, place.block, place.offset), (shard, Some(("data", 3)), Some(offset)));
}

#[test]
fn shards_that_are_cut_swapped_or_rolled_back_are_refused() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, true);
    let set_path = fixture.set();
    let read_first = || {
        let store =
            Store::open(StoreConfig { l2: Vec::new(), ..fixture.config() }, Arc::clone(&fixture.keys))
                .unwrap();
        let set = store.open_data_set(set_path.to_str().unwrap())?;
        store.read(&set, &mut [RangeRead { shard: 0, range: 0..1, to: &mut [0] }])
    };
    read_first().unwrap();
    let shard = set_path.join("shard-00000.tss");
    let whole = std::fs::read(&shard).unwrap();
    for len in [0, 100, 4096, whole.len() - 4096, whole.len() - 1, whole.len() + 4096] {
        let mut cut = whole.clone();
        cut.resize(len, 0);
        std::fs::write(&shard, cut).unwrap();
        let error = read_first().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes");
        assert!(error.to_string().contains("shard-00000.tss"), "{error}");
    }
    std::fs::copy(set_path.join("shard-00004.tss"), &shard).unwrap();
    let error = read_first().unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("another file"), "{error}");
    std::fs::write(&shard, &whole).unwrap();
    read_first().unwrap();

    // The same shard of the generation before, properly sealed under the same key.
    fixture.write(Cipher::Sm4Gcm, true, true).unwrap();
    std::fs::write(&shard, &whole).unwrap();
    let error = read_first().unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("another file"), "{error}");
}

#[test]
fn a_rolled_back_data_set_is_refused_by_a_store_that_saw_the_newer_one() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (set, older) = (fixture.set(), fixture.dir.path().join("older"));
    drop(fixture.open());
    std::fs::create_dir(&older).unwrap();
    for entry in std::fs::read_dir(&set).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), older.join(entry.file_name())).unwrap();
    }
    assert_eq!(fixture.write(Cipher::Sm4Gcm, false, true).unwrap(), 2);
    assert_eq!(fixture.open().1.generation, 2);

    std::fs::rename(&set, fixture.dir.path().join("newer")).unwrap();
    std::fs::rename(&older, &set).unwrap();
    let store = Store::open(fixture.config(), Arc::clone(&fixture.keys)).unwrap();
    let error = store.open_data_set(set.to_str().unwrap()).unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("rolled back"), "{error}");
    drop(store);
    let store =
        Store::open(StoreConfig { allow_rollback: true, ..fixture.config() }, Arc::clone(&fixture.keys))
            .unwrap();
    assert_eq!(store.open_data_set(set.to_str().unwrap()).unwrap().generation, 1);
}

#[test]
fn a_data_set_that_was_moved_is_read_where_it_is_now() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (store, _) = fixture.open();
    let elsewhere = fixture.dir.path().join("elsewhere");
    std::fs::rename(fixture.set(), &elsewhere).unwrap();
    let set = store.open_data_set(elsewhere.to_str().unwrap()).unwrap();
    let mut to = [0; 4];
    store.read(&set, &mut [RangeRead { shard: 0, range: 0..4, to: &mut to }]).unwrap();
    assert_eq!(to, fixture.payloads[0][..4]);
}

#[test]
fn a_data_set_appears_whole_or_not_at_all() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names(fixture.dir.path());
    assert_eq!(before, ["l2", "set"]);

    let again = fixture.write(Cipher::Sm4Gcm, false, false).unwrap_err();
    assert!(
        again.kind() == ErrorKind::Misuse && again.hint_text().unwrap().contains("--overwrite"),
        "{again}"
    );

    // Dropped half-way: nothing is left. Abandoned without its lock (killed): the next writer cleans up.
    let context = context();
    let target = fixture.dir.path().join("half");
    let create = |target: &Path| {
        let keys = Arc::clone(&fixture.keys);
        DataSetWriter::create(&context, keys, target, false, Cipher::Sm4Gcm, false, BLOCK, 1).unwrap()
    };
    let half = create(&target);
    half.shard(0).unwrap().write(&[1; 100_000]).unwrap();
    assert_eq!(names(fixture.dir.path()).len(), 3);
    drop(half);
    assert_eq!(names(fixture.dir.path()), before);
    let abandoned = fixture.dir.path().join(".half.partial-dead");
    std::fs::create_dir(&abandoned).unwrap();
    std::fs::write(abandoned.join("shard-00000.tss"), b"half").unwrap();
    let first = create(&target);
    let second = create(&target);
    assert!(!abandoned.exists(), "what a killed writer left is removed");
    let publish =
        |writer: DataSetWriter<'_>| writer.publish(serde_json::json!({}), serde_json::Value::Null, vec![]);
    publish(first).unwrap();
    assert_eq!(publish(second).unwrap_err().kind(), ErrorKind::Misuse, "two writers of one name");
    assert_eq!(names(fixture.dir.path()), ["half", "l2", "set"]);
}

#[test]
fn bad_requests_and_settings_are_refused() {
    let fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let (store, set) = fixture.open();
    let mut to = [0; 4];
    let backwards = std::ops::Range { start: 4, end: 0 };
    for (shard, range) in [(9, 0..4), (1, 0..4), (0, backwards), (0, 0..5), (0, u64::MAX - 4..u64::MAX)] {
        let error = store.read(&set, &mut [RangeRead { shard, range, to: &mut to }]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }
    let busy = Store::open(fixture.config(), Arc::clone(&fixture.keys)).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Retry, "{busy}");
    drop(store);
    let open = |config: StoreConfig| Store::open(config, Arc::clone(&fixture.keys)).unwrap_err();
    assert_eq!(open(StoreConfig { l1_bytes: 1000, ..fixture.config() }).kind(), ErrorKind::Misuse);
    let l2 = vec![L2Config { path: fixture.dir.path().join("nowhere"), bytes: 8 << 20 }];
    let missing = open(StoreConfig { l2, ..fixture.config() });
    assert!(
        missing.kind() == ErrorKind::Missing && missing.hint_text().unwrap().contains("mkdir"),
        "{missing}"
    );

    let stranger: Arc<dyn KeyProvider> = Arc::new(RootKey::random("store-test").unwrap());
    let store = Store::open(fixture.config(), stranger).unwrap();
    let error = store.open_data_set(fixture.set().to_str().unwrap()).unwrap_err();
    assert!(error.kind() == ErrorKind::Missing && error.hint_text().unwrap().contains("--key"), "{error}");
    let error = store.open_data_set(fixture.l2().to_str().unwrap()).unwrap_err();
    assert!(error.kind() == ErrorKind::Missing && error.hint_text().unwrap().contains("pack"), "{error}");
}

#[test]
fn nothing_readable_lies_on_l2_or_l3() {
    let mut fixture = Fixture::new(Cipher::Sm4Gcm, false);
    let secret = b"the quick brown fox jumps over the lazy dog; ".repeat(4000);
    fixture.payloads[0] = secret;
    fixture.write(Cipher::Sm4Gcm, false, true).unwrap();
    let (store, set) = fixture.open();
    fixture.check(&store, &set, 7).unwrap();
    drop(store);
    let mut checked = 0;
    let mut todo = vec![fixture.dir.path().to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(9).any(|window| window == b"brown fox"), "{}", path.display());
            checked += bytes.len();
        }
    }
    assert!(checked > 500_000);
}

#[test]
fn peeking_needs_no_key_and_trusts_nothing() {
    let fixture = Fixture::new(Cipher::Aes256Gcm, true);
    let header = peek_header(&fixture.set().join(MANIFEST_NAME)).unwrap();
    assert_eq!((header.params.cipher, header.params.generation), (Cipher::Aes256Gcm, 1));
    let foreign = fixture.dir.path().join("foreign");
    std::fs::write(&foreign, [b'x'; 5000]).unwrap();
    assert_eq!(peek_header(&foreign).unwrap_err().kind(), ErrorKind::Misuse);
    std::fs::write(&foreign, b"short").unwrap();
    assert_eq!(peek_header(&foreign).unwrap_err().kind(), ErrorKind::Corrupt);
}
