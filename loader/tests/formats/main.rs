//! Other programs' data sets in and out: packed, read through the loader, exported, and packed again, bit for bit.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tierstream_loader::export::{ExportFormat, ExportProgress, export};
use tierstream_loader::pack::formats::{self, FormatName, OpenOptions};
use tierstream_loader::pack::{Input, PackConfig, PackProgress, PackReport, Writer, convert, pack, source};
use tierstream_loader::{Dataset, Dtype, Field, Loader, Schema};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::testing::Random;
use tierstream_storage::{ErrorKind, Result, Store, StoreConfig};

struct Place {
    dir: tempfile::TempDir,
    keys: Arc<dyn KeyProvider>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keys: Arc::new(RootKey::random("formats").unwrap()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, output: &str, threads: usize) -> PackConfig {
        PackConfig { output: self.path(output), shard_bytes: 50_000, threads, ..PackConfig::default() }
    }

    fn convert(
        &self,
        input: &str,
        output: &str,
        options: &OpenOptions,
        threads: usize,
    ) -> Result<PackReport> {
        let input = self.path(input);
        let name = FormatName::detect(&input)?;
        let format = formats::open(&input, name, options)?;
        let source = source(&input, name, options, &*format)?;
        convert(&*format, &source, &self.config(output, threads), &self.keys, &PackProgress::default())
    }

    fn store(&self) -> Store {
        Store::open(StoreConfig { l1_bytes: 4 << 20, ..StoreConfig::default() }, Arc::clone(&self.keys))
            .unwrap()
    }

    fn open(&self, name: &str) -> Dataset {
        Dataset::open(Arc::new(self.store()), self.path(name).to_str().unwrap()).unwrap()
    }

    fn export(&self, set: &str, output: &str, format: ExportFormat) {
        let store = self.store();
        let dataset = Dataset::open(Arc::new(store.clone()), self.path(set).to_str().unwrap()).unwrap();
        let prefetcher = Some(Prefetcher::new(&store));
        let report =
            export(&dataset, prefetcher, format, &self.path(output), &ExportProgress::default()).unwrap();
        assert_eq!(report.samples, dataset.len());
    }
}

/// Every value of every sample, in order.
fn all(dataset: &Dataset) -> Vec<Vec<Vec<u8>>> {
    let mut samples = Vec::new();
    for batch in Loader::builder(dataset.clone()).batch_size(33).build().unwrap() {
        let batch = batch.unwrap();
        let sample = |index| batch.fields().map(|field| field.sample(index).to_vec()).collect();
        samples.extend((0..batch.len()).map(sample));
    }
    samples
}

/// A data set of typed and ragged fields.
fn typed(place: &Place, name: &str, samples: u64) {
    let fields = vec![
        Field::fixed("x", Dtype::F32, &[3]),
        Field::ragged("caption", Dtype::U8),
        Field::fixed("label", Dtype::I64, &[]),
    ];
    let mut writer =
        Writer::create(place.config(name, 1), Schema::of(fields).unwrap(), Arc::clone(&place.keys)).unwrap();
    let mut random = Random::new(6);
    for number in 0..samples {
        let mut caption = vec![0; usize::try_from(random.below(300)).unwrap()];
        random.fill(&mut caption);
        let x: Vec<u8> = [0.5_f32, -1.0, 7.25].into_iter().flat_map(f32::to_le_bytes).collect();
        writer.write(&[&x, &caption, &number.to_le_bytes()]).unwrap();
    }
    writer.finish().unwrap();
}

fn fixed(place: &Place, name: &str, samples: u32) {
    let fields = vec![Field::fixed("x", Dtype::U16, &[2, 5]), Field::fixed("y", Dtype::F64, &[])];
    let mut writer =
        Writer::create(place.config(name, 1), Schema::of(fields).unwrap(), Arc::clone(&place.keys)).unwrap();
    for number in 0..samples {
        let x: Vec<u8> = (0..10).flat_map(|step: u16| step.to_le_bytes()).collect();
        writer.write(&[&x, &f64::from(number).to_le_bytes()]).unwrap();
    }
    writer.finish().unwrap();
}

