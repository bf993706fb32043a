#![expect(unsafe_code, reason = "slots are disjoint parts of one mapping, each with one owner")]
//! One region of memory cut into slots of equal size, with a bounded wait for a free one.
//!
//! The free list is lock-free; the mutex is touched only by those who must wait.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::{HostAllocator, HostMemory, PageKind};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Monitor;
use crate::units::ALIGN_BYTES;

/// A fixed number of equal slots of page-aligned memory.
pub struct Arena {
    name: &'static str,
    base: NonNull<u8>,
    slot_bytes: usize,
    slots: usize,
    free: ArrayQueue<usize>,
    waiters: AtomicUsize,
    returned: Monitor<()>,
    // Owns what `base` points to.
    memory: HostMemory,
}

// SAFETY: `base` points into `memory`, which the arena owns and never touches itself; all access goes through slots,
// and each slot index is either in `free` or in exactly one `Slot`.
unsafe impl Send for Arena {}
// SAFETY: as above; the free list and the counters are made for sharing.
unsafe impl Sync for Arena {}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Arena({}: {} of {} x {} bytes free)",
            self.name,
            self.free.len(),
            self.slots,
            self.slot_bytes
        )
    }
}

impl Arena {
    /// Cuts `slots` slots of `slot_bytes` from memory of `allocator`. `name` appears in errors.
    ///
    /// # Errors
    /// `Full` without memory.
    ///
    /// # Panics
    /// When there are no slots, or `slot_bytes` is not a positive multiple of [`ALIGN_BYTES`].
    pub fn new(
        name: &'static str,
        slot_bytes: usize,
        slots: usize,
        allocator: &dyn HostAllocator,
    ) -> Result<Arc<Self>> {
        assert!(
            slots > 0 && slot_bytes > 0 && slot_bytes.is_multiple_of(ALIGN_BYTES),
            "{slots} x {slot_bytes}"
        );
        let bytes = slot_bytes.checked_mul(slots).ok_or_else(|| {
            Error::new(
                ErrorKind::Misuse,
                "allocate",
                format!("{slots} x {slot_bytes} bytes is beyond memory"),
            )
        })?;
        let mut memory = allocator.allocate(bytes)?;
        let base = NonNull::from(memory.as_mut_slice()).cast::<u8>();
        let free = ArrayQueue::new(slots);
        for index in 0..slots {
            free.push(index).expect("the free list holds every slot");
        }
        Ok(Arc::new(Self {
            name,
            base,
            slot_bytes,
            slots,
            free,
            waiters: AtomicUsize::new(0),
            returned: Monitor::new(()),
            memory,
        }))
    }

    /// Bytes of each slot.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Slots that nobody owns at this moment.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.free.len()
    }

    /// What its pages are.
    #[must_use]
    pub fn pages(&self) -> PageKind {
        self.memory.pages()
    }

    /// The sealed file behind it, for another process to map read only; none for memory of this process alone.
    #[must_use]
    pub fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        self.memory.shared_file()
    }

    /// Where the region starts and how long it is, for engines that register it.
    pub(crate) fn region(&self) -> (NonNull<u8>, usize) {
        (self.base, self.slot_bytes * self.slots)
    }

    /// A free slot, if more than `reserve` are free: the reserve is for those who cannot do without.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, reserve: usize) -> Option<Slot> {
        if reserve > 0 && self.free.len() <= reserve {
            return None;
        }
        let index = self.free.pop()?;
        Some(Slot { arena: Arc::clone(self), index })
    }

    /// A free slot, waiting up to `patience` for one.
    ///
    /// # Errors
    /// `Full` when none came back in time.
    pub fn take(self: &Arc<Self>, patience: Duration) -> Result<Slot> {
        if let Some(slot) = self.try_take(0) {
            return Ok(slot);
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut taken = None;
        drop(self.returned.wait_while(Some(patience), |()| {
            taken = self.try_take(0);
            taken.is_none()
        }));
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        taken.ok_or_else(|| {
            Error::new(
                ErrorKind::Full,
                "allocate",
                format!("none of {} slots of the {} arena came free in {patience:?}", self.slots, self.name),
            )
        })
    }
}

/// One slot of an [`Arena`], owned. Returns to the arena on drop; its bytes are not wiped.
pub struct Slot {
    arena: Arc<Arena>,
    index: usize,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({} {})", self.arena.name, self.index)
    }
}

impl Slot {
    /// The arena it belongs to.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Which of the arena's slots it is: it starts at `index * slot_bytes` of the arena's memory.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where its bytes start. The pointer is good for [`Arena::slot_bytes`] bytes while the slot is owned.
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: `index < slots`, so that the offset is inside the mapping `base` points to.
        unsafe { self.arena.base.add(self.index * self.arena.slot_bytes) }
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pointer is valid for `slot_bytes` initialised bytes (the mapping is zeroed) as long as the arena
        // lives, which this slot ensures; nobody else has this index, so no one writes while the borrow lasts.
        unsafe { std::slice::from_raw_parts(self.as_ptr().as_ptr(), self.arena.slot_bytes) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.arena.slot_bytes) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.arena.free.push(self.index).expect("the free list holds every slot");
        if self.arena.waiters.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this notification after a waiter's last look at the free list.
            drop(self.arena.returned.lock());
            self.arena.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapAllocator;

    fn arena(slots: usize) -> Arc<Arena> {
        Arena::new("test", 4096, slots, &HeapAllocator).unwrap()
    }

    #[test]
    fn slots_are_disjoint_aligned_and_come_back() {
        let arena = arena(3);
        let mut slots: Vec<Slot> = (0..3).map(|_| arena.try_take(0).unwrap()).collect();
        assert!(arena.try_take(0).is_none());
        for (slot, value) in slots.iter_mut().zip(1..) {
            assert_eq!(slot.as_ptr().as_ptr().addr() % ALIGN_BYTES, 0);
            slot.fill(value);
        }
        for (slot, value) in slots.iter().zip(1..) {
            assert!(slot.iter().all(|byte| *byte == value));
        }
        slots.pop();
        assert!(arena.try_take(1).is_none(), "the reserve of one is kept");
        assert!(arena.try_take(0).is_some());
    }

    #[test]
    fn a_waiter_gets_the_slot_that_comes_back_or_an_error() {
        let arena = arena(1);
        let slot = arena.take(Duration::ZERO).unwrap();
        let error = arena.take(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                barrier.wait();
                arena.take(Duration::from_secs(60)).map(drop)
            });
            barrier.wait();
            drop(slot);
            waiter.join().unwrap().unwrap();
        });
        assert_eq!(arena.free_slots(), 1);
    }
}
