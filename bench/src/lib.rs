//! Measurements of every layer, each beside what it is to be compared with: [`io`] in fio's words and JSON beside mmap
//! and tokio-uring, [`store`] and its engine beside fio, [`crypto`] beside memcpy, [`catalog`] by number of objects.
//!
//! Each module has one `run` and one `Report`, which serialises to JSON and prints as text. Guarantees that a number
//! says what it was measured on: what was asked and not given (O_DIRECT, registered buffers, a queue depth) is in the
//! report.
//!
//! Deliberately knows no argument parser, prints nothing and reads no environment: the command line does. Time comes
//! from a [`Clock`](tierstream_storage::clock::Clock).

pub mod catalog;
pub mod crypto;
pub mod io;
mod os;
mod random;
pub mod read;
pub mod store;

pub use tierstream_storage::{Error, ErrorKind, Result};
