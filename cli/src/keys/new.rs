//! `tierstream keys new`: makes a key file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tierstream_storage::keys::{
    PassphraseCost, PassphraseKey, RootKey, write_key_file, write_passphrase_key_file,
};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::key::{KeySource, PassphraseArgs, key_parser, new_passphrase};
use crate::output;

/// Make a key file that only you can read (mode 0600)
#[derive(Debug, Args)]
pub(super) struct New {
    /// Where to write it; an existing file is never overwritten
    file: PathBuf,

    /// Name of the key, kept beside the data it seals; default: the file's name
    #[arg(long)]
    name: Option<String>,

    /// Make the next version of this key, under the same name: for `tierstream keys rotate`
    #[arg(long, value_name = "KEY", conflicts_with = "name", value_parser = key_parser())]
    rotate_from: Option<KeySource>,

    /// Protect the file with a passphrase, which is asked for twice
    #[arg(long)]
    passphrase: bool,

    #[command(flatten)]
    passphrase_args: PassphraseArgs,
}

impl New {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (name, version) = self.name_and_version()?;
        let key = RootKey::random_version(&name, version)
            .map_err(|error| Error::from(error).hint("choose one with --name"))?;
        if self.passphrase || self.passphrase_args.is_given() {
            if self.file.exists() {
                // Said before anybody types a passphrase; the write itself refuses too.
                return write_key_file(&self.file, &key).map(|()| ExitCode::SUCCESS);
            }
            let passphrase = new_passphrase(&self.passphrase_args)?;
            let sealed = PassphraseKey::seal(&key, passphrase.as_bytes(), PassphraseCost::default())
                .map_err(|error| {
                    Error::from(error).hint("use a longer passphrase: several words, or a random one")
                })?;
            write_passphrase_key_file(&self.file, &sealed)?;
            output::say("keep a copy of this file, and the passphrase: without both the data cannot be read");
        } else {
            write_key_file(&self.file, &key)?;
            output::say("keep a copy of this file in a safe place: without it the data cannot be read");
        }
        output::result(&format!("{}: key {}\n", self.file.display(), key.id()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn name_and_version(&self) -> Result<(String, u32)> {
        if let Some(source) = &self.rotate_from {
            // Name and version stand in the clear: no passphrase is needed.
            let key = source.read()?;
            let id = key.id();
            let version = id.version.checked_add(1).ok_or_else(|| {
                Error::new(ErrorKind::Misuse, "make a key", "there is no version after the last")
            })?;
            return Ok((id.name.clone(), version));
        }
        let stem = self.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok((self.name.clone().or(stem).unwrap_or_default(), 1))
    }
}