fn same(one: &Path, other: &Path) {
    assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "{} differs", other.display());
}

#[test]
fn safetensors_and_npy_come_back_bit_for_bit() {
    let place = Place::new();
    fixed(&place, "set", 3000);
    place.export("set", "a.safetensors", ExportFormat::Safetensors);
    // The reference implementation reads what we wrote.
    let bytes = std::fs::read(place.path("a.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("x").unwrap().shape(), [3000, 2, 5]);
    assert_eq!(reference.tensor("y").unwrap().data()[8..16], 1.0_f64.to_le_bytes());
    let report = place.convert("a.safetensors", "again", &OpenOptions::default(), 2).unwrap();
    assert_eq!(report.samples, 3000);
    place.export("again", "b.safetensors", ExportFormat::Safetensors);
    same(&place.path("a.safetensors"), &place.path("b.safetensors"));

    place.export("set", "npy", ExportFormat::Npy);
    let x = OpenOptions::default();
    std::fs::remove_file(place.path("npy/y.npy")).unwrap();
    place.convert("npy", "from-npy", &x, 2).unwrap();
    let expected: Vec<Vec<Vec<u8>>> =
        all(&place.open("set")).into_iter().map(|sample| vec![sample[0].clone()]).collect();
    assert_eq!(all(&place.open("from-npy")), expected);
    place.export("from-npy", "npy2", ExportFormat::Npy);
    same(&place.path("npy/x.npy"), &place.path("npy2/data.npy"));
}

#[test]
fn ragged_fields_are_values_and_offsets() {
    let place = Place::new();
    typed(&place, "set", 500);
    let samples = all(&place.open("set"));
    place.export("set", "a.safetensors", ExportFormat::Safetensors);
    let bytes = std::fs::read(place.path("a.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let offsets: Vec<usize> = tensors
        .tensor("caption.offsets")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|eight| usize::try_from(i64::from_le_bytes(eight.try_into().unwrap())).unwrap())
        .collect();
    assert_eq!(offsets.len(), 501);
    let captions = tensors.tensor("caption").unwrap();
    for (pair, sample) in offsets.windows(2).zip(&samples) {
        assert!(captions.data()[pair[0]..pair[1]] == sample[1]);
    }
    place.export("set", "npy", ExportFormat::Npy);
    let mut names: Vec<_> =
        std::fs::read_dir(place.path("npy")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["caption.npy", "caption.offsets.npy", "label.npy", "x.npy"]);
}

#[test]
fn an_archive_comes_back_with_its_samples_and_names() {
    let place = Place::new();
    // From files, whose names the archive gives back: the system's tar reads it.
    let mut random = Random::new(2);
    for number in 0..40 {
        for extension in ["jpg", "cls"] {
            let mut bytes = vec![0; usize::try_from(random.below(5000)).unwrap()];
            random.fill(&mut bytes);
            let long = "long-".repeat(number % 30);
            let path = place.path(&format!("files/{long}/{number:03}.{extension}"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let input = Input::scan(&place.path("files")).unwrap();
    pack(&input, &place.config("files-set", 2), &place.keys, &PackProgress::default()).unwrap();
    std::fs::create_dir(place.path("wds")).unwrap();
    place.export("files-set", "wds/0.tar", ExportFormat::Tar);
    std::fs::create_dir(place.path("untarred")).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-xf").arg(place.path("wds/0.tar")).arg("-C").arg(place.path("untarred"));
    assert!(tar.status().unwrap().success());
    let back = Input::scan(&place.path("untarred")).unwrap();
    assert_eq!(back.files().len(), 80);
    for file in back.files() {
        same(&place.path("files").join(&file.name), &place.path("untarred").join(&file.name));
    }
    // As a WebDataset, with any number of threads.
    std::fs::copy(place.path("wds/0.tar"), place.path("wds/1.tar")).unwrap();
    for threads in [1, 3] {
        let name = format!("wds-set-{threads}");
        let report = place.convert("wds", &name, &OpenOptions::default(), threads).unwrap();
        assert_eq!((report.samples, report.files), (80, 2));
    }
    let (one, three) = (place.open("wds-set-1"), place.open("wds-set-3"));
    assert_eq!(all(&one), all(&three));
    assert!(one.info().shards.len() > 1 && one.schema().position("jpg").is_some());
    let first = one.subset(0..40).unwrap();
    let exported = place.path("again.tar");
    export(&first, None, ExportFormat::Tar, &exported, &ExportProgress::default()).unwrap();
    place.convert("again.tar", "again", &OpenOptions::default(), 1).unwrap();
    assert_eq!(all(&place.open("again")), all(&first));
}

#[test]
fn errors_leave_nothing_behind() {
    let place = Place::new();
    fixed(&place, "set", 10);
    let dataset = place.open("set");
    let progress = ExportProgress::default();
    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for format in [ExportFormat::Tar, ExportFormat::Npy, ExportFormat::Safetensors] {
        let error = export(&dataset, None, format, &place.path("out"), &progress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
    let error = export(&dataset, None, ExportFormat::Tar, &place.path("set"), &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    std::fs::write(place.path("bad.jsonl"), "{\"a\":1}\n{\"a\":2}\n{\"b\":3}\n").unwrap();
    let error = place.convert("bad.jsonl", "out", &OpenOptions::default(), 1).unwrap_err();
    assert!(error.to_string().contains("bad.jsonl") && error.to_string().contains("offset 16"), "{error}");
    let mut left: Vec<_> =
        std::fs::read_dir(place.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bad.jsonl", "set"]);
}

#[test]
fn an_interrupted_pack_goes_on_with_what_is_complete() {
    let place = Place::new();
    let lines: String =
        (0..4000).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(n % 200))).collect();
    std::fs::create_dir(place.path("in")).unwrap();
    for file in 0..6 {
        std::fs::write(place.path(&format!("in/{file}.jsonl")), &lines).unwrap();
    }
    let hidden = || {
        let entries = std::fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_str().unwrap().contains(".partial-")).collect::<Vec<_>>()
    };
    let open = || formats::open(&place.path("in"), FormatName::Jsonl, &OpenOptions::default()).unwrap();
    let token = serde_json::json!("the same input");
    let config = PackConfig { resume: true, ..place.config("set", 1) };
    // Stopped whenever one more file's worth was read.
    let mut stops = 0;
    let report = loop {
        let progress = PackProgress::default();
        let format = open();
        let done = std::thread::scope(|scope| {
            let pack = scope.spawn(|| convert(&*format, &token, &config, &place.keys, &progress));
            let limit = u64::try_from(lines.len()).unwrap() * (stops + 1);
            while !pack.is_finished() {
                if progress.bytes.load(std::sync::atomic::Ordering::Relaxed) > limit {
                    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
            pack.join().unwrap()
        });
        match done {
            Ok(report) => break report,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
        }
        stops += 1;
        assert_eq!(hidden().len(), 1, "what is complete stays");
        assert!(stops < 20);
    };
    assert!(report.samples == 24_000 && hidden().is_empty(), "{report:?}");
    let whole = PackConfig { resume: false, ..place.config("whole", 2) };
    let all_at_once = convert(&*open(), &token, &whole, &place.keys, &PackProgress::default()).unwrap();
    assert_eq!((all_at_once.samples, all_at_once.resumed_shards), (24_000, 0));
    assert!(all(&place.open("set")) == all(&place.open("whole")), "the same samples in the same order");
    assert!(stops == 0 || report.resumed_shards > 0, "{stops} stops, {report:?}");

    // What another input left is not gone on with, nor what cannot be told to be whole.
    let progress = PackProgress::default();
    let second = PackConfig { resume: true, overwrite: true, ..place.config("set", 1) };
    let other = convert(&*open(), &serde_json::json!("another"), &second, &place.keys, &progress).unwrap();
    assert_eq!((other.generation, other.resumed_shards), (2, 0));
}
