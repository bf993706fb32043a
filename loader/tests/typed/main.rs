//! Typed batches end to end: samples written with a schema come back as arrays, mixed, padded, packed, skipped, resumed.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{
    Dataset, Dtype, Field, Loader, OnCorrupt, Overlong, Schema, Sequences, Shuffle, Stage,
};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::testing::Random;
use tierstream_storage::{ErrorKind, Store, StoreConfig};

const BLOCK: u32 = 8192;

struct Place {
    dir: tempfile::TempDir,
    keys: Arc<dyn KeyProvider>,
}

impl Place {
    fn new() -> Self {
        let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("typed").unwrap());
        Self { dir: tempfile::tempdir().unwrap(), keys }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A data set of `samples`, each the values of its fields.
    fn write(&self, name: &str, fields: Vec<Field>, samples: &[Vec<Vec<u8>>]) {
        let config = PackConfig {
            output: self.path(name),
            block_bytes: BLOCK,
            shard_bytes: 40_000,
            ..PackConfig::default()
        };
        let mut writer = Writer::create(config, Schema::of(fields).unwrap(), Arc::clone(&self.keys)).unwrap();
        for sample in samples {
            let values: Vec<&[u8]> = sample.iter().map(Vec::as_slice).collect();
            writer.write(&values).unwrap();
        }
        let report = writer.finish().unwrap();
        assert_eq!(report.samples, u64::try_from(samples.len()).unwrap());
    }

    fn store(&self) -> Store {
        let config =
            StoreConfig { l1_bytes: 64 * u64::from(BLOCK), block_bytes: BLOCK, ..StoreConfig::default() };
        Store::open(config, Arc::clone(&self.keys)).unwrap()
    }

    fn open(&self, name: &str) -> Dataset {
        open(&self.store(), &self.path(name))
    }
}

fn open(store: &Store, path: &Path) -> Dataset {
    Dataset::open(Arc::new(store.clone()), path.to_str().unwrap()).unwrap()
}

/// Image, caption of any length, label.
fn pictures(count: u32) -> (Vec<Field>, Vec<Vec<Vec<u8>>>) {
    let mut random = Random::new(4);
    let fields = vec![
        Field::fixed("image", Dtype::U8, &[3, 5]),
        Field::ragged("caption", Dtype::U16),
        Field::fixed("label", Dtype::I64, &[]),
    ];
    let samples = (0..count).map(|number| {
        let mut image = vec![0; 15];
        random.fill(&mut image);
        let caption = (0..random.below(9)).flat_map(|n| u16::try_from(n).unwrap().to_le_bytes()).collect();
        vec![image, caption, i64::from(number).to_le_bytes().to_vec()]
    });
    (fields, samples.collect())
}

#[test]
fn fields_are_arrays_of_their_type_and_shape() {
    let place = Place::new();
    let (fields, samples) = pictures(500);
    place.write("set", fields.clone(), &samples);
    let store = place.store();
    let dataset = open(&store, &place.path("set"));
    assert_eq!((dataset.len(), dataset.schema().fields()), (500, &fields[..]));
    assert_eq!(dataset.sample(77).unwrap(), samples[77]);
    let builder = Loader::builder(dataset).batch_size(32).shuffle(true).prefetcher(Prefetcher::new(&store));
    let mut seen = 0;
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let (image, caption, label) =
            (batch.field("image").unwrap(), batch.field("caption").unwrap(), batch.field("label").unwrap());
        assert_eq!((image.shape(), label.shape()), (vec![batch.len(), 3, 5], vec![batch.len()]));
        assert!(image.offsets().is_none() && batch.field("other").is_none());
        let offsets = caption.offsets().unwrap();
        assert_eq!(
            (offsets.len(), offsets[0], caption.shape()[0] * 2),
            (batch.len() + 1, 0, caption.bytes().len())
        );
        for (index, id) in batch.sample_ids().iter().enumerate() {
            let expected = &samples[usize::try_from(*id).unwrap()];
            let found = [image.sample(index), caption.sample(index), label.sample(index)];
            assert_eq!(found, [&expected[0][..], &expected[1][..], &expected[2][..]], "sample {id}");
            seen += 1;
        }
        for field in batch.fields() {
            assert_eq!(field.bytes().as_ptr().addr() % 64, 0, "{field:?} is aligned");
        }
    }
    assert_eq!(seen, 500);
}

/// Sequences of u16, each of its number repeated.
fn sequences(place: &Place, name: &str, lens: &[usize]) {
    let samples: Vec<_> =
        lens.iter().zip(1_u16..).map(|(len, number)| vec![number.to_le_bytes().repeat(*len)]).collect();
    place.write(name, vec![Field::ragged("tokens", Dtype::U16)], &samples);
}

fn u16s(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|two| u16::from_le_bytes(two.try_into().unwrap())).collect()
}

