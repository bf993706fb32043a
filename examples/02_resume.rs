//! Stops four ranks in the middle of an epoch and goes on with three: no sample is lost or repeated.

use std::sync::Arc;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Dataset, Dtype, Field, Loader, LoaderBuilder, LoaderState, Schema};
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Result, Store, StoreConfig};

pub(crate) fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a directory for the example");
    let path = scratch.path().join("numbers");
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);
    let config = PackConfig { output: path.clone(), ..PackConfig::default() };
    let schema = Schema::new(Field::fixed("number", Dtype::U32, &[]))?;
    let mut writer = Writer::create(config, schema, Arc::clone(&keys))?;
    (0..5000_u32).try_for_each(|number| writer.write(&[&number.to_le_bytes()]))?;
    writer.finish()?;

    let store = Store::open(StoreConfig::default(), keys)?;
    let dataset = Dataset::open(Arc::new(store), path.to_str().unwrap_or_default())?;
    let rank = |rank, world_size| -> LoaderBuilder {
        Loader::builder(dataset.clone()).batch_size(32).shuffle(true).seed(7).rank(rank, world_size)
    };

    // Four ranks, eleven steps each. A job saves the state with its checkpoint: it is JSON of a few numbers.
    let mut seen = Vec::new();
    let mut saved = String::new();
    for number in 0..4 {
        let mut loader = rank(number, 4).build()?;
        for _ in 0..11 {
            let batch = loader.next().expect("an epoch has more batches")?;
            seen.extend_from_slice(batch.sample_ids());
        }
        if number == 0 {
            saved = serde_json::to_string(&loader.state_dict()).expect("numbers and names");
        }
    }
    assert!(saved.len() < 1024);

    // A machine was lost: three ranks go on, all from the state of rank 0.
    let state: LoaderState = serde_json::from_str(&saved).expect("what was saved");
    for number in 0..3 {
        for batch in rank(number, 3).load_state_dict(state.clone()).build()? {
            seen.extend_from_slice(batch?.sample_ids());
        }
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..5000), "every sample came once");
    Ok(())
}
