//! `tierstream put`: a file becomes an object.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tierstream_storage::device::PlainFile;
use tierstream_storage::keys::Cipher;
use tierstream_storage::store::object::{Payload, StreamPayload};
use tierstream_storage::units::human_bytes;
use tierstream_storage::{PutOptions, Result};

use super::ObjectArgs;
use crate::args::{Codec, parse};
use crate::interrupt::Interrupt;
use crate::output;

/// Bytes of standard input that are held in memory: so much can be written to L2, and again to L3 if that fails.
const HELD_BYTES: u64 = 64 << 20;

/// Put a file under a name, in the place of what has it
///
/// `-` puts what comes from standard input: what is longer than 64 MiB goes to L3 at once, since nobody knows how long it
/// will be. The object is durable on L2, or on L3 without one, when that is said; the command then waits until it is on L3, which
/// Ctrl-C may cut short. Readers see the old object or the new one, never a mix.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// File to put, or - for standard input
    file: PathBuf,

    /// Name of the object, such as runs/7/model
    name: String,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How an object is written.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Kept with the object, sealed; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,

    /// sm4-gcm, aes-256-gcm, or none: authenticated but not encrypted
    #[arg(long, value_name = "NAME", default_value = "sm4-gcm", value_parser = parse::<Cipher>)]
    cipher: Cipher,

    /// Compression before sealing: none or zstd
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = parse::<Codec>)]
    codec: Codec,

    /// Write to L3 at once, past L2
    #[arg(long)]
    write_through: bool,

    /// Leave the object on L2; a later put drains it
    #[arg(long)]
    no_drain: bool,
}

fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is no KEY=VALUE"))
}

impl Put {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.file == Path::new("-") {
            let stream = StreamPayload::begin(Path::new("stdin"), std::io::stdin(), HELD_BYTES)?;
            return self.write.put(&self.objects, &self.name, &stream, self.json);
        }
        let file = PlainFile::open(&self.file)?;
        self.write.put(&self.objects, &self.name, &file, self.json)
    }
}

impl WriteArgs {
    /// Puts `payload` and tells the result.
    pub(crate) fn put(
        &self,
        objects: &ObjectArgs,
        name: &str,
        payload: &dyn Payload,
        json: bool,
    ) -> Result<ExitCode> {
        if self.cipher == Cipher::AuthOnly {
            output::say(
                "warning: --cipher none: the object is not encrypted; all who can read the disk can read it",
            );
        }
        let interrupt = Interrupt::catch(|| {})?;
        let store = objects.open(|config| {
            config.cipher = self.cipher;
            config.compressed = self.codec == Codec::Zstd;
        })?;
        let metadata: BTreeMap<String, String> = self.metadata.iter().cloned().collect();
        let options = PutOptions { metadata, write_through: self.write_through };
        let report = super::put(&store, name, payload, &options, &interrupt)?;
        if json {
            output::json(&report)?;
        } else {
            let tier = if report.on_l3 { "L3" } else { "L2" };
            let bytes = human_bytes(report.file_bytes);
            output::result(&format!(
                "{name}: version {}, {bytes} sealed, durable on {tier}\n",
                report.version
            ))?;
        }
        if !self.no_drain {
            super::drain(&store, &interrupt)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
