//! Sealed data sets on three tiers: memory, NVMe, and the HDD or object store where they live.
//!
//! Bytes are sealed block by block (docs/specs/format.md), read through io_uring or threads, authenticated before
//! anyone sees them, and cached as plaintext in memory and as ciphertext on NVMe. A lost or damaged cache costs time,
//! never data.
//!
//! Knows payloads, blocks and byte ranges. Deliberately knows no samples, batches, epochs or GPUs: those belong to
//! `tierstream-loader` and above, which read through [`RangeSource`].
//!
//! ```
//! use std::sync::Arc;
//! use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
//! use tierstream_storage::{DataSetWriter, RangeRead, RangeSource, Store, StoreConfig, WriteContext};
//!
//! # let dir = tempfile::tempdir()?;
//! # let l3 = dir.path();
//! let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("example")?);
//! // Write a data set of one shard to L3. It appears under its name only when it is complete.
//! let context = WriteContext::new(&Default::default(), 64 << 10, 1)?;
//! let path = l3.join("letters");
//! let set = DataSetWriter::create(&context, keys.clone(), &path, false, Cipher::Sm4Gcm, true, 64 << 10, 1)?;
//! let mut shard = set.shard(0)?;
//! shard.write(b"abcdefghijklmnopqrstuvwxyz")?;
//! let shard = set.finish_shard(0, shard, 1, Vec::new())?;
//! set.publish(serde_json::json!({}), serde_json::Value::Null, vec![shard])?;
//!
//! // Read a range of it back, through memory.
//! let store = Store::open(StoreConfig::default(), keys)?;
//! let letters = store.open_data_set(path.to_str().expect("UTF-8"))?;
//! let mut to = [0; 3];
//! store.read(&letters, &mut [RangeRead { shard: 0, range: 23..26, to: &mut to }])?;
//! assert_eq!(&to, b"xyz");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod buf;
pub mod catalog;
pub mod clock;
pub mod codec;
pub mod device;
mod error;
pub mod format;
pub mod home;
pub mod host;
pub mod io;
pub mod keys;
pub mod metrics;
pub mod store;
pub mod tensor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tier;
pub mod units;

pub use error::{Error, ErrorKind, Place, Result};
pub use store::{
    DataSetInfo, DataSetWriter, Object, ObjectConfig, ObjectInfo, Payload, PutOptions, RangeRead,
    RangeSource, Section, ShardInfo, Store, StoreConfig, WriteContext,
};
