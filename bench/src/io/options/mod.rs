//! fio's language: one table of every key, and the readers of job files and of command lines that are checked against
//! it.
//!
//! A key that the table does not have is an error that names the nearest one it has; a key of fio's that is not carried
//! out is an error that says why. Nothing is ignored. Knows no job: [`super::job`] makes one of an [`OptionSet`].

mod args;
mod file;
mod nearest;
mod set;
pub(super) mod table;
pub(crate) mod value;

pub use args::{Arguments, Eta, Format, RunOptions};
pub(super) use nearest::nearest;
pub(super) use set::OptionSet;
pub use table::{Key, Kind, Status, keys};

use crate::{Error, ErrorKind};

/// A wrong word in a job file or on the command line.
pub(super) fn misuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misuse, "parse", why)
}
