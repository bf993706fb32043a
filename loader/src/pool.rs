//! Buffers of batches: given out, taken back, so that a running loader maps no memory.

use std::sync::{Arc, Mutex, PoisonError};

use tierstream_storage::Result;
use tierstream_storage::buf::{HostAllocator, HostMemory};

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

    pub(crate) fn take(&self, bytes: usize) -> Result<HostMemory> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one that came back is the likeliest to be in the processor's cache.
        if let Some(index) = free.iter().rposition(|memory| memory.as_slice().len() >= bytes) {
            return Ok(free.swap_remove(index));
        }
        // The one that this batch outgrew makes room for a longer one.
        let outgrown = free.pop();
        drop(free);
        drop(outgrown);
        // Ragged batches vary in length: rounded up, a buffer serves the next one too.
        self.allocator.allocate(bytes.max(1).next_power_of_two())
    }

    pub(crate) fn put(&self, memory: HostMemory) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.keep {
            free.push(memory);
        }
    }
}
