//! Samples, their order, and the batches that a training job consumes; and the packing of data sets.
//!
//! [`Loader`] is an iterator of [`Batch`]es. The order of samples is a function of `(seed, epoch, rank, world_size)` and
//! of nothing else; where the bytes come from (memory, NVMe, HDD, a daemon) and in what state the caches are changes
//! when a batch is ready, never what is in it. Bytes were authenticated before they are in a batch.
//!
//! Deliberately knows no CUDA: buffers come from a `HostAllocator`, which may pin them.

mod batch;
mod dataset;
mod index;
mod loader;
pub mod pack;
mod permutation;
mod pipeline;
mod sampler;
mod schema;
mod state;

pub use batch::Batch;
pub use dataset::Dataset;
pub use index::{RECORD_NAMES, ShardIndex, name_of};
pub use loader::{Loader, LoaderBuilder};
pub use permutation::Permutation;
pub use sampler::{EpochOrder, Sampler};
pub use schema::{Dtype, Field, Schema};
pub use state::LoaderState;
