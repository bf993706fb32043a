//! `tierstream keys`: one file per verb.

mod change;
mod destroy;
mod list;
mod new;
mod rotate;
mod show;
mod wrap;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use tierstream_storage::Result;
use tierstream_storage::keys::KekId;

/// Make keys, and change which keys a data set opens with
///
/// A data set's files each have a data key of their own, which is stored wrapped by up to four keys. Changing keys
/// rewrites these wraps, not the data. docs/guides/keys.md says how to choose, share, rotate and destroy keys.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    New(new::New),
    Show(show::Show),
    List(list::List),
    Wrap(wrap::Wrap),
    Rotate(rotate::Rotate),
    Destroy(destroy::Destroy),
}

impl Keys {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::New(new) => new.run(),
            Verb::Show(show) => show.run(),
            Verb::List(list) => list.run(),
            Verb::Wrap(wrap) => wrap.run(),
            Verb::Rotate(rotate) => rotate.run(),
            Verb::Destroy(destroy) => destroy.run(),
        }
    }
}

/// A key in a report: which one it is, nothing of what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct KeyName {
    name: String,
    version: u32,
    fingerprint: String,
}

impl From<&KekId> for KeyName {
    fn from(id: &KekId) -> Self {
        let fingerprint = id.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: id.name.clone(), version: id.version, fingerprint }
    }
}
