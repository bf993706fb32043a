//! `tierstream keys show`: which key it is.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tierstream_storage::Result;
use tierstream_storage::keys::KeyText;

use super::KeyName;
use crate::key::{KeySource, key_parser};
use crate::output;

/// Show which key a file, variable or command holds, not the key itself
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Key file, env:NAME or cmd:COMMAND
    #[arg(value_name = "KEY", value_parser = key_parser())]
    key: KeySource,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    source: String,
    #[serde(flatten)]
    key: KeyName,
    passphrase: bool,
}

impl Show {
    pub(super) fn run(self) -> Result<ExitCode> {
        let key = self.key.read()?;
        if self.json {
            let passphrase = matches!(key, KeyText::Passphrase(_));
            output::json(&Report { source: self.key.to_string(), key: key.id().into(), passphrase })?;
            return Ok(ExitCode::SUCCESS);
        }
        let guard = match &key {
            KeyText::Root(_) => String::new(),
            KeyText::Passphrase(key) => {
                let cost = key.cost();
                format!(
                    ", under a passphrase (argon2id, {} MiB, {} passes, {} lanes)",
                    cost.memory_kib >> 10,
                    cost.passes,
                    cost.lanes
                )
            }
        };
        output::result(&format!("{}: key {}{guard}\n", self.key, key.id()))?;
        Ok(ExitCode::SUCCESS)
    }
}
