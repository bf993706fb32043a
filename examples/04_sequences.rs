//! Token sequences of many lengths: ragged with offsets, padded to one length, packed several a row.

use std::sync::Arc;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Dataset, Dtype, Field, Loader, LoaderBuilder, Overlong, Schema, Sequences};
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Result, Store, StoreConfig};

pub(crate) fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a directory for the example");
    let path = scratch.path().join("tokens");
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);
    let config = PackConfig { output: path.clone(), ..PackConfig::default() };
    let mut writer =
        Writer::create(config, Schema::new(Field::ragged("tokens", Dtype::U16))?, Arc::clone(&keys))?;
    for number in 1..=400_u16 {
        let sequence = number.to_le_bytes().repeat(usize::from(number % 60));
        writer.write(&[&sequence])?;
    }
    writer.finish()?;
    let store = Store::open(StoreConfig::default(), keys)?;
    let dataset = Dataset::open(Arc::new(store), path.to_str().unwrap_or_default())?;
    let build = || -> LoaderBuilder { Loader::builder(dataset.clone()).batch_size(100).shuffle(true) };

    // As they are: all tokens end to end, and where each sequence begins.
    let batch = build().build()?.next().expect("a batch")?;
    let tokens = batch.field_at(0);
    let offsets = tokens.offsets().expect("ragged");
    assert_eq!((offsets.len(), tokens.shape()), (101, vec![tokens.bytes().len() / 2]));

    // One a row, filled with 0; longer ones are cut, and counted.
    let padded = Sequences::padded("tokens", 0).length(50).overlong(Overlong::Cut);
    let mut loader = build().sequences(padded).build()?;
    let batch = loader.next().expect("a batch")?;
    assert_eq!(batch.field_at(0).shape(), [100, 50]);
    assert!(batch.field("tokens_length").is_some() && loader.truncated_samples() > 0);

    // Several a row: far fewer steps to compute. Segments say which steps belong together.
    let mut loader = build().sequences(Sequences::packed("tokens", 64, 0)).build()?;
    let batch = loader.next().expect("a batch")?;
    let rows = batch.field_at(0).shape()[0];
    assert!(rows < 60, "100 sequences take {rows} rows of 64");
    assert_eq!(batch.field("tokens_segment").map(|field| field.shape()), Some(vec![rows, 64]));
    Ok(())
}
