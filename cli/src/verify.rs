//! `tierstream verify`: reads and authenticates everything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tierstream_storage::store::{VerifyProgress, VerifyReport, peek_header, verify};
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Result, WriteContext};

use crate::args::{IoArgs, block_bytes_of};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Read and authenticate every byte of a data set
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Directory of the data set
    data: PathBuf,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verdict {
    ok: bool,
    shards: usize,
    blocks: u64,
    bytes: u64,
    generation: u64,
    cipher: &'static str,
    error_count: u64,
    errors: Vec<String>,
}

impl Verify {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = self.key.open()?;
        let block_bytes = block_bytes_of(&self.data)?;
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let context = WriteContext::new(&self.io.config(), block_bytes, threads)?;
        let interrupt = Interrupt::catch(|| {})?;
        let progress = VerifyProgress::default();
        let bar = output::byte_bar(stored_bytes(&self.data), "verifying");
        let work = || verify(&context, &*keys, &self.data, threads, &progress);
        let report = interrupt.watch(&bar, &progress.bytes, &progress.stop, work);
        bar.finish_and_clear();
        self.tell(&report?)
    }

    fn tell(&self, report: &VerifyReport) -> Result<ExitCode> {
        let ok = report.error_count == 0;
        if self.json {
            output::json(&Verdict {
                ok,
                shards: report.shards,
                blocks: report.blocks,
                bytes: report.bytes,
                generation: report.generation,
                cipher: report.cipher,
                error_count: report.error_count,
                errors: report.errors.iter().map(ToString::to_string).collect(),
            })?;
        }
        if ok {
            if !self.json {
                output::result(&format!(
                    "{}: whole: {} blocks in {} shards, {}, generation {}, cipher {}\n",
                    self.data.display(),
                    report.blocks,
                    report.shards,
                    human_bytes(report.bytes),
                    report.generation,
                    report.cipher
                ))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        for error in &report.errors {
            output::say(&format!("error: {error}"));
        }
        let kept = u64::try_from(report.errors.len()).unwrap_or(u64::MAX);
        if report.error_count > kept {
            output::say(&format!("and {} more", report.error_count - kept));
        }
        let hint = "restore the files named above from their source, or pack the data set again";
        output::say(&format!(
            "\n{} of {} blocks are damaged or unreadable\n\nhint: {hint}",
            report.error_count,
            report.blocks + report.error_count
        ));
        Ok(ExitCode::FAILURE)
    }
}

/// Roughly what the data set at `path` takes, for a bar alone: nothing is authenticated yet.
pub(crate) fn stored_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| peek_header(&entry.path()).ok()).map(|header| header.file_bytes()).sum()
}
