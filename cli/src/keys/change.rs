//! What the verbs that change the keys of data sets and objects share: the work with its progress bar, and the report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use tierstream_storage::keys::KekId;
use tierstream_storage::store::{Rewrap, RewrapProgress, RewrapReport, sealed_files};
use tierstream_storage::{Result, WriteContext};

use super::KeyName;
use crate::args::{IoArgs, block_bytes_of};
use crate::interrupt::Interrupt;
use crate::output;

/// Files whose headers are rewritten at a time: enough to hide the flushes of one device behind each other.
const THREADS: usize = 4;

#[derive(Serialize)]
struct Summary {
    data_set: String,
    from: Vec<KeyName>,
    to: Option<KeyName>,
    files: u64,
    added: u64,
    removed: u64,
    error_count: u64,
    errors: Vec<String>,
}

/// Does `work` for each of several places; fails when it failed for one of them.
pub(super) fn each(places: &[PathBuf], work: impl Fn(&Path) -> Result<ExitCode>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for place in places {
        let one = work(place)?;
        if one != ExitCode::SUCCESS {
            code = one;
        }
    }
    Ok(code)
}

/// Changes keys of what is at `data`, looking `passes` times at each header.
pub(super) fn run(
    data: &Path,
    io: &IoArgs,
    passes: usize,
    interrupt: &Interrupt,
    work: impl FnOnce(&Rewrap<'_>) -> Result<RewrapReport> + Send,
) -> Result<RewrapReport> {
    let headers = u64::try_from(sealed_files(data)?.names.len() * passes).unwrap_or(u64::MAX);
    // Only headers are read without a manifest; a data set without one is shredded all the same.
    let block_bytes = block_bytes_of(data).unwrap_or(4096);
    let context = WriteContext::new(&io.config(), block_bytes, THREADS)?;
    let progress = RewrapProgress::default();
    let bar = output::step_bar(headers);
    bar.set_message("headers");
    let changed = interrupt.watch(&bar, &progress.headers, &progress.stop, || {
        work(&Rewrap::new(&context, data, THREADS, &progress))
    });
    bar.finish_and_clear();
    changed
}

/// Tells what came of it; `done` says it in words when all went well, `undone` what holds when not.
pub(super) fn tell(
    data: &Path,
    report: &RewrapReport,
    (from, to): (&[KekId], Option<&KekId>),
    json: bool,
    done: &str,
    undone: &str,
) -> Result<ExitCode> {
    if json {
        output::json(&Summary {
            data_set: data.display().to_string(),
            from: from.iter().map(KeyName::from).collect(),
            to: to.map(KeyName::from),
            files: report.files,
            added: report.added,
            removed: report.removed,
            error_count: report.error_count,
            errors: report.errors.iter().map(ToString::to_string).collect(),
        })?;
    }
    let Some(first) = report.errors.first() else {
        if !json {
            output::result(&format!("{}: {done}\n", data.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    for error in &report.errors {
        output::say(&format!("error: {error}"));
    }
    let kept = u64::try_from(report.errors.len()).unwrap_or(u64::MAX);
    if report.error_count > kept {
        output::say(&format!("and {} more", report.error_count - kept));
    }
    let hint = first.hint_text().map_or(String::new(), |hint| format!("{hint}; then "));
    output::say(&format!(
        "\n{} of {} files could not be changed: {undone}\n\nhint: {hint}run the same command again to finish",
        report.error_count, report.files
    ));
    Ok(ExitCode::FAILURE)
}
