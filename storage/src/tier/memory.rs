//! L1: opened blocks in a fixed number of slots, with one load under way per block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Block, BlockKey, BlockRef, EvictionPolicy, Flight, Ticket};
use crate::buf::{Arena, Slot};
use crate::error::Error;

/// The memory tier.
#[derive(Debug)]
pub struct MemoryTier {
    arena: Arc<Arena>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: HashMap<BlockKey, Entry>,
    policy: Box<dyn EvictionPolicy>,
}

#[derive(Debug)]
enum Entry {
    Resident(BlockRef),
    Loading(Arc<Flight>),
}

/// What L1 says to somebody who wants to load a block.
#[derive(Debug)]
pub enum Lookup {
    /// It is here or on its way.
    Found(Ticket),
    /// The caller must load it into this slot and end the flight by [`MemoryTier::publish`] or [`MemoryTier::fail`].
    Load(Arc<Flight>, Slot),
    /// All slots hold blocks in use.
    Full,
}

impl MemoryTier {
    /// A tier of the slots of `arena`, under `policy`.
    #[must_use]
    pub fn new(arena: Arc<Arena>, policy: Box<dyn EvictionPolicy>) -> Self {
        let entries = HashMap::with_capacity(arena.slots());
        Self { arena, inner: Mutex::new(Inner { entries, policy }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many blocks fit.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.arena.slots()
    }

    /// Longest block that fits.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.arena.slot_bytes()
    }

    /// The block, if it is here or on its way.
    #[must_use]
    pub fn get(&self, key: BlockKey) -> Option<Ticket> {
        self.lock().ticket(key)
    }

    /// The block, or the duty to load it. Evicts to make room; never waits.
    #[must_use]
    pub fn get_or_load(&self, key: BlockKey) -> Lookup {
        let mut inner = self.lock();
        if let Some(ticket) = inner.ticket(key) {
            return Lookup::Found(ticket);
        }
        let slot = loop {
            if let Some(slot) = self.arena.try_take(0) {
                break slot;
            }
            // The evicted block's slot is back in the arena when this returns.
            if !inner.evict() {
                return Lookup::Full;
            }
        };
        let flight = Arc::new(Flight::default());
        inner.entries.insert(key, Entry::Loading(Arc::clone(&flight)));
        Lookup::Load(flight, slot)
    }

    /// Ends a load with the first `len` bytes of `slot`.
    pub fn publish(&self, key: BlockKey, flight: &Flight, slot: Slot, len: usize) {
        let block = Arc::new(Block::new(key, slot, len));
        let mut inner = self.lock();
        inner.entries.insert(key, Entry::Resident(Arc::clone(&block)));
        inner.policy.inserted(key);
        drop(inner);
        flight.end(Ok(block));
    }

    /// Ends a load with an error; the next one who asks loads again.
    pub fn fail(&self, key: BlockKey, flight: &Flight, error: Error) {
        self.lock().entries.remove(&key);
        flight.end(Err(error));
    }

    /// Blocks that are here.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.lock().entries.values().filter(|entry| matches!(entry, Entry::Resident(_))).count()
    }
}

impl Inner {
    fn ticket(&mut self, key: BlockKey) -> Option<Ticket> {
        match self.entries.get(&key)? {
            Entry::Resident(block) => {
                let block = Arc::clone(block);
                self.policy.touched(key);
                Some(Ticket::ready(key, block))
            }
            Entry::Loading(flight) => Some(Ticket::pending(key, Arc::clone(flight))),
        }
    }

    fn evict(&mut self) -> bool {
        let entries = &self.entries;
        // Only this map holds it: nobody can take another reference while the lock is held.
        let mut may_leave =
            |key| matches!(entries.get(&key), Some(Entry::Resident(block)) if Arc::strong_count(block) == 1);
        match self.policy.victim(&mut may_leave) {
            Some(victim) => self.entries.remove(&victim).is_some(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buf::HeapAllocator;
    use crate::error::ErrorKind;
    use crate::tier::{FileNo, S3Fifo};

    fn tier(slots: usize) -> MemoryTier {
        let arena = Arena::new("L1", 4096, slots, &HeapAllocator).unwrap();
        MemoryTier::new(arena, Box::new(S3Fifo::default()))
    }

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(0), block }
    }

    fn load(tier: &MemoryTier, block: u32) {
        let Lookup::Load(flight, mut slot) = tier.get_or_load(key(block)) else {
            panic!("{block} is not to be loaded")
        };
        slot[0] = u8::try_from(block).unwrap();
        tier.publish(key(block), &flight, slot, 1);
    }

    #[test]
    fn one_load_serves_all_who_wait() {
        let tier = tier(2);
        let Lookup::Load(flight, mut slot) = tier.get_or_load(key(7)) else { panic!("empty tier") };
        let Lookup::Found(second) = tier.get_or_load(key(7)) else { panic!("a second load") };
        assert!(second.try_get().is_none());
        assert_eq!(second.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Retry);
        slot[..2].copy_from_slice(b"hi");
        tier.publish(key(7), &flight, slot, 2);
        assert_eq!(&second.wait(Duration::ZERO).unwrap()[..], b"hi");
        assert_eq!(&tier.get(key(7)).unwrap().try_get().unwrap().unwrap()[..], b"hi");
    }

    #[test]
    fn a_failed_load_is_told_to_all_and_tried_again_by_the_next() {
        let tier = tier(2);
        let Lookup::Load(flight, slot) = tier.get_or_load(key(1)) else { panic!("empty tier") };
        let waiting = tier.get(key(1)).unwrap();
        drop(slot);
        tier.fail(key(1), &flight, Error::new(ErrorKind::Corrupt, "read", "bad"));
        assert_eq!(waiting.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(matches!(tier.get_or_load(key(1)), Lookup::Load(..)));
    }

    #[test]
    fn blocks_in_use_are_never_evicted() {
        let tier = tier(3);
        (0..3).for_each(|block| load(&tier, block));
        let held = tier.get(key(1)).unwrap().wait(Duration::ZERO).unwrap();
        (3..50).for_each(|block| load(&tier, block));
        assert_eq!(held[0], 1);
        assert_eq!(tier.resident(), 3);
        let all: Vec<Ticket> = (0..50).filter_map(|block| tier.get(key(block))).collect();
        assert_eq!(all.len(), 3);
        assert!(matches!(tier.get_or_load(key(99)), Lookup::Full));
        drop((all, held));
        load(&tier, 99);
    }
}
