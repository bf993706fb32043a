//! How objects are kept, and what a writer may choose.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tierstream_crypto::Cipher;

use crate::home::ShardHome;

/// Who moves dirty objects to L3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainMode {
    /// A thread of the store.
    Background,
    /// Whoever calls [`Store::drain_one`](crate::Store::drain_one): simulations and tests.
    Manual,
}

/// Settings for the objects of a store.
#[derive(Clone, Debug)]
pub struct ObjectConfig {
    /// An existing directory on L3; objects live in its subdirectory `objects`.
    pub l3: PathBuf,
    /// Another home for them than that directory: an object store, say. The catalog is then kept on L2, which there must
    /// be.
    pub home: Option<Arc<dyn ShardHome>>,
    /// What objects may use of L2, besides its blocks: at most this much is dirty.
    pub l2_bytes: u64,
    /// How they are sealed.
    pub cipher: Cipher,
    /// Whether their blocks are compressed first.
    pub compressed: bool,
    /// How long a put waits for the drain when L2 is full of dirty objects.
    pub put_patience: Duration,
    /// Who drains.
    pub drain: DrainMode,
}

impl ObjectConfig {
    /// Objects that live in `l3`, with `l2_bytes` of L2.
    #[must_use]
    pub fn new(l3: PathBuf, l2_bytes: u64) -> Self {
        Self {
            l3,
            home: None,
            l2_bytes,
            cipher: Cipher::Sm4Gcm,
            compressed: false,
            // An HDD writes 5 GB in it: a writer that waits longer is better told.
            put_patience: Duration::from_secs(30),
            drain: DrainMode::Background,
        }
    }
}

/// What a put may choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Kept with the object, sealed: words of its owner.
    pub metadata: BTreeMap<String, String>,
    /// Write to L3 at once, past L2.
    pub write_through: bool,
}
