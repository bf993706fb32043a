//! Writes a sealed data set sample by sample and loads it as shuffled batches of arrays.

use std::sync::Arc;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Dataset, Dtype, Field, Loader, Schema};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Result, Store, StoreConfig};

pub(crate) fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a directory for the example");
    let path = scratch.path().join("digits");
    // A real job reads its key: tierstream_storage::keys::read_key_file("job.key").
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);

    let schema =
        Schema::of(vec![Field::fixed("image", Dtype::U8, &[8, 8]), Field::fixed("label", Dtype::I64, &[])])?;
    let config = PackConfig { output: path.clone(), ..PackConfig::default() };
    let mut writer = Writer::create(config, schema, Arc::clone(&keys))?;
    for number in 0..1000_i64 {
        let digit = number % 10;
        let image = [u8::try_from(digit).unwrap_or(0); 64];
        writer.write(&[&image, &digit.to_le_bytes()])?;
    }
    writer.finish()?;

    // The store may have NVMe devices as a tier between: StoreConfig { l2: ... }.
    let store = Store::open(StoreConfig::default(), keys)?;
    let dataset = Dataset::open(Arc::new(store.clone()), path.to_str().unwrap_or_default())?;
    let loader = Loader::builder(dataset)
        .batch_size(64)
        .shuffle(true)
        .seed(42)
        .num_epochs(2)
        .prefetcher(Prefetcher::new(&store))
        .build()?;
    let mut samples = 0;
    for batch in loader {
        let batch = batch?;
        let (image, label) = (batch.field_at(0), batch.field_at(1));
        // One contiguous, aligned array a field: image.bytes() has the shape [samples, 8, 8].
        assert_eq!((image.shape()[0], image.bytes().as_ptr().addr() % 64), (batch.len(), 0));
        assert!((0..batch.len()).all(|index| image.sample(index)[0] == label.sample(index)[0]));
        samples += batch.len();
    }
    assert_eq!(samples, 2000);
    Ok(())
}
