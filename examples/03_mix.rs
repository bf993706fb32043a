//! Mixes data sets by exact weights, changes the mixture on the way, and keeps a part for validation.

use std::path::Path;
use std::sync::Arc;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Dataset, Dtype, Field, Loader, Schema, Stage};
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Result, Store, StoreConfig};

/// A data set of `len` samples of one value.
fn write(path: &Path, keys: &Arc<dyn KeyProvider>, value: u8, len: u32) -> Result<()> {
    let config = PackConfig { output: path.to_owned(), ..PackConfig::default() };
    let schema = Schema::new(Field::fixed("value", Dtype::U8, &[]))?;
    let mut writer = Writer::create(config, schema, Arc::clone(keys))?;
    (0..len).try_for_each(|_| writer.write(&[&[value]]))?;
    writer.finish().map(drop)
}

pub(crate) fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a directory for the example");
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);
    let (web, code) = (scratch.path().join("web"), scratch.path().join("code"));
    write(&web, &keys, 0, 30_000)?;
    write(&code, &keys, 1, 2000)?;
    let store: Arc<Store> = Arc::new(Store::open(StoreConfig::default(), keys)?);
    let open = |path: &Path| Dataset::open(Arc::clone(&store) as _, path.to_str().unwrap_or_default());
    let (web, code) = (open(&web)?, open(&code)?);

    // A hundredth is kept apart: the same samples in every run with this seed.
    let parts = web.split(&[0.99, 0.01], 1)?;
    let [training, validation] = &parts[..] else { unreachable!("two ratios make two parts") };
    assert_eq!((training.len(), validation.len()), (29_700, 300));

    // Three of ten samples are code, exactly, for as long as the job likes; code begins again when it is used up.
    let mixture = vec![(training.clone(), 0.7), (code.clone(), 0.3)];
    let loader = Loader::mix(mixture.clone()).batch_size(100).shuffle(true).epoch_size(20_000).build()?;
    let mut of_code = 0;
    for batch in loader {
        of_code += batch?.sources().iter().filter(|source| **source == 1).count();
    }
    assert_eq!(of_code, 6000);

    // First text alone, then the mixture.
    let stages = vec![
        Stage { data_sets: vec![(training.clone(), 1.0)], samples: Some(1000) },
        Stage { data_sets: mixture, samples: None },
    ];
    let mut loader = Loader::curriculum(stages).batch_size(1000).shuffle(true).infinite().build()?;
    let first = loader.next().expect("a stream without end")?;
    let second = loader.next().expect("a stream without end")?;
    assert!(first.bytes().iter().all(|value| *value == 0) && second.bytes().contains(&1));
    Ok(())
}
