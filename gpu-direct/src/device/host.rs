//! The way of batches on machines without a GPU: they stay where the loader made them, and are converted here.

use std::sync::{Arc, Mutex, PoisonError};

use tierstream_loader::Loader;
use tierstream_storage::Result;
use tierstream_storage::buf::{HeapAllocator, HostAllocator, HostMemory};

use super::batch::{DeviceBatch, Identity, Place, exposed, places, room_for};
use crate::convert::Prepared;

/// Memory of converted fields that no batch uses.
type Pool = Arc<Mutex<Vec<HostMemory>>>;

/// Converted fields of one batch. Their memory goes back to the pool on drop.
pub(super) struct Converted {
    // None only while dropping.
    memory: Option<HostMemory>,
    address: u64,
    pool: Pool,
    keep: usize,
}

impl Converted {
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], HostMemory::as_slice)
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < self.keep {
            pool.extend(self.memory.take());
        }
    }
}

/// Batches of a loader, converted in host memory.
pub(super) struct HostPath {
    loader: Loader,
    conversions: Vec<Option<Prepared>>,
    pool: Pool,
    keep: usize,
}

impl HostPath {
    pub(super) fn new(loader: Loader, conversions: Vec<Option<Prepared>>, keep: usize) -> Self {
        Self { loader, conversions, pool: Pool::default(), keep }
    }

    pub(super) fn next(&mut self) -> Option<Result<DeviceBatch>> {
        let mut batch = match self.loader.next()? {
            Ok(batch) => Box::new(batch),
            Err(error) => return Some(Err(error)),
        };
        let (fields, bytes) = places(&batch, &self.conversions);
        let mut converted = None;
        if bytes > 0 {
            let mut memory = match self.memory(bytes) {
                Ok(memory) => memory,
                Err(error) => return Some(Err(error)),
            };
            for (place, conversion) in fields.iter().zip(&self.conversions) {
                if let Some(conversion) = conversion {
                    let from = &batch.buffer()[place.from.0..place.from.0 + place.from.1];
                    conversion.on_host(from, &mut memory.as_mut_slice()[place.at..place.at + place.bytes]);
                }
            }
            let address = exposed(memory.as_mut_slice().as_mut_ptr());
            converted = Some(Converted {
                memory: Some(memory),
                address,
                pool: Arc::clone(&self.pool),
                keep: self.keep,
            });
        }
        let identity = Identity::of(&batch, self.loader.state_dict());
        let base = exposed(batch.as_mut_ptr());
        Some(Ok(DeviceBatch::new(Place::Host { batch, base, converted }, fields, identity)))
    }

    fn memory(&self, bytes: usize) -> Result<HostMemory> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = pool.iter().position(|memory| memory.as_slice().len() >= bytes) {
            return Ok(pool.swap_remove(index));
        }
        drop(pool);
        HeapAllocator.allocate(room_for(bytes))
    }
}
