//! Packs another program's data set, checks it, and gives it back as safetensors.

use std::path::Path;
use std::sync::Arc;

use tierstream_loader::export::{ExportFormat, ExportProgress, export};
use tierstream_loader::pack::formats::{self, FormatName, OpenOptions};
use tierstream_loader::pack::{PackConfig, PackProgress, convert, source};
use tierstream_loader::{Dataset, Loader, OnCorrupt};
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::{Result, Store, StoreConfig};

pub(crate) fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a directory for the example");
    let (input, output) = (scratch.path().join("pairs.jsonl"), scratch.path().join("pairs"));
    let lines: String = (0..500).map(|n| format!("{{\"text\": \"sample {n}\", \"score\": {n}}}\n")).collect();
    std::fs::write(&input, lines).expect("a file for the example");
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);

    // The command does the same: tierstream pack pairs.jsonl pairs/ --key job.key
    let (name, options) = (FormatName::detect(&input)?, OpenOptions::default());
    assert_eq!(name, FormatName::Jsonl);
    let format = formats::open(&input, name, &options)?;
    let source = source(&input, name, &options, &*format)?;
    let config = PackConfig { output: output.clone(), ..PackConfig::default() };
    let report = convert(&*format, &source, &config, &keys, &PackProgress::default())?;
    assert_eq!(report.samples, 500);

    // A damaged sample is left out and counted, rather than ending the job; never is it silent.
    let store = Store::open(StoreConfig::default(), keys)?;
    let dataset = Dataset::open(Arc::new(store), output.to_str().unwrap_or_default())?;
    let mut loader = Loader::builder(dataset.clone()).batch_size(50).on_corrupt(OnCorrupt::Skip).build()?;
    let mut scores = Vec::new();
    for batch in loader.by_ref() {
        let batch = batch?;
        let (score, text) = (batch.field("score").expect("a field"), batch.field("text").expect("a field"));
        scores.extend((0..batch.len()).map(|index| score.sample(index)[0]));
        assert!(text.sample(0).starts_with(b"sample "));
    }
    assert_eq!((scores.len(), loader.skipped_samples()), (500, 0));

    let file = scratch.path().join("pairs.safetensors");
    let exported =
        export(&dataset, None, ExportFormat::Safetensors, Path::new(&file), &ExportProgress::default())?;
    assert_eq!(exported.samples, 500);
    Ok(())
}
