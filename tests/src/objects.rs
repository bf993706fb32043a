//! What the writer that is killed and the test that kills it agree on.

use std::path::Path;
use std::time::Duration;

use tierstream_storage::testing::Random;
use tierstream_storage::tier::L2Config;
use tierstream_storage::{ObjectConfig, StoreConfig};

/// Threads that write at the same time, each its own objects.
pub const OBJECT_WRITERS: u64 = 2;
/// Objects of each writer.
pub const OBJECT_NAMES: u64 = 6;

/// The settings that both open their stores with: small blocks, and so little room on L2 that it is full now and then.
#[must_use]
pub fn object_store(l2: &Path, l3: &Path) -> StoreConfig {
    let objects =
        ObjectConfig { put_patience: Duration::from_secs(60), ..ObjectConfig::new(l3.to_owned(), 2 << 20) };
    StoreConfig {
        l1_bytes: 2 << 20,
        block_bytes: 16 << 10,
        l2: vec![L2Config { path: l2.to_owned(), bytes: 8 << 20 }],
        objects: Some(objects),
        codec_threads: 1,
        ..StoreConfig::default()
    }
}

/// What change `counter` of run `run` puts: 16 bytes that say so, then up to 300 KB that follow from them.
#[must_use]
pub fn contents(run: u64, counter: u64) -> Vec<u8> {
    let mut random = Random::new(run << 32 | counter);
    // Small ones often, large ones now and then.
    let most = 1 << random.below(19);
    let mut bytes = vec![0; 16 + usize::try_from(random.below(most)).expect("less than 300 KB")];
    random.fill(&mut bytes);
    bytes[..8].copy_from_slice(&run.to_le_bytes());
    bytes[8..16].copy_from_slice(&counter.to_le_bytes());
    bytes
}
