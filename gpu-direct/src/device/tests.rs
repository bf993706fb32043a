use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Batch, Dataset, Dtype, Field};
use tierstream_storage::buf::HeapAllocator;
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::testing::{Random, skip};
use tierstream_storage::{Store, StoreConfig};

use super::*;
use crate::convert::{Channels, FloatFormat};

const SAMPLES: usize = 137;

/// A packed data set of images, tokens and labels.
struct Fixture {
    dir: tempfile::TempDir,
    keys: Arc<dyn KeyProvider>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("device-test").unwrap());
    let schema = Schema::of(vec![
        Field::fixed("image", Dtype::U8, &[5, 4, 3]),
        Field::ragged("tokens", Dtype::U16),
        Field::fixed("label", Dtype::I64, &[]),
    ])
    .unwrap();
    let config = PackConfig {
        output: dir.path().join("set"),
        block_bytes: 8192,
        shard_bytes: 20_000,
        threads: 1,
        ..PackConfig::default()
    };
    let mut writer = Writer::create(config, schema, Arc::clone(&keys)).unwrap();
    let mut random = Random::new(8);
    for number in 0..SAMPLES {
        let (mut image, mut tokens) =
            (vec![0; 60], vec![0; 2 * usize::try_from(1 + random.below(40)).unwrap()]);
        random.fill(&mut image);
        random.fill(&mut tokens);
        writer.write(&[&image, &tokens, &(number as i64).to_le_bytes()]).unwrap();
    }
    writer.finish().unwrap();
    Fixture { dir, keys }
}

impl Fixture {
    fn loader(&self, allocator: Arc<dyn tierstream_storage::buf::HostAllocator>) -> (Loader, Schema) {
        let store = Store::open(StoreConfig::default(), Arc::clone(&self.keys)).unwrap();
        let dataset = Dataset::open(Arc::new(store), self.dir.path().join("set").to_str().unwrap()).unwrap();
        let schema = dataset.schema().clone();
        let loader = Loader::builder(dataset)
            .batch_size(16)
            .shuffle(true)
            .seed(5)
            .num_epochs(2)
            .allocator(allocator)
            .build()
            .unwrap();
        (loader, schema)
    }
}

fn normalize(to: FloatFormat) -> Conversion {
    Conversion::Normalize {
        to,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
        channels: Channels::Last,
    }
}

/// Checks the batches of a device loader against those of a loader of its own.
fn check(config: impl Fn() -> DeviceConfig, allocator: &Arc<dyn tierstream_storage::buf::HostAllocator>) {
    let fixture = fixture();
    let plain: Vec<Batch> = fixture.loader(Arc::new(HeapAllocator)).0.map(|batch| batch.unwrap()).collect();
    assert_eq!(plain.len(), 18, "two epochs of 137 samples in batches of 16");

    // As they are.
    let (loader, schema) = fixture.loader(Arc::clone(allocator));
    let mut device = DeviceLoader::new(loader, &schema, config()).unwrap();
    for expected in &plain {
        let batch = device.next().unwrap().unwrap();
        assert_eq!((batch.epoch(), batch.number()), (expected.epoch(), expected.number()));
        assert_eq!(batch.sample_ids(), expected.sample_ids());
        assert_eq!(batch.state().epoch, device.state_dict().unwrap().epoch);
        for (found, expected) in batch.fields().zip(expected.fields()) {
            assert_eq!(
                (found.name(), found.dtype()),
                (expected.field().name.as_str(), expected.field().dtype)
            );
            assert_eq!(found.offsets(), expected.offsets());
            let shape: Vec<usize> =
                found.shape().iter().map(|length| usize::try_from(*length).unwrap()).collect();
            assert_eq!(shape, expected.shape());
            assert_eq!(found.to_host().unwrap(), expected.bytes(), "field `{}`", found.name());
        }
    }
    assert!(device.next().is_none());
    let bytes: u64 = plain.iter().map(|batch| batch.buffer().len() as u64).sum();
    assert_eq!((device.metrics().batches, device.metrics().bytes), (18, bytes));

    // Converted, with several batches alive at once.
    for format in [FloatFormat::Bf16, FloatFormat::Fp16, FloatFormat::Fp32] {
        let (loader, schema) = fixture.loader(Arc::clone(allocator));
        let wanted = config().convert("image", normalize(format)).convert("tokens", Conversion::WidenToI64);
        let image = normalize(format).prepare(&schema.fields()[0]).unwrap();
        let device = DeviceLoader::new(loader, &schema, wanted).unwrap();
        let mut before: Option<DeviceBatch> = None;
        for (batch, expected) in device.zip(&plain) {
            let batch = batch.unwrap();
            let look = |batch: &DeviceBatch, name: &str| batch.field(name).unwrap().to_host().unwrap();
            let pixels = expected.field("image").unwrap().bytes();
            let mut converted = vec![0; image.bytes_of(pixels.len())];
            image.on_host(pixels, &mut converted);
            assert_eq!(look(&batch, "image"), converted, "{format:?}");
            assert_eq!(look(&batch, "label"), expected.field("label").unwrap().bytes());
            let tokens = expected.field("tokens").unwrap();
            let wide: Vec<u8> =
                tokens.bytes().chunks(2).flat_map(|token| [token, &[0; 6]].concat()).collect();
            assert_eq!(look(&batch, "tokens"), wide);
            assert_eq!(batch.field("tokens").unwrap().dtype(), Dtype::I64);
            assert_eq!(batch.field("tokens").unwrap().offsets(), tokens.offsets());
            if let Some(before) = before.replace(batch) {
                assert_eq!(before.field("label").unwrap().to_host().unwrap().len() % 8, 0);
            }
        }
    }
}

