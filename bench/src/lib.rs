//! Measurements of every layer, each beside what it is to be compared with: [`io`] in fio's language, with workloads of
//! training jobs on the tiers, [`store`] and its engine beside fio, [`crypto`] beside memcpy, [`catalog`] by number of
//! objects, [`gpu`] beside its own link.
//!
//! Guarantees that a number says what it was measured on: what was asked and not given (O_DIRECT, registered buffers, a
//! queue depth) is in the report.
//!
//! Deliberately knows no argument parser but fio's, prints nothing and reads no environment: the command line does. Time
//! comes from a [`Clock`](tierstream_storage::clock::Clock).

pub mod catalog;
pub mod crypto;
pub mod daemon;
pub mod gpu;
pub mod io;
mod number;
mod os;
mod pages;
pub mod prefetch;
mod random;
pub mod read;
pub mod store;
mod workload;

pub use tierstream_storage::{Error, ErrorKind, Result};

pub(crate) use tierstream_storage::units::{to_u64, to_usize};