fn i32s(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|four| i32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn sequences_are_padded_and_packed() {
    let place = Place::new();
    sequences(&place, "set", &[2, 0, 3, 1]);
    let build = |how| Loader::builder(place.open("set")).batch_size(4).sequences(how).build().unwrap();
    let batch = build(Sequences::padded("tokens", 9)).next().unwrap().unwrap();
    let tokens = batch.field("tokens").unwrap();
    assert_eq!((tokens.shape(), tokens.offsets()), (vec![4, 3], None));
    assert_eq!(u16s(tokens.bytes()), [1, 1, 9, 9, 9, 9, 3, 3, 3, 4, 9, 9]);
    assert_eq!(i32s(batch.field("tokens_length").unwrap().bytes()), [2, 0, 3, 1]);

    let batch = build(Sequences::packed("tokens", 4, 0)).next().unwrap().unwrap();
    let tokens = batch.field("tokens").unwrap();
    assert_eq!((tokens.shape(), batch.len()), (vec![2, 4], 4));
    assert_eq!(u16s(tokens.bytes()), [1, 1, 4, 0, 3, 3, 3, 0]);
    assert_eq!(i32s(batch.field("tokens_segment").unwrap().bytes()), [1, 1, 2, 0, 1, 1, 1, 0]);
    assert_eq!(i32s(batch.field("tokens_position").unwrap().bytes()), [0, 1, 0, 0, 0, 1, 2, 0]);

    let error = build(Sequences::padded("tokens", 0).length(2)).next().unwrap().unwrap_err();
    assert!(error.to_string().contains("3 steps, expected at most 2"), "{error}");
    let mut cut = build(Sequences::padded("tokens", 0).length(2).overlong(Overlong::Cut));
    let batch = cut.next().unwrap().unwrap();
    assert_eq!(u16s(batch.bytes()), [1, 1, 0, 0, 3, 3, 4, 0]);
    assert_eq!(cut.truncated_samples(), 1);
}

#[test]
fn what_is_corrupt_is_left_out_and_counted_where_that_is_asked_for() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let (fields, samples) = pictures(2000);
    place.write("set", fields, &samples);
    let shard = place.path("set/shard-00001.tss");
    let file = std::fs::OpenOptions::new().write(true).open(shard).unwrap();
    file.write_all_at(b"damage", 4096 + 50).unwrap();
    let build = |on_corrupt| {
        Loader::builder(place.open("set"))
            .batch_size(50)
            .shuffle(true)
            .on_corrupt(on_corrupt)
            .build()
            .unwrap()
    };
    let error = build(OnCorrupt::Error).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let mut loader = build(OnCorrupt::Skip);
    let mut seen = Vec::new();
    for batch in loader.by_ref() {
        let batch = batch.unwrap();
        for (index, id) in batch.sample_ids().iter().enumerate() {
            assert_eq!(batch.sample(index), samples[usize::try_from(*id).unwrap()][0]);
            seen.push(*id);
        }
    }
    let skipped = loader.skipped_samples();
    assert!(skipped > 50, "{skipped} samples lie in the damaged block");
    assert_eq!(u64::try_from(seen.len()).unwrap() + skipped, 2000);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(u64::try_from(seen.len()).unwrap() + skipped, 2000, "none came twice");
}

fn numbers(place: &Place, name: &str, range: std::ops::Range<u32>) {
    let samples: Vec<_> = range.map(|number| vec![number.to_le_bytes().to_vec()]).collect();
    place.write(name, vec![Field::fixed("x", Dtype::U32, &[])], &samples);
}

fn values(loader: impl Iterator<Item = tierstream_storage::Result<tierstream_loader::Batch>>) -> Vec<i32> {
    loader.flat_map(|batch| i32s(batch.unwrap().bytes())).collect()
}

