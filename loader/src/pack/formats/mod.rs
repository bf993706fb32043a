//! Data sets of other programs as samples: what each format's files hold, part by part.
//!
//! Every byte of a foreign file is hostile until it was checked: lengths are compared with the file before memory is
//! taken for them, and what does not fit is an error that names file and offset. A part is read in order by one thread
//! and holds one sample at a time in memory; parts are read side by side.

mod class_folders;
mod columns;
mod detect;
mod jsonl;
mod mds;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod plain;
mod safetensors;
mod tar;
mod tokens;
mod zip;

pub use detect::{FormatName, OpenOptions, open};
pub(crate) use npy::header as npy_header;

use std::fmt;
use std::path::Path;

use tierstream_storage::{Error, ErrorKind, Result};

use crate::schema::Schema;

/// Parts of inputs that can be read from any place are about this long.
const PART_BYTES: u64 = 32 << 20;
/// A sample is in memory as a whole.
const SAMPLE_BYTES_MAX: u64 = 1 << 30;

/// One sample of an input.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its name, where the format has names.
    pub name: Option<&'a str>,
    /// The bytes of each field.
    pub values: &'a [&'a [u8]],
    /// Bytes of the input that it took.
    pub input_bytes: u64,
}

/// Takes the samples of a part, in order.
pub type Each<'a> = &'a mut dyn FnMut(Sample<'_>) -> Result<()>;

/// An input of one format.
pub trait Format: Send + Sync + fmt::Debug {
    /// What its samples look like.
    fn schema(&self) -> &Schema;

    /// Bytes of each of its parts.
    fn parts(&self) -> &[u64];

    /// Gives the samples of part `part` to `each`, in order.
    ///
    /// # Errors
    /// `Corrupt` for what is malformed, as the file system says, or what `each` says.
    fn read(&self, part: usize, each: Each<'_>) -> Result<()>;

    /// What else people should know of the data set: names of classes, say.
    fn notes(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Bytes of the input that are in no sample.
    fn left_over_bytes(&self) -> u64 {
        0
    }
}

/// Damage at `offset` of a file.
fn corrupt(path: &Path, (offset, len): (u64, u64), why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "read input", why)
        .at(path)
        .at_offset(offset, len)
        .hint("is the file whole, and of the format that was asked for? `--format` chooses another")
}

/// The places in `found` of the fields that were asked for, or of all.
fn choose(found: &[String], wanted: Option<&[String]>, path: &Path) -> Result<Vec<usize>> {
    let Some(wanted) = wanted else { return Ok((0..found.len()).collect()) };
    wanted
        .iter()
        .map(|name| {
            found.iter().position(|known| known == name).ok_or_else(|| {
                let why = format!("no field `{name}`, found {}", found.join(", "));
                Error::new(ErrorKind::Misuse, "read input", why).at(path).hint("choose --fields among those")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
