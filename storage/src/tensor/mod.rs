//! What a tensor is to storage: an element type, a shape, and a place in a payload.
//!
//! The table of an object's tensors is a safetensors header, kept byte for byte as it came, so that a file that was
//! imported is exported with the same bits. [`TensorTable`] parses it with every limit checked; where each tensor lies
//! in the payload follows from the table alone ([`place`](TensorTable::places)). [`runs`] turns a slice into ranges of
//! bytes. Knows no file, no block's contents, no tier.

mod dtype;
mod header;
mod layout;
mod slice;
mod table;

pub use dtype::Dtype;
pub use header::{HEADER_BYTES_MAX, LEN_BYTES};
pub use layout::ALIGN;
pub use slice::{Runs, runs};
pub use table::{TensorInfo, TensorTable};

#[cfg(test)]
mod tests;
