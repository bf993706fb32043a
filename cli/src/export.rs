//! `tierstream export`: a sealed data set as plain files for other programs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tierstream_loader::Dataset;
use tierstream_loader::export::{ExportFormat, ExportProgress, export};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Error, ErrorKind, Result, Store, StoreConfig};

use crate::args::{IoArgs, block_bytes_of, parse};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Export a data set as tar, NumPy or safetensors files
///
/// The bytes of every sample are what was packed. tar: a file per sample and field, as WebDataset reads it. npy: a
/// directory with an array per field. safetensors: a file with a tensor per field. Ragged fields are their values end to
/// end, and NAME.offsets, where each sample begins among them. What is exported is not encrypted.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Directory of the data set
    data: PathBuf,

    /// File or directory to make
    output: PathBuf,

    /// tar, npy or safetensors
    #[arg(long, value_name = "NAME", value_parser = parse::<ExportFormat>)]
    format: ExportFormat,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = self.key.open()?;
        let block_bytes = block_bytes_of(&self.data)?;
        let config = StoreConfig { block_bytes, io: self.io.config(), ..StoreConfig::default() };
        let store = Store::open(config, keys)?;
        let location = self
            .data
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "export", "the path is not UTF-8").at(&self.data))?;
        let dataset = Dataset::open(Arc::new(store.clone()), location)?;
        let interrupt = Interrupt::catch(|| {})?;
        let progress = ExportProgress::default();
        let bar = output::byte_bar(dataset.info().payload_bytes, "exporting");
        let work = || export(&dataset, Some(Prefetcher::new(&store)), self.format, &self.output, &progress);
        let report = interrupt.watch(&bar, &progress.bytes, &progress.stop, work);
        bar.finish_and_clear();
        let report = report?;
        if self.json {
            output::json(&report)?;
        } else {
            let (samples, bytes) = (report.samples, human_bytes(report.bytes));
            output::result(&format!("{}: {samples} samples, {bytes}\n", report.output.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
