//! A batch: samples side by side in one aligned buffer, and the pool that buffers come from and return to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tierstream_storage::Result;
use tierstream_storage::buf::{HostAllocator, HostMemory};

use crate::schema::Schema;

/// Gives out buffers and takes them back, so that a running loader allocates nothing.
#[derive(Debug)]
pub(crate) struct BufferPool {
    allocator: Arc<dyn HostAllocator>,
    free: Mutex<Vec<HostMemory>>,
    keep: usize,
}

impl BufferPool {
    /// A pool that keeps up to `keep` buffers of memory of `allocator` for later.
    pub(crate) fn new(allocator: Arc<dyn HostAllocator>, keep: usize) -> Arc<Self> {
        Arc::new(Self { allocator, free: Mutex::default(), keep })
    }

    fn take(&self, bytes: usize) -> Result<HostMemory> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = free.iter().position(|memory| memory.as_slice().len() >= bytes) {
            return Ok(free.swap_remove(index));
        }
        drop(free);
        // Ragged batches vary in length: rounded up, a buffer serves the next one too.
        self.allocator.allocate(bytes.max(1).next_power_of_two())
    }

    fn put(&self, memory: HostMemory) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.keep {
            free.push(memory);
        }
    }
}

/// Samples side by side. Its buffer goes back to the loader when it is dropped.
pub struct Batch {
    pool: Arc<BufferPool>,
    // None only while dropping.
    memory: Option<HostMemory>,
    bytes: usize,
    schema: Schema,
    offsets: Vec<u64>,
    sample_ids: Vec<u64>,
    epoch: u64,
    number: u64,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are somebody's plaintext.
        write!(
            f,
            "Batch({} of epoch {}: {} samples, {} bytes)",
            self.number,
            self.epoch,
            self.len(),
            self.bytes
        )
    }
}

impl Batch {
    /// A batch with room for samples of the given `lens` in bytes, to be filled by [`Batch::parts`].
    pub(crate) fn with_room(
        pool: &Arc<BufferPool>,
        schema: &Schema,
        sample_ids: Vec<u64>,
        lens: impl Iterator<Item = usize>,
        (epoch, number): (u64, u64),
    ) -> Result<Self> {
        let mut offsets = Vec::with_capacity(sample_ids.len() + 1);
        let mut end = 0;
        offsets.push(0);
        for len in lens {
            end += len;
            offsets.push(tierstream_storage::units::to_u64(end));
        }
        let memory = Some(pool.take(end)?);
        let (pool, schema) = (Arc::clone(pool), schema.clone());
        Ok(Self { pool, memory, bytes: end, schema, offsets, sample_ids, epoch, number })
    }

    /// The room of each sample, in order.
    pub(crate) fn parts(&mut self) -> Vec<&mut [u8]> {
        let memory = self.memory.as_mut().expect("present until drop");
        let mut rest = &mut memory.as_mut_slice()[..self.bytes];
        let mut parts = Vec::with_capacity(self.sample_ids.len());
        for pair in self.offsets.windows(2) {
            let (part, later) = rest.split_at_mut(tierstream_storage::units::to_usize(pair[1] - pair[0]));
            parts.push(part);
            rest = later;
        }
        parts
    }

    /// Samples in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sample_ids.len()
    }

    /// Never: a batch has at least one sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sample_ids.is_empty()
    }

    /// What each sample looks like.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// All samples, one after the other. With a fixed shape this is an array of shape `[len, ...shape]`; ragged samples
    /// are told apart by [`Batch::offsets`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory.as_ref().expect("present until drop").as_slice()[..self.bytes]
    }

    /// Where each sample begins in [`Batch::bytes`], and where the last one ends.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// The bytes of sample `index` of the batch.
    ///
    /// # Panics
    /// When there is no such sample.
    #[must_use]
    pub fn sample(&self, index: usize) -> &[u8] {
        let at = |index: usize| tierstream_storage::units::to_usize(self.offsets[index]);
        &self.bytes()[at(index)..at(index + 1)]
    }

    /// Numbers of the samples in the data set, in order.
    #[must_use]
    pub fn sample_ids(&self) -> &[u64] {
        &self.sample_ids
    }

    /// The epoch it belongs to, from 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its number in the epoch, from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.put(memory);
        }
    }
}
