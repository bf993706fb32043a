//! `tierstream keys wrap`: a further key opens data sets or objects.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tierstream_storage::Result;

use super::change;
use crate::args::IoArgs;
use crate::interrupt::Interrupt;
use crate::key::{KeyArgs, KeySource, key_parser};

/// Let a further key open a data set or objects, to share them; their data is not rewritten
///
/// A file takes up to four keys. What may be opened under a key is decided by who has that key: take it back with
/// `tierstream keys destroy DATASET --name NAME`.
#[derive(Debug, Args)]
pub(super) struct Wrap {
    /// Directories of data sets, or of the tiers (L2 and L3) where objects live
    #[arg(required = true, value_name = "DATASET|TIER")]
    data: Vec<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    /// The further key: a file, env:NAME or cmd:COMMAND
    #[arg(long, value_name = "KEY", value_parser = key_parser())]
    add: KeySource,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Wrap {
    pub(super) fn run(self) -> Result<ExitCode> {
        let known = self.key.ring()?;
        let new = self.add.unlock(self.key.passphrase())?;
        let interrupt = Interrupt::catch(|| {})?;
        change::each(&self.data, |data| {
            let report = change::run(data, &self.io, 1, &interrupt, |keys| keys.add(&known, &new))?;
            let had = report.files - report.added;
            let had = if had == 0 { String::new() } else { format!("; {had} it opened before") };
            change::tell(
                data,
                &report,
                (&[], Some(new.id())),
                self.json,
                &format!("key {} opens {} more files{had}", new.id(), report.added),
                "what opened before still does",
            )
        })
    }
}
