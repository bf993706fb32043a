//! `tierstream pack`: files in, a sealed data set out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tierstream_loader::Dtype;
use tierstream_loader::pack::{Input, Layout, PackConfig, PackProgress, PackReport, pack};
use tierstream_storage::Result;
use tierstream_storage::keys::{Cipher, KeyProvider};
use tierstream_storage::units::human_bytes;

use crate::args::{Codec, IoArgs, SealArgs, parse};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Pack a directory of files into a sealed data set
///
/// Each file becomes one sample, named by its path. With --sample-bytes the files, in the order of their paths, are
/// taken as one long text and cut into samples of that length. The data set appears under its name only when it is
/// complete.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// Directory with the files
    input: PathBuf,

    /// Directory to make for the data set
    output: PathBuf,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    seal: SealArgs,

    /// Cut the input into samples of this many bytes
    #[arg(long, value_name = "N")]
    sample_bytes: Option<u64>,

    /// Type of the samples' elements, with --sample-bytes: u8, u16, i32, f32, ...
    #[arg(long, value_name = "TYPE", default_value = "u8", value_parser = parse::<Dtype>, requires = "sample_bytes")]
    dtype: Dtype,

    /// Replace a data set that is there; the new one is its next generation
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Pack {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = self.key.open()?;
        let input = Input::scan(&self.input)?;
        let layout = match self.sample_bytes {
            None => Layout::PerFile,
            Some(sample_bytes) => Layout::Cut { sample_bytes, dtype: self.dtype },
        };
        let config = PackConfig {
            output: without_slash(&self.output),
            overwrite: self.overwrite,
            layout,
            ..config(&self.seal, &self.io)
        };
        let report = run(&input, &config, &keys, &Interrupt::catch(|| {})?)?;
        if self.json {
            output::json(&report)?;
        } else {
            output::result(&summary(&report))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Settings of a pack with these flags; output and layout are the caller's.
pub(crate) fn config(seal: &SealArgs, io: &IoArgs) -> PackConfig {
    PackConfig {
        output: PathBuf::new(),
        overwrite: false,
        cipher: seal.cipher,
        compressed: seal.codec == Codec::Zstd,
        dictionary: seal.dictionary,
        block_bytes: seal.block_size,
        shard_bytes: seal.shard_mib << 20,
        layout: Layout::PerFile,
        threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        io: io.config(),
    }
}

/// Packs with a progress bar.
pub(crate) fn run(
    input: &Input,
    config: &PackConfig,
    keys: &Arc<dyn KeyProvider>,
    interrupt: &Interrupt,
) -> Result<PackReport> {
    if !config.cipher.encrypts() {
        output::say(
            "warning: --cipher none: the samples are not encrypted; all who can read the disk can read them",
        );
    }
    let progress = PackProgress::default();
    let bar = output::byte_bar(input.bytes(), "packing");
    let work = || pack(input, config, keys, &progress);
    let packed = interrupt.watch(&bar, &progress.bytes, &progress.stop, work);
    bar.finish_and_clear();
    packed
}

/// `dir/` and `dir` name the same output.
fn without_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

fn summary(report: &PackReport) -> String {
    let mut text = format!(
        "packed {} files ({}) into {} samples\n",
        report.files,
        human_bytes(report.input_bytes),
        report.samples
    );
    if report.padded_bytes > 0 {
        text += &format!("the last sample was padded with {} zero bytes\n", report.padded_bytes);
    }
    if report.left_out > 0 {
        text += &format!("left out: {} links to directories or special files\n", report.left_out);
    }
    if report.dictionary_bytes > 0 {
        text += &format!("compressed with a dictionary of {}\n", human_bytes(report.dictionary_bytes));
    }
    let sealed =
        if report.cipher == Cipher::AuthOnly.name() { "authenticated but not encrypted" } else { "sealed" };
    text + &format!(
        "{}: generation {}, {} shards, {} {sealed} (cipher {})\n",
        report.output.display(),
        report.generation,
        report.shards,
        human_bytes(report.stored_bytes),
        report.cipher
    )
}
