//! Samples, their order, and the batches that a training job consumes; and the packing of data sets.
//!
//! [`Loader`] is an iterator of [`Batch`]es. The order of samples is a function of `(seed, epoch, rank, world_size)` and
//! of nothing else; where the bytes come from (memory, NVMe, HDD, a daemon) and in what state the caches are changes
//! when a batch is ready, never what is in it. Bytes were authenticated before they are in a batch.
//!
//! Deliberately knows no CUDA: buffers come from a `HostAllocator`, which may pin them.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use tierstream_loader::{Dataset, Loader};
//! use tierstream_prefetch::Prefetcher;
//! use tierstream_storage::keys::{KeyProvider, read_key_file};
//! use tierstream_storage::tier::L2Config;
//! use tierstream_storage::{Result, Store, StoreConfig};
//!
//! # fn main() -> Result<()> {
//! let keys: Arc<dyn KeyProvider> = Arc::new(read_key_file(Path::new("job.key"))?);
//! let l2 = vec![L2Config { path: "/mnt/nvme/l2".into(), bytes: 500 << 30 }];
//! let store = Store::open(StoreConfig { l1_bytes: 8 << 30, l2, ..StoreConfig::default() }, keys)?;
//! let dataset = Dataset::open(Arc::new(store.clone()), "set")?;
//! let loader = Loader::builder(dataset)
//!     .batch_size(64)
//!     .shuffle(true)
//!     .prefetcher(Prefetcher::new(&store))
//!     .build()?;
//! for batch in loader {
//!     let batch = batch?; // batch.bytes(): 64 authenticated samples
//! #   drop(batch);
//! }
//! # Ok(())
//! # }
//! ```

mod batch;
mod collate;
mod dataset;
mod dtype;
pub mod export;
mod index;
mod loader;
mod order;
pub mod pack;
mod permutation;
mod pipeline;
mod pool;
mod schema;
mod selection;
mod state;

pub use batch::{Batch, FieldView};
pub use collate::{OnCorrupt, Overlong, Sequences};
pub use dataset::Dataset;
pub use dtype::Dtype;
pub use index::{RECORD_NAMES, ShardIndex, name_of};
pub use loader::{Loader, LoaderBuilder, Stage};
pub use order::Shuffle;
pub use permutation::Permutation;
pub use schema::{Field, Schema};
pub use state::LoaderState;
