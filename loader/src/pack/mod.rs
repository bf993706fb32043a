//! Packing: files in, a sealed data set out.
//!
//! The input is listed first and cut into shards by size; shards are then written side by side, each by one thread. The
//! same input gives the same samples in the same order, whatever the number of threads. Memory is bounded by the write
//! buffers, not by the input. The data set appears under its name only when it is complete.

mod convert;
mod dictionary;
pub mod formats;
mod input;
mod shards;
mod sink;
mod writer;

pub use convert::{convert, source};
pub use input::{Input, InputFile};
pub use writer::Writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tierstream_storage::io::{EngineReport, ServiceConfig};
use tierstream_storage::keys::{Cipher, KeyProvider};
use tierstream_storage::store::SealedShard;
use tierstream_storage::units::to_u64;
use tierstream_storage::{DataSetWriter, Error, ErrorKind, Result, WriteContext};

use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// How input becomes samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each file is one sample of bytes; its path is the sample's name.
    PerFile,
    /// The files, one after the other in the order of their paths, are one long text that is cut into samples of
    /// `sample_bytes` bytes of `dtype` elements. The last sample is padded with zeros.
    Cut {
        /// Bytes of a sample.
        sample_bytes: u64,
        /// Type of its elements.
        dtype: Dtype,
    },
}

/// How long a zstd dictionary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DictionarySize {
    /// As zstd does by default, shorter for a small input, and none where there is nothing to learn.
    Auto,
    /// At most so many bytes.
    Bytes(u64),
}

impl Default for PackConfig {
    /// One sample per file; SM4-GCM in blocks of 64 KiB, shards of 256 MiB, as many threads as cores.
    fn default() -> Self {
        Self {
            output: PathBuf::new(),
            overwrite: false,
            resume: false,
            cipher: Cipher::Sm4Gcm,
            compressed: false,
            dictionary: None,
            block_bytes: 64 << 10,
            shard_bytes: 256 << 20,
            layout: Layout::PerFile,
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            io: ServiceConfig::default(),
        }
    }
}

/// Settings of a pack.
#[derive(Clone, Debug)]
pub struct PackConfig {
    /// Directory to write.
    pub output: PathBuf,
    /// Whether to replace a data set that is there.
    pub overwrite: bool,
    /// Whether to keep the shards that are complete when the pack is interrupted, and to go on with those that an
    /// interrupted pack of the same input left.
    pub resume: bool,
    /// How blocks are sealed.
    pub cipher: Cipher,
    /// Whether blocks are compressed with zstd where that pays.
    pub compressed: bool,
    /// Whether they are compressed with a dictionary trained on the input.
    pub dictionary: Option<DictionarySize>,
    /// Stored length of a full block.
    pub block_bytes: u32,
    /// Payload after which a new shard is begun.
    pub shard_bytes: u64,
    /// How input becomes samples.
    pub layout: Layout,
    /// Shards written side by side.
    pub threads: usize,
    /// I/O engine and depths.
    pub io: ServiceConfig,
}

impl Layout {
    /// The schema of the samples.
    ///
    /// # Errors
    /// `Misuse` when samples of no bytes, or of a part of an element, are asked for.
    pub fn schema(&self) -> Result<Schema> {
        match *self {
            Self::PerFile => {
                Schema::new(Field { name: "data".to_owned(), dtype: Dtype::U8, shape: vec![-1] })
            }
            Self::Cut { sample_bytes, dtype } => {
                let element = u64::try_from(dtype.bytes()).expect("at most 8");
                if sample_bytes == 0
                    || !sample_bytes.is_multiple_of(element)
                    || sample_bytes > SAMPLE_BYTES_MAX
                {
                    let why = format!("samples of {sample_bytes} bytes of {dtype}");
                    return Err(Error::new(ErrorKind::Misuse, "pack", why).hint(format!(
                        "use --sample-bytes with a multiple of {element}, up to {SAMPLE_BYTES_MAX}"
                    )));
                }
                let length = i64::try_from(sample_bytes / element).expect("at most 2^30");
                Schema::new(Field { name: "tokens".to_owned(), dtype, shape: vec![length] })
            }
        }
    }
}

/// A batch holds many samples in memory; one of a gigabyte is a mistake.
const SAMPLE_BYTES_MAX: u64 = 1 << 30;

/// What is done so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct PackProgress {
    /// Input bytes read.
    pub bytes: AtomicU64,
    /// Set from outside to end early.
    pub stop: AtomicBool,
}

/// What a pack did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackReport {
    /// Where the data set is.
    pub output: PathBuf,
    /// Its generation.
    pub generation: u64,
    /// Files read.
    pub files: u64,
    /// Bytes read from them.
    pub input_bytes: u64,
    /// Samples written.
    pub samples: u64,
    /// Zero bytes added to the last sample.
    pub padded_bytes: u64,
    /// Shards in it.
    pub shards: u64,
    /// How many of them an interrupted pack had completed.
    pub resumed_shards: u64,
    /// How blocks are sealed; with `none` they are readable to all who can read the disk.
    pub cipher: String,
    /// Bytes of the dictionary that blocks were compressed with; 0 without one.
    pub dictionary_bytes: u64,
    /// Bytes on disk, sealed.
    pub stored_bytes: u64,
    /// Links to directories and special files that were left out.
    pub left_out: u64,
    /// Bytes of the input that are in no sample: what is left at the end of token files.
    pub left_over_bytes: u64,
    /// The I/O engine that wrote.
    pub io_engine: String,
}

