//! `tierstream pack`: files in, a sealed data set out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tierstream_loader::Dtype;
use tierstream_loader::pack::formats::{self, FormatName, OpenOptions};
use tierstream_loader::pack::{Input, Layout, PackConfig, PackProgress, PackReport, convert, pack, source};
use tierstream_storage::Result;
use tierstream_storage::keys::{Cipher, KeyProvider};
use tierstream_storage::units::human_bytes;

use crate::args::{Codec, IoArgs, SealArgs, parse};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Pack files, or a data set of another program, into a sealed data set
///
/// Each file becomes one sample, named by its path; or what the files hold is samples: WebDataset archives, MosaicML MDS
/// shards, safetensors and NumPy arrays (a row a sample), token files of nanoGPT and llm.c, JSON lines, directories as
/// classes. Which of them follows from the files' names, unless --format says it. With --sample-bytes the files, in the
/// order of their paths, are taken as one long text and cut into samples of that length. The data set appears under its
/// name only when it is complete.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// File, or directory with the files
    input: PathBuf,

    /// Directory to make for the data set
    output: PathBuf,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    seal: SealArgs,

    /// What the files are: files, class-folders, webdataset, mds, safetensors, npy, tokens or jsonl. By default what
    /// their names say
    #[arg(long, value_name = "NAME", value_parser = parse::<FormatName>)]
    format: Option<FormatName>,

    /// Fields to take of each sample, by name: jpg,cls. By default all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    fields: Option<Vec<String>>,

    /// Tokens of a sample, for token files (.bin)
    #[arg(long, value_name = "N", conflicts_with = "sample_bytes")]
    sample_tokens: Option<u64>,

    /// Cut the input into samples of this many bytes
    #[arg(long, value_name = "N", conflicts_with_all = ["format", "fields"])]
    sample_bytes: Option<u64>,

    /// Type of the elements, with --sample-bytes (default u8) and --sample-tokens (default u16): i32, f32, ...
    #[arg(long, value_name = "TYPE", value_parser = parse::<Dtype>)]
    dtype: Option<Dtype>,

    /// Replace a data set that is there; the new one is its next generation
    #[arg(long)]
    overwrite: bool,

    /// Keep what is complete when interrupted or killed, and go on with it when run again on the same input
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Pack {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = self.key.open()?;
        let layout = match self.sample_bytes {
            None => Layout::PerFile,
            Some(sample_bytes) => Layout::Cut { sample_bytes, dtype: self.dtype.unwrap_or(Dtype::U8) },
        };
        let config = PackConfig {
            output: without_slash(&self.output),
            overwrite: self.overwrite,
            resume: self.resume,
            layout,
            ..config(&self.seal, &self.io)
        };
        let format = match (self.format, self.sample_bytes, self.sample_tokens) {
            (Some(format), ..) => format,
            (None, Some(_), _) => FormatName::Files,
            (None, None, Some(_)) => FormatName::Tokens,
            (None, None, None) => FormatName::detect(&self.input)?,
        };
        let interrupt = Interrupt::catch(|| {})?;
        let report = match format {
            FormatName::Files => run(&Input::scan(&self.input)?, &config, &keys, &interrupt)?,
            format => self.convert(format, &config, &keys, &interrupt)?,
        };
        if self.json {
            output::json(&report)?;
        } else {
            output::result(&summary(&report))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Packs what is in another format.
    fn convert(
        &self,
        name: FormatName,
        config: &PackConfig,
        keys: &Arc<dyn KeyProvider>,
        interrupt: &Interrupt,
    ) -> Result<PackReport> {
        let options =
            OpenOptions { fields: self.fields.clone(), sample_tokens: self.sample_tokens, dtype: self.dtype };
        let format = formats::open(&self.input, name, &options)?;
        let source = source(&self.input, name, &options, &*format)?;
        let bytes = format.parts().iter().sum();
        watched(bytes, config, interrupt, |progress| convert(&*format, &source, config, keys, progress))
    }
}

/// Settings of a pack with these flags; output and layout are the caller's.
pub(crate) fn config(seal: &SealArgs, io: &IoArgs) -> PackConfig {
    PackConfig {
        output: PathBuf::new(),
        overwrite: false,
        resume: false,
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
    watched(input.bytes(), config, interrupt, |progress| pack(input, config, keys, progress))
}

/// Does `work` on `bytes` of input behind a progress bar.
fn watched(
    bytes: u64,
    config: &PackConfig,
    interrupt: &Interrupt,
    work: impl FnOnce(&PackProgress) -> Result<PackReport> + Send,
) -> Result<PackReport> {
    if !config.cipher.encrypts() {
        output::say(
            "warning: --cipher none: the samples are not encrypted; all who can read the disk can read them",
        );
    }
    let progress = PackProgress::default();
    let bar = output::byte_bar(bytes, "packing");
    let packed = interrupt.watch(&bar, &progress.bytes, &progress.stop, || work(&progress));
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
    if report.resumed_shards > 0 {
        text += &format!("{} shards were complete already\n", report.resumed_shards);
    }
    if report.left_over_bytes > 0 {
        text += &format!("left out: {} at the ends of files\n", human_bytes(report.left_over_bytes));
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
