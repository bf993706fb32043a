//! A data set as plain files for other programs: tar, NumPy, safetensors.
//!
//! Samples are streamed in order through the loader; memory is a few batches. The output is written beside its name and
//! renamed when it is complete. Values are bit for bit what was packed.

mod arrays;
mod tar;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;
use tierstream_prefetch::Prefetcher;
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::Batch;
use crate::dataset::Dataset;
use crate::loader::Loader;

/// Bytes of samples that are read together.
const BATCH_BYTES: u64 = 4 << 20;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One tar archive, a file per sample and field.
    Tar,
    /// A directory with an npy file per field.
    Npy,
    /// One safetensors file with a tensor per field.
    Safetensors,
}

impl FromStr for ExportFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tar" => Ok(Self::Tar),
            "npy" => Ok(Self::Npy),
            "safetensors" => Ok(Self::Safetensors),
            _ => {
                let why = format!("unknown format `{text}`, expected one of tar npy safetensors");
                Err(Error::new(ErrorKind::Misuse, "parse", why))
            }
        }
    }
}

/// What is done so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct ExportProgress {
    /// Bytes of samples written.
    pub bytes: AtomicU64,
    /// Set from outside to end early.
    pub stop: AtomicBool,
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// What was made.
    pub output: PathBuf,
    /// Samples in it.
    pub samples: u64,
    /// Bytes of these samples.
    pub bytes: u64,
}

/// Writes the samples of `dataset` to `output`, which must not be there.
///
/// # Errors
/// `Misuse` when there is something of that name, as the file system and the source say, `Interrupted` when it was
/// stopped. Nothing is left behind then.
pub fn export(
    dataset: &Dataset,
    prefetcher: Option<Prefetcher>,
    format: ExportFormat,
    output: &Path,
    progress: &ExportProgress,
) -> Result<ExportReport> {
    if output.exists() {
        let why = "there is something of this name already";
        return Err(Error::new(ErrorKind::Misuse, "export", why).at(output).hint("choose another output"));
    }
    let partial = Partial::beside(output)?;
    let average = dataset.info().payload_bytes / dataset.info().records.max(1);
    let batch_size = (BATCH_BYTES / average.max(1)).clamp(1, 4096);
    let each = |take: &mut dyn FnMut(&Batch) -> Result<()>| -> Result<u64> {
        let mut builder = Loader::builder(dataset.clone()).batch_size(batch_size);
        if let Some(prefetcher) = &prefetcher {
            builder = builder.prefetcher(prefetcher.clone());
        }
        let mut bytes = 0;
        for batch in builder.build()? {
            let batch = batch?;
            take(&batch)?;
            bytes += batch.total_bytes();
            progress.bytes.fetch_add(batch.total_bytes(), Ordering::Relaxed);
            if progress.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Interrupted, "export", "stopped before the end"));
            }
        }
        Ok(bytes)
    };
    let bytes = match format {
        ExportFormat::Tar => tar::write(dataset, &partial.path, each)?,
        ExportFormat::Npy => arrays::npy(dataset, &partial.path, each)?,
        ExportFormat::Safetensors => arrays::safetensors(dataset, &partial.path, each)?,
    };
    partial.publish(output)?;
    Ok(ExportReport { output: output.to_owned(), samples: dataset.len(), bytes })
}

/// Gives every batch in order to who takes it; returns the bytes of all.
trait Batches: Fn(&mut dyn FnMut(&Batch) -> Result<()>) -> Result<u64> {}

impl<T: Fn(&mut dyn FnMut(&Batch) -> Result<()>) -> Result<u64>> Batches for T {}

/// An output under another name, removed unless it is published.
struct Partial {
    path: PathBuf,
    published: bool,
}

impl Partial {
    fn beside(output: &Path) -> Result<Self> {
        let name = output.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "export", "the output needs a name in UTF-8").at(output)
        })?;
        let path = output.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        Ok(Self { path, published: false })
    }

    fn publish(mut self, output: &Path) -> Result<()> {
        std::fs::rename(&self.path, output).map_err(|error| Error::io("rename", output, error))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published {
            // Of the two it is one, or neither was made.
            let _no_file = std::fs::remove_file(&self.path);
            let _no_directory = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::io("write", path, error)
}

fn new_file(path: &Path) -> Result<std::io::BufWriter<std::fs::File>> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed(path))?;
    Ok(std::io::BufWriter::with_capacity(1 << 20, file))
}

/// Where samples begin in a ragged field, in steps: one more than samples.
fn samples_and_one(dataset: &Dataset) -> u64 {
    dataset.len() + 1
}

fn len(bytes: &[u8]) -> u64 {
    to_u64(bytes.len())
}