#[test]
fn mixtures_and_stages_resume_on_other_world_sizes() {
    let place = Place::new();
    numbers(&place, "a", 0..700);
    numbers(&place, "b", 1000..1400);
    let store = place.store();
    let (a, b) = (open(&store, &place.path("a")), open(&store, &place.path("b")));
    let mixed = || Loader::mix(vec![(a.clone(), 3.0), (b.clone(), 1.0)]).shuffle(true).epoch_size(20_000);
    let all = values(mixed().batch_size(100).prefetcher(Prefetcher::new(&store)).build().unwrap());
    assert_eq!(all.len(), 20_000);
    assert_eq!(all.iter().filter(|value| **value >= 1000).count(), 5000, "a quarter, exactly");
    // Two ranks for a while, then three.
    let ranks = |world: u64, state: Option<tierstream_loader::LoaderState>, batches: usize| {
        let mut of = Vec::new();
        let mut first = None;
        for rank in 0..world {
            let mut builder = mixed().batch_size(64).rank(rank, world);
            if let Some(state) = &state {
                builder = builder.load_state_dict(state.clone());
            }
            let mut loader = builder.build().unwrap();
            of.extend(values(loader.by_ref().take(batches)));
            first.get_or_insert(loader.state_dict());
        }
        (of, first.unwrap())
    };
    let (mut seen, state) = ranks(2, None, 17);
    assert!(serde_json::to_string(&state).unwrap().len() < 1024);
    seen.extend(ranks(3, Some(state), usize::MAX).0);
    let (mut found, mut expected) = (seen, all.clone());
    found.sort_unstable();
    expected.sort_unstable();
    assert!(found == expected, "no sample is lost or repeated");

    let stages = || {
        let of = |dataset: &Dataset, samples| Stage { data_sets: vec![(dataset.clone(), 1.0)], samples };
        Loader::curriculum(vec![of(&b, Some(100)), of(&a, None)]).shuffle_by(Shuffle::Global).batch_size(30)
    };
    let all = values(stages().build().unwrap());
    assert!(all[..100].iter().all(|value| *value >= 1000) && all[100..].iter().all(|value| *value < 1000));
    let mut half = stages().build().unwrap();
    let mut seen = values(half.by_ref().take(5));
    seen.extend(values(stages().load_state_dict(half.state_dict()).build().unwrap()));
    assert_eq!(seen, all);
    let other = mixed().load_state_dict(half.state_dict()).build().unwrap_err();
    assert!(other.to_string().contains("data set"), "{other}");
}

#[test]
fn splits_and_filters_are_data_sets_of_their_own() {
    let place = Place::new();
    numbers(&place, "a", 0..1000);
    let dataset = place.open("a");
    let parts = dataset.split(&[0.8, 0.1, 0.1], 3).unwrap();
    let of = |dataset: &Dataset| {
        values(Loader::builder(dataset.clone()).batch_size(64).shuffle(true).build().unwrap())
    };
    let lens: Vec<u64> = parts.iter().map(Dataset::len).collect();
    assert_eq!(lens, [800, 100, 100]);
    let mut all: Vec<i32> = parts.iter().flat_map(&of).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..1000), "each sample is in one part");
    let odd = dataset.filter(|number, bytes| number % 2 == 1 && bytes == 4).unwrap();
    assert!(odd.len() == 500 && of(&odd).iter().all(|value| value % 2 == 1));
    let range = odd.subset(10..20).unwrap();
    let in_order = values(Loader::builder(range).batch_size(3).build().unwrap());
    assert!(in_order.into_iter().eq((21..41).step_by(2)));
    assert_eq!(values(Loader::builder(dataset.select(vec![5, 3, 5]).unwrap()).build().unwrap()), [5, 3, 5]);
    assert!(dataset.subset(5..1001).is_err() && dataset.select(vec![1000]).is_err());
    assert!(dataset.split(&[1.0, 0.0], 0).is_err() && dataset.split(&[], 0).is_err());
    // A state knows which part it is of.
    let state = Loader::builder(parts[0].clone()).build().unwrap().state_dict();
    assert!(Loader::builder(parts[1].clone()).load_state_dict(state).build().is_err());
}

#[test]
fn a_timeout_names_what_it_waits_for_and_loses_nothing() {
    let place = Place::new();
    numbers(&place, "a", 0..5000);
    let mut loader = Loader::builder(place.open("a")).batch_size(5).shuffle(true).build().unwrap();
    let mut late = 0;
    let mut seen = Vec::new();
    loop {
        match loader.next_within(Duration::ZERO) {
            Ok(Some(batch)) => seen.extend(i32s(batch.bytes())),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retry);
                assert!(error.to_string().contains("while waiting for"), "{error}");
                late += 1;
            }
        }
    }
    assert!(late > 0, "nothing is ready at once");
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..5000));
}

#[test]
fn a_writer_that_is_dropped_or_misused_leaves_nothing() {
    let place = Place::new();
    let config = PackConfig { output: place.path("set"), ..PackConfig::default() };
    let schema = Schema::new(Field::fixed("x", Dtype::U32, &[2])).unwrap();
    let create = || Writer::create(config.clone(), schema.clone(), Arc::clone(&place.keys));
    let mut writer = create().unwrap();
    writer.write(&[&[0; 8]]).unwrap();
    assert!(writer.write(&[&[0; 7]]).unwrap_err().to_string().contains("expected 8"));
    assert!(writer.write(&[]).is_err());
    drop(writer);
    assert_eq!(create().unwrap().finish().unwrap_err().kind(), ErrorKind::Misuse, "no samples");
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 0);
    let mut writer = create().unwrap();
    writer.write_named("a", &[&[0; 8]]).unwrap();
    writer.write(&[&[0; 8]]).unwrap();
    assert!(writer.finish().unwrap_err().hint_text().unwrap().contains("all samples or none"));
    let mut writer = create().unwrap();
    writer.write(&[&[0; 8]]).unwrap();
    writer.finish().unwrap();
    assert!(create().unwrap_err().hint_text().unwrap().contains("overwrite"));
}