/// Packs `input`.
///
/// # Errors
/// `Misuse` when there is nothing to pack or the settings make no sense; what the file system says when a file cannot
/// be read or the output cannot be written; `Interrupted` when it was stopped. Nothing is left behind then.
pub fn pack(
    input: &Input,
    config: &PackConfig,
    keys: &Arc<dyn KeyProvider>,
    progress: &PackProgress,
) -> Result<PackReport> {
    let schema = config.layout.schema()?;
    let plans = shards::plan(input, config.layout, config.shard_bytes)?;
    refuse_output_within_input(input, config)?;
    let threads = config.threads.clamp(1, plans.len());
    if config.dictionary.is_some() && !config.compressed {
        let why = "a dictionary without compression";
        return Err(Error::new(ErrorKind::Misuse, "pack", why).hint("add --codec zstd"));
    }
    let dictionary = dictionary::train(input, config)?;
    let context = WriteContext::new(&config.io, config.block_bytes, threads)?;
    let token = source_of(input, config);
    let (mut writer, done) = begin(&context, keys, config, &token)?;
    if let Some(dictionary) = &dictionary {
        writer = writer.with_dictionary(dictionary)?;
    }
    let sealed = side_by_side(plans.len(), threads, |number| {
        let mut sealed = group(&writer, &done, config, &token, number, || {
            shards::write(input, &schema, &plans[number], number, &writer, progress).map(|shard| vec![shard])
        })?;
        sealed.pop().ok_or_else(|| Error::new(ErrorKind::Corrupt, "pack", "a group without a shard"))
    })?;
    let samples = plans.iter().map(|plan| plan.records).sum();
    let stored_bytes = sealed.iter().map(SealedShard::file_bytes).sum();
    let shards = u64::try_from(sealed.len()).expect("a small number");
    let generation = writer.publish(schema.to_json(), token, sealed)?;
    let EngineReport { name, .. } = context.io_report();
    Ok(PackReport {
        output: config.output.clone(),
        generation,
        files: u64::try_from(input.files().len()).expect("a small number"),
        input_bytes: input.bytes(),
        samples,
        padded_bytes: match config.layout {
            Layout::PerFile => 0,
            Layout::Cut { sample_bytes, .. } => samples * sample_bytes - input.bytes(),
        },
        shards,
        resumed_shards: to_u64(done.values().map(Vec::len).sum()),
        cipher: config.cipher.name().to_owned(),
        dictionary_bytes: dictionary.map_or(0, |bytes| to_u64(bytes.len())),
        stored_bytes,
        left_out: input.left_out(),
        left_over_bytes: 0,
        io_engine: (*name).to_owned(),
    })
}

/// What the manifest says the data set was made from: equal for two packs of the same files with the same settings.
#[must_use]
pub fn source_of(input: &Input, config: &PackConfig) -> serde_json::Value {
    let layout = match config.layout {
        Layout::PerFile => serde_json::json!("per-file"),
        Layout::Cut { sample_bytes, dtype } => {
            serde_json::json!({"sample_bytes": sample_bytes, "dtype": dtype})
        }
    };
    serde_json::json!({
        "fingerprint": input.fingerprint(),
        "files": input.files().len(),
        "bytes": input.bytes(),
        "layout": layout,
        "cipher": config.cipher.name(),
        "compressed": config.compressed,
        "dictionary": config.dictionary,
        "block_bytes": config.block_bytes,
        "shard_bytes": config.shard_bytes,
    })
}

fn refuse_output_within_input(input: &Input, config: &PackConfig) -> Result<()> {
    let parent = config.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let resolve = |path: &std::path::Path| path.canonicalize().ok();
    let (parent, root) = (resolve(parent.unwrap_or(std::path::Path::new("."))), resolve(input.root()));
    if let (Some(parent), Some(root)) = (parent, root)
        && parent.starts_with(&root)
    {
        return Err(Error::new(ErrorKind::Misuse, "pack", "the output lies within the input")
            .at(&config.output)
            .hint("choose an output outside the directory that is packed"));
    }
    Ok(())
}

/// Groups of shards that an interrupted pack has completed.
type Done = HashMap<usize, Vec<SealedShard>>;

/// Begins to write the output of `config`, or goes on with it.
fn begin<'c>(
    context: &'c WriteContext,
    keys: &Arc<dyn KeyProvider>,
    config: &PackConfig,
    token: &serde_json::Value,
) -> Result<(DataSetWriter<'c>, Done)> {
    let (output, overwrite) = (&config.output, config.overwrite);
    let (cipher, compressed, block_bytes) = (config.cipher, config.compressed, config.block_bytes);
    let keys = Arc::clone(keys);
    if !config.resume {
        let writer =
            DataSetWriter::create(context, keys, output, overwrite, cipher, compressed, block_bytes, 1)?;
        return Ok((writer, Done::new()));
    }
    let (writer, done) =
        DataSetWriter::resume(context, keys, output, overwrite, cipher, compressed, block_bytes, 1, token)?;
    if !done.is_empty() {
        tracing::info!(groups = done.len(), "going on with an interrupted pack");
    }
    Ok((writer, done.into_iter().collect()))
}

/// The shards of group `number`: those that are done, or what `write` gives.
fn group(
    writer: &DataSetWriter<'_>,
    done: &Done,
    config: &PackConfig,
    token: &serde_json::Value,
    number: usize,
    write: impl FnOnce() -> Result<Vec<SealedShard>>,
) -> Result<Vec<SealedShard>> {
    if let Some(shards) = done.get(&number) {
        return Ok(shards.clone());
    }
    let shards = write()?;
    if config.resume {
        writer.checkpoint(number, &shards, token)?;
    }
    Ok(shards)
}

/// Does `work` for each of `count` numbers on `threads` threads; results in order. The first error stops the others.
fn side_by_side<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, Result<T>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let outcome = work(number);
                    failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests;
