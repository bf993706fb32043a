//! What a client holds of L1: a table of leases for each client, and a budget that all of them share.
//!
//! A lease is a reader of a frame. It ends when the client says so, by slot and generation, or when the connection ends:
//! the table is dropped, and with it every reader it counted. Who holds more than a fair share of half of L1 gets no more;
//! all clients together leave a quarter of L1 to reads that copy, so that hoarding never stops others.

use std::sync::atomic::{AtomicUsize, Ordering};

use tierstream_storage::tier::BlockRef;

use super::ring::{LeaseId, Violation};

/// A client gets this many whatever the others hold, while the budget lasts: fewer and it could not work at all.
const QUOTA_MIN: usize = 4;

/// What all clients hold.
#[derive(Debug)]
pub(crate) struct LeaseBudget {
    frames: usize,
    held: AtomicUsize,
    // The sum of the weights of those who share.
    weights: AtomicUsize,
}

impl LeaseBudget {
    /// A budget of the `frames` of L1.
    pub(crate) fn new(frames: usize) -> Self {
        Self { frames, held: AtomicUsize::new(0), weights: AtomicUsize::new(0) }
    }

    /// Leases held by all clients now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let most = self.frames - self.frames / 4;
        let taken = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        taken.is_ok()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    block: Option<BlockRef>,
}

/// The leases of one client.
#[derive(Debug)]
pub(crate) struct Leases<'a> {
    budget: &'a LeaseBudget,
    weight: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl<'a> Leases<'a> {
    /// An empty table for a client that counts `weight` times.
    pub(crate) fn new(budget: &'a LeaseBudget, weight: usize) -> Self {
        budget.weights.fetch_add(weight, Ordering::Relaxed);
        Self { budget, weight, slots: Vec::new(), free: Vec::new() }
    }

    /// Leases that the client may hold now: its share of half of L1.
    pub(crate) fn quota(&self) -> usize {
        let weights = self.budget.weights.load(Ordering::Relaxed).max(self.weight).max(1);
        (self.budget.frames / 2 * self.weight / weights).max(QUOTA_MIN)
    }

    /// Leases that the client holds.
    pub(crate) fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps `block` for the client, if its quota allows.
    pub(crate) fn grant(&mut self, block: BlockRef) -> Option<LeaseId> {
        if self.held() >= self.quota() || !self.budget.take() {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let entry = self.slots.get_mut(usize::try_from(slot).ok()?)?;
        entry.block = Some(block);
        Some(LeaseId { slot, generation: entry.generation })
    }

    /// Ends a lease.
    pub(crate) fn release(&mut self, lease: LeaseId) -> Result<(), Violation> {
        let slot = usize::try_from(lease.slot).ok().and_then(|slot| self.slots.get_mut(slot));
        let held = slot.filter(|slot| slot.generation == lease.generation && slot.block.is_some());
        let held = held.ok_or(Violation("the end of a lease that is not held"))?;
        held.block = None;
        held.generation = held.generation.wrapping_add(1);
        self.free.push(lease.slot);
        self.budget.held.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Leases<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held(), Ordering::Relaxed);
        self.budget.weights.fetch_sub(self.weight, Ordering::Relaxed);
    }
}
