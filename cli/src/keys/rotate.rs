//! `tierstream keys rotate`: one key takes the place of others.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tierstream_storage::keys::KekId;
use tierstream_storage::{Error, ErrorKind, Result};

use super::change;
use crate::args::IoArgs;
use crate::interrupt::Interrupt;
use crate::key::{KeyArgs, KeySource, key_parser};

/// What holds when a key was taken away nowhere.
const UNDONE: &str = "the old key still opens what it opened before";

/// Put a new key in the place of an old one; the data is not rewritten
///
/// First every file gets the new key, and only then the old one is taken away, so that one key opens everything at any
/// moment. A rotation that was interrupted is finished by the same command. Jobs that read meanwhile should be given both
/// keys (--key OLD --key NEW) until it is done. Keys of others stay.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Directories of data sets, or of the tiers (L2 and L3) where objects live: give all that belong together
    #[arg(required = true, value_name = "DATASET|TIER")]
    data: Vec<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    /// The new key: a file, env:NAME or cmd:COMMAND; `tierstream keys new NEW --rotate-from OLD` makes one
    #[arg(long, value_name = "KEY", value_parser = key_parser())]
    to: KeySource,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Rotate {
    pub(super) fn run(self) -> Result<ExitCode> {
        let old = self.key.ring()?;
        let new = self.to.unlock(self.key.passphrase())?;
        let leaving: Vec<KekId> =
            old.ids().filter(|id| id.fingerprint != new.id().fingerprint).cloned().collect();
        if leaving.is_empty() {
            let why = format!("the old key and the new one are the same: {}", new.id());
            return Err(Error::new(ErrorKind::Misuse, "rotate", why)
                .hint("make a new one: tierstream keys new NEW --rotate-from OLD"));
        }
        let interrupt = Interrupt::catch(|| {})?;
        // Of several, all get the new key before the first loses the old one.
        for data in self.data.iter().filter(|_| self.data.len() > 1) {
            let report = change::run(data, &self.io, 1, &interrupt, |keys| keys.add(&old, &new))?;
            if report.error_count > 0 {
                return change::tell(data, &report, (&leaving, Some(new.id())), self.json, "", UNDONE);
            }
        }
        let ids: Vec<String> = leaving.iter().map(ToString::to_string).collect();
        change::each(&self.data, |data| {
            let report =
                change::run(data, &self.io, 2, &interrupt, |keys| keys.rotate(&old, &leaving, &new))?;
            let done = format!(
                "key {} took the place of {} in {} of {} files",
                new.id(),
                ids.join(", "),
                report.removed,
                report.files
            );
            let undone = match report.removed {
                0 => UNDONE,
                _ => "the new key opens all files, and the old one those named above",
            };
            change::tell(data, &report, (&leaving, Some(new.id())), self.json, &done, undone)
        })
    }
}
