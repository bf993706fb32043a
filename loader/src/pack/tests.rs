use std::path::Path;

use tierstream_storage::keys::RootKey;
use tierstream_storage::testing::Random;
use tierstream_storage::{RangeRead, Store, StoreConfig};

use super::*;
use crate::dataset::Dataset;
use crate::index::{RECORD_NAMES, name_of};

fn keys() -> Arc<dyn KeyProvider> {
    Arc::new(RootKey::random("pack-test").unwrap())
}

fn config(dir: &Path, layout: Layout) -> PackConfig {
    PackConfig {
        output: dir.join("out"),
        overwrite: false,
        resume: false,
        cipher: Cipher::Sm4Gcm,
        compressed: true,
        dictionary: None,
        block_bytes: 8192,
        shard_bytes: 50_000,
        layout,
        threads: 3,
        io: ServiceConfig::default(),
    }
}

/// Files of many sizes in nested directories; their contents by name.
fn input(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut random = Random::new(3);
    let mut files = Vec::new();
    for (number, name) in
        ["b.txt", "a/z.bin", "a/empty", "a/b/c/deep", "a.txt", "ü/ä", ".hidden"].into_iter().enumerate()
    {
        let mut bytes = vec![0; [0, 1, 30_000, 8128, 70_000, 10, 999][number % 7]];
        random.fill(&mut bytes);
        if name == "a/empty" {
            bytes.clear();
        }
        let path = dir.join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        files.push((name.to_owned(), bytes));
    }
    files.sort();
    files
}

fn open(output: &Path, keys: &Arc<dyn KeyProvider>) -> Dataset {
    let store =
        Store::open(StoreConfig { block_bytes: 8192, ..StoreConfig::default() }, Arc::clone(keys)).unwrap();
    Dataset::open(Arc::new(store), output.to_str().unwrap()).unwrap()
}

fn sample(dataset: &Dataset, number: u64) -> Vec<u8> {
    let read = dataset.locate(number).unwrap();
    let mut to = vec![0; usize::try_from(read.range.end - read.range.start).unwrap()];
    dataset.read(&mut [RangeRead { shard: read.shard, range: read.range, to: &mut to }]).unwrap();
    to
}

fn packed(dir: &Path, config: &PackConfig) -> (PackReport, Dataset) {
    let keys = keys();
    let input = Input::scan(&dir.join("in")).unwrap();
    let report = pack(&input, config, &keys, &PackProgress::default()).unwrap();
    let dataset = open(&report.output, &keys);
    (report, dataset)
}

#[test]
fn each_file_is_a_sample_with_its_name_in_path_order() {
    let dir = tempfile::tempdir().unwrap();
    let files = input(dir.path());
    for threads in [1, 4] {
        let config = PackConfig {
            threads,
            output: dir.path().join(format!("out{threads}")),
            ..config(dir.path(), Layout::PerFile)
        };
        let (report, dataset) = packed(dir.path(), &config);
        assert_eq!((report.files, report.samples, report.generation), (7, 7, 1));
        assert!(report.shards > 1);
        assert_eq!(report.input_bytes, files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        let mut number = 0;
        for (shard, info) in dataset.info().shards.iter().enumerate() {
            let names = dataset.source().section(dataset.info(), shard, RECORD_NAMES).unwrap().unwrap();
            for record in 0..info.records {
                let (name, bytes) = &files[usize::try_from(number).unwrap()];
                assert_eq!(name_of(&names, info.records, record), Some(&name[..]));
                assert!(sample(&dataset, number) == *bytes, "{name}");
                number += 1;
            }
        }
        assert_eq!(number, 7);
        assert!(dataset.locate(7).is_err());
    }
}

#[test]
fn a_long_text_is_cut_and_only_its_last_sample_is_padded() {
    let dir = tempfile::tempdir().unwrap();
    let files = input(dir.path());
    let text: Vec<u8> = files.into_iter().flat_map(|(_, bytes)| bytes).collect();
    for (sample_bytes, dtype) in
        [(129, Dtype::U8), (2, Dtype::U16), (60_000, Dtype::F32), (1 << 20, Dtype::U8)]
    {
        let output = dir.path().join(format!("out{sample_bytes}"));
        let config = PackConfig { output, ..config(dir.path(), Layout::Cut { sample_bytes, dtype }) };
        let (report, dataset) = packed(dir.path(), &config);
        let mut expected = text.clone();
        expected.resize(text.len().next_multiple_of(usize::try_from(sample_bytes).unwrap()), 0);
        assert_eq!(report.samples * sample_bytes, expected.len() as u64);
        assert_eq!(report.padded_bytes, (expected.len() - text.len()) as u64);
        let step = (report.samples / 500).max(1);
        for (number, expected) in (0..).zip(expected.chunks(usize::try_from(sample_bytes).unwrap())) {
            if number % step == 0 || number + 1 == report.samples {
                assert!(sample(&dataset, number) == expected, "sample {number} of {sample_bytes} bytes");
            }
        }
        assert_eq!(dataset.schema().field().dtype, dtype);
    }
}

#[test]
fn a_fingerprint_tells_whether_the_input_changed() {
    let dir = tempfile::tempdir().unwrap();
    input(dir.path());
    let root = dir.path().join("in");
    let scan = || Input::scan(&root).unwrap();
    let before = scan().fingerprint();
    assert_eq!(scan().fingerprint(), before);
    std::fs::write(root.join("a.txt"), b"other").unwrap();
    assert_ne!(scan().fingerprint(), before);
    let config = config(dir.path(), Layout::PerFile);
    let other = PackConfig { compressed: false, ..config.clone() };
    assert_ne!(source_of(&scan(), &config), source_of(&scan(), &other));
}

#[test]
fn links_are_followed_to_files_and_counted_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    input(dir.path());
    let root = dir.path().join("in");
    std::os::unix::fs::symlink(root.join("a.txt"), root.join("link")).unwrap();
    std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
    let scanned = Input::scan(&root).unwrap();
    assert_eq!((scanned.files().len(), scanned.left_out()), (8, 1));
    std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    let error = Input::scan(&root).unwrap_err();
    assert!(error.to_string().contains("dangling"), "{error}");
}