#[test]
fn without_a_gpu_batches_are_those_of_the_loader() {
    check(|| DeviceConfig::host("the test wants none"), &(Arc::new(HeapAllocator) as _));
}

#[test]
fn on_a_gpu_batches_are_those_of_the_loader() {
    let report = crate::probe();
    let gpu = match Gpu::open(&report, 0, None) {
        Ok(gpu) => gpu,
        Err(error) => return skip("gpu", &error.to_string()),
    };
    let pinned = Arc::new(crate::PinnedAllocator::new(&report).unwrap());
    // One batch is held while the next is asked for.
    for slots in [2, 5] {
        check(|| DeviceConfig::gpu(Arc::clone(&gpu)).slots(slots), &(Arc::clone(&pinned) as _));
    }
}

#[test]
fn tensors_outlive_their_batch_and_their_loader() {
    let fixture = fixture();
    let (loader, schema) = fixture.loader(Arc::new(HeapAllocator));
    let config = DeviceConfig::host("the test wants none").convert("tokens", Conversion::WidenToI32);
    let mut device = DeviceLoader::new(loader, &schema, config).unwrap();
    let batch = device.next().unwrap().unwrap();
    let (expected, address) = {
        let field = batch.field("tokens").unwrap();
        (field.to_host().unwrap(), field.address())
    };
    let again = batch.clone();
    drop(batch);
    drop(device);
    let field = again.field("tokens").unwrap();
    assert_eq!((field.to_host().unwrap(), field.address()), (expected, address));
    assert!(address.is_multiple_of(64));
    assert!(field.cuda_array_interface().unwrap_err().to_string().contains("host memory"));
}

#[test]
fn conversions_that_fit_no_field_are_refused_at_the_start() {
    let fixture = fixture();
    let refused = |config: DeviceConfig, words: &str| {
        let (loader, schema) = fixture.loader(Arc::new(HeapAllocator));
        let error = DeviceLoader::new(loader, &schema, config).unwrap_err();
        assert!(error.kind() == ErrorKind::Misuse && error.to_string().contains(words), "{error}");
    };
    let config = || DeviceConfig::host("the test wants none");
    refused(config().convert("mask", Conversion::WidenToI32), "there are: image, tokens, label");
    refused(config().convert("label", Conversion::WidenToI32), "elements are i64, expected u16");
    let twice = config().convert("tokens", Conversion::WidenToI32).convert("tokens", Conversion::WidenToI64);
    refused(twice, "converted twice");
    refused(config().slots(0), "0 slots");
}
