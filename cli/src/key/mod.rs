//! Where a key comes from: `--key FILE`, `--key env:NAME` or `--key cmd:COMMAND`, and the passphrase that opens it.
//!
//! The only place that reads keys from the environment or from other programs. What they give is never printed.

mod command;
mod passphrase;
mod source;

pub(crate) use passphrase::{PassphraseArgs, new_passphrase};
pub(crate) use source::{KeySource, key_parser};

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tierstream_storage::Result;
use tierstream_storage::keys::{KeyProvider, KeyRing};

/// Where the key is.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Key file, env:NAME or cmd:COMMAND; make a file with `tierstream keys new FILE`. May be given several times: the
    /// first seals what is written, all open what is read
    #[arg(long = "key", value_name = "KEY", required = true, value_parser = key_parser())]
    keys: Vec<KeySource>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl KeyArgs {
    /// The keys, for those who read and write data.
    pub(crate) fn open(&self) -> Result<Arc<dyn KeyProvider>> {
        open(&self.keys, &self.passphrase)
    }

    /// The keys, for those who change keys.
    pub(crate) fn ring(&self) -> Result<KeyRing> {
        ring(&self.keys, &self.passphrase)
    }

    pub(crate) fn passphrase(&self) -> &PassphraseArgs {
        &self.passphrase
    }
}

/// Where the key is, for verbs that can do without.
#[derive(Debug, Args)]
pub(crate) struct OptionalKeyArgs {
    /// Key file, env:NAME or cmd:COMMAND; may be given several times
    #[arg(long = "key", id = "key", value_name = "KEY", value_parser = key_parser())]
    keys: Vec<KeySource>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl OptionalKeyArgs {
    /// The keys, if one was named.
    pub(crate) fn open(&self) -> Option<Result<Arc<dyn KeyProvider>>> {
        (!self.keys.is_empty()).then(|| open(&self.keys, &self.passphrase))
    }
}

/// Reads a key file that needs no passphrase.
pub(crate) fn open_key_file(path: &Path) -> Result<Arc<dyn KeyProvider>> {
    Ok(Arc::new(tierstream_storage::keys::read_key_file(path)?))
}

fn open(sources: &[KeySource], passphrase: &PassphraseArgs) -> Result<Arc<dyn KeyProvider>> {
    Ok(Arc::new(ring(sources, passphrase)?))
}

fn ring(sources: &[KeySource], passphrase: &PassphraseArgs) -> Result<KeyRing> {
    let keys = sources.iter().map(|source| source.unlock(passphrase)).collect::<Result<Vec<_>>>()?;
    Ok(KeyRing::new(keys)?)
}