#[test]
fn bad_input_is_refused_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    input(dir.path());
    let root = dir.path().join("in");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(Input::scan(&empty).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(Input::scan(&root.join("a.txt")).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(Input::scan(&root.join("nowhere")).unwrap_err().kind(), ErrorKind::Missing);

    let keys = keys();
    let refuse = |config: &PackConfig| {
        let error = pack(&Input::scan(&root).unwrap(), config, &keys, &PackProgress::default()).unwrap_err();
        assert!(error.hint_text().is_some(), "no hint: {error}");
        assert!(!config.output.exists());
        error.kind()
    };
    let good = config(dir.path(), Layout::PerFile);
    let cut =
        |sample_bytes, dtype| PackConfig { layout: Layout::Cut { sample_bytes, dtype }, ..good.clone() };
    assert_eq!(refuse(&cut(0, Dtype::U8)), ErrorKind::Misuse);
    assert_eq!(refuse(&cut(3, Dtype::U16)), ErrorKind::Misuse);
    assert_eq!(refuse(&cut(u64::MAX, Dtype::U8)), ErrorKind::Misuse);
    assert_eq!(refuse(&PackConfig { shard_bytes: 0, ..good.clone() }), ErrorKind::Misuse);
    assert_eq!(refuse(&PackConfig { output: root.join("a/out"), ..good.clone() }), ErrorKind::Misuse);

    // A file that shrank between listing and reading, and a pack that is stopped.
    let listed = Input::scan(&root).unwrap();
    std::fs::write(root.join("a.txt"), b"short").unwrap();
    let error = pack(&listed, &good, &keys, &PackProgress::default()).unwrap_err();
    assert!(error.to_string().contains("a.txt") && error.to_string().contains("changed"), "{error}");
    let progress = PackProgress::default();
    progress.stop.store(true, Ordering::Relaxed);
    let error = pack(&Input::scan(&root).unwrap(), &good, &keys, &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["empty", "in"]);
}

#[test]
fn all_empty_files_make_samples_but_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    std::fs::create_dir(&root).unwrap();
    (0..3).for_each(|number| std::fs::write(root.join(number.to_string()), b"").unwrap());
    let (report, dataset) = packed(dir.path(), &config(dir.path(), Layout::PerFile));
    assert_eq!((report.samples, sample(&dataset, 2)), (3, vec![]));
    let cut = PackConfig {
        output: dir.path().join("cut"),
        ..config(dir.path(), Layout::Cut { sample_bytes: 4, dtype: Dtype::U8 })
    };
    let error = pack(&Input::scan(&root).unwrap(), &cut, &keys(), &PackProgress::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
}
