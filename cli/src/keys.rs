//! `tierstream keys`: key files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tierstream_storage::Result;
use tierstream_storage::keys::{RootKey, read_key_file, write_key_file};

use crate::output;

/// Make and show key files
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key file that only you can read (mode 0600)
    New {
        /// Where to write it; an existing file is never overwritten
        file: PathBuf,
        /// Name of the key, kept beside the data it seals; default: the file's name
        #[arg(long)]
        name: Option<String>,
    },
    /// Show which key a file holds, not the key itself
    Show {
        /// The key file
        file: PathBuf,
    },
}

impl Keys {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (file, key) = match self.verb {
            Verb::New { file, name } => {
                let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                let key = RootKey::random(&name.or(stem).unwrap_or_default())?;
                write_key_file(&file, &key)?;
                output::say("keep a copy of this file in a safe place: without it the data cannot be read");
                (file, key)
            }
            Verb::Show { file } => {
                let key = read_key_file(&file)?;
                (file, key)
            }
        };
        output::result(&format!("{}: key {}\n", file.display(), key.id()))?;
        Ok(ExitCode::SUCCESS)
    }
}
