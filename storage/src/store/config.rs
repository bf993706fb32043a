//! How a store is set up. Parsed once by the caller; nothing below reads the environment.

use std::sync::Arc;
use std::time::Duration;

use super::object::ObjectConfig;
use crate::catalog::CatalogKind;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::io::ServiceConfig;
use crate::tier::{L2Config, WriteRate};
use crate::units::{human_bytes, to_usize};

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Memory for opened blocks, in bytes.
    pub l1_bytes: u64,
    /// Keep L1 in memory that other processes can be given to read: [`Store::shared_l1`](super::Store::shared_l1).
    pub share_l1: bool,
    /// Stored length of the largest block of any data set to be opened, in bytes.
    pub block_bytes: u32,
    /// The devices of the NVMe tier, over which blocks are striped. The first is a directory, where the catalog is kept
    /// as well, and objects; without any all is read from L3.
    pub l2: Vec<L2Config>,
    /// How fast L2 may be written in all; what would be faster is not admitted.
    pub l2_write_rate: Option<WriteRate>,
    /// Objects that can be put and read; none for a store of data sets alone.
    pub objects: Option<ObjectConfig>,
    /// What remembers L2's contents.
    pub catalog: CatalogKind,
    /// I/O engine and depths.
    pub io: ServiceConfig,
    /// Threads that authenticate and open blocks.
    pub codec_threads: usize,
    /// How long a read waits for a block before it gives up.
    pub patience: Duration,
    /// Answer `tierstream status` at a socket in the first directory of L2.
    pub tells_status: bool,
    /// Accept a data set older than one this store has seen.
    pub allow_rollback: bool,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            l1_bytes: 256 << 20,
            share_l1: false,
            block_bytes: 64 << 10,
            l2: Vec::new(),
            l2_write_rate: None,
            objects: None,
            catalog: CatalogKind::Redb,
            io: ServiceConfig::default(),
            codec_threads: std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8)),
            // Disks retry internally for up to 30 s before they report an error; give them that and as much again.
            patience: Duration::from_secs(60),
            tells_status: false,
            allow_rollback: false,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// Fewer blocks than this in L1 and reads wait for each other.
const L1_BLOCKS_MIN: u64 = 16;

/// Buffers for reads of several blocks at once: four of 1 MiB, which keep a fast device busy.
const LONG_READS_BYTES: u32 = 8 << 20;

impl StoreConfig {
    /// Blocks that fit L1.
    ///
    /// # Errors
    /// `Misuse` when too few do.
    pub(super) fn l1_slots(&self) -> Result<usize> {
        let slots = self.l1_bytes / u64::from(self.block_bytes);
        if slots < L1_BLOCKS_MIN {
            let least = human_bytes(u64::from(self.block_bytes) * L1_BLOCKS_MIN);
            let why = format!(
                "L1 of {} holds {slots} blocks, expected {L1_BLOCKS_MIN}",
                human_bytes(self.l1_bytes)
            );
            return Err(
                Error::new(ErrorKind::Misuse, "open", why).hint(format!("use --l1-size {least} or more"))
            );
        }
        Ok(to_usize(slots))
    }

    /// Buffers for sealed bytes: one for each operation in flight, one for each thread that opens a block, and as many
    /// again that wait for their turn or are being written to L2; and those of long reads.
    pub(super) fn io_slots(&self) -> usize {
        let singles =
            2 * (self.io.fast_depth * self.l2.len().max(1) + self.io.slow_depth + self.codec_threads);
        singles + to_usize(u64::from(LONG_READS_BYTES / self.block_bytes))
    }

    /// The I/O service with a lane for each device of L2.
    pub(super) fn io_service(&self) -> ServiceConfig {
        let stripes = u8::try_from(self.l2.len().saturating_sub(1)).unwrap_or(u8::MAX);
        ServiceConfig { stripes, ..self.io.clone() }
    }
}
