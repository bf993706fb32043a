#![expect(unsafe_code, reason = "slots are disjoint parts of one mapping, each with one owner")]
//! One region of memory cut into slots of equal size, with a bounded wait for a free one.
//!
//! Which slots are free is a bit each: adjacent ones are taken as one by a single exchange, for a read that is longer
//! than a slot and is cut up when it is complete. The mutex is touched only by those who must wait.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{HostAllocator, HostMemory, PageKind};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Monitor;
use crate::units::ALIGN_BYTES;

/// Slots whose bits share a word: adjacent ones are taken together within one.
const WORD_SLOTS: usize = 64;

/// A fixed number of equal slots of page-aligned memory.
pub struct Arena {
    name: &'static str,
    base: NonNull<u8>,
    slot_bytes: usize,
    slots: usize,
    // A bit for each slot: set when nobody owns it.
    free: Box<[AtomicU64]>,
    // Parts that the slots taken from here on were cut into and that are still owned.
    parts: Box<[AtomicU32]>,
    waiters: AtomicUsize,
    returned: Monitor<()>,
    // Owns what `base` points to.
    memory: HostMemory,
}

// SAFETY: `base` points into `memory`, which the arena owns and never touches itself; all access goes through slots,
// and each slot's bit is either set in `free` or its bytes are of one `Slot`, or of several that share none.
unsafe impl Send for Arena {}
// SAFETY: as above; the free list and the counters are made for sharing.
unsafe impl Sync for Arena {}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Arena({}: {} of {} x {} bytes free)",
            self.name,
            self.free_slots(),
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
        let bits = |word: usize| mask(0, (slots - word * WORD_SLOTS).min(WORD_SLOTS));
        let free = (0..slots.div_ceil(WORD_SLOTS)).map(|word| AtomicU64::new(bits(word))).collect();
        let parts = (0..slots).map(|_| AtomicU32::new(0)).collect();
        Ok(Arc::new(Self {
            name,
            base,
            slot_bytes,
            slots,
            free,
            parts,
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
        self.free.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
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
        self.try_take_run(1, reserve)
    }

    /// `count` adjacent slots as one, if there are such and more than `reserve` stay free.
    #[must_use]
    pub fn try_take_run(self: &Arc<Self>, count: usize, reserve: usize) -> Option<Slot> {
        if count == 0 || count > WORD_SLOTS || (reserve > 0 && self.free_slots() < count + reserve) {
            return None;
        }
        // The lowest first: what was used last is in the processor's caches.
        for (word, bits) in self.free.iter().enumerate() {
            let mut seen = bits.load(Ordering::Relaxed);
            while let Some(first) = first_run(seen, count) {
                // Acquire: who owned the slots before has done with their bytes.
                match bits.compare_exchange_weak(
                    seen,
                    seen & !mask(first, count),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return Some(self.own(word * WORD_SLOTS + first, count)),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    fn own(self: &Arc<Self>, first: usize, count: usize) -> Slot {
        self.parts[first].store(1, Ordering::Relaxed);
        let len = count * self.slot_bytes;
        Slot { arena: Arc::clone(self), first, count, start: first * self.slot_bytes, len }
    }

    /// Takes back slots whose last part was dropped.
    fn give_back(&self, first: usize, count: usize) {
        // Sequentially consistent: either a waiter's look at the bits sees these, or the waiter is seen here.
        self.free[first / WORD_SLOTS].fetch_or(mask(first % WORD_SLOTS, count), Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this notification after a waiter's last look at the free slots.
            drop(self.returned.lock());
            self.returned.notify_one();
        }
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

/// `count` bits from bit `first` on.
fn mask(first: usize, count: usize) -> u64 {
    let low = if count == WORD_SLOTS { u64::MAX } else { (1 << count) - 1 };
    low << first
}

/// Where the first run of `count` set bits begins.
fn first_run(bits: u64, count: usize) -> Option<usize> {
    let (mut starts, mut length) = (bits, 1);
    // Bit `i` of `starts` says that `length` bits from `i` on are set.
    while length < count {
        let step = length.min(count - length);
        starts &= starts >> step;
        length += step;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

/// One slot of an [`Arena`], or several adjacent ones as one, or a part of these: owned. Returns to the arena on drop,
/// together with the last of the parts it was cut into; its bytes are not wiped.
pub struct Slot {
    arena: Arc<Arena>,
    // What was taken from the arena.
    first: usize,
    count: usize,
    // Which bytes of the arena's memory are this one's.
    start: usize,
    len: usize,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({} {}, {} bytes)", self.arena.name, self.first, self.len)
    }
}

impl Slot {
    /// The arena it belongs to.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Which of the arena's slots its bytes lie in.
    #[must_use]
    pub fn slots(&self) -> std::ops::Range<usize> {
        self.start / self.arena.slot_bytes..(self.start + self.len).div_ceil(self.arena.slot_bytes)
    }

    /// Cuts off the first `len` bytes as a slot of their own.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn cut(&mut self, len: usize) -> Self {
        assert!(len <= self.len, "{len} of {} bytes", self.len);
        self.arena.parts[self.first].fetch_add(1, Ordering::Relaxed);
        let front = Self { arena: Arc::clone(&self.arena), len, ..*self };
        self.start += len;
        self.len -= len;
        front
    }

    /// Takes the bytes of `next` behind its own, where they lie there and both were cut from one, or gives it back.
    #[must_use]
    pub fn join(&mut self, next: Self) -> Option<Self> {
        let (same, adjoins) = (Arc::ptr_eq(&self.arena, &next.arena), self.start + self.len == next.start);
        if !same || self.first != next.first || !adjoins {
            return Some(next);
        }
        self.len += next.len;
        // Dropped, it leaves its count: this one's remains.
        None
    }

    /// Where its bytes start. The pointer is good for as many as the slot has, while it is owned.
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: the slot's bytes, `start` and `len` more, are inside the mapping `base` points to.
        unsafe { self.arena.base.add(self.start) }
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pointer is valid for `len` initialised bytes (the mapping is zeroed) as long as the arena lives,
        // which this slot ensures; nobody else has these bytes, so no one writes while the borrow lasts.
        unsafe { std::slice::from_raw_parts(self.as_ptr().as_ptr(), self.len) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.len) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // AcqRel: each part's owner has done with its bytes before the last one gives all of them back.
        if self.arena.parts[self.first].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.arena.give_back(self.first, self.count);
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
    fn adjacent_slots_are_one_and_its_parts_come_back_together() {
        let arena = arena(70);
        let single = arena.try_take(0).unwrap();
        let mut run = arena.try_take_run(4, 0).unwrap();
        assert_eq!((run.slots(), run.len(), arena.free_slots()), (1..5, 4 * 4096, 65));
        assert!(arena.try_take_run(6, 60).is_none(), "a reserve of 60 is kept");
        assert!(arena.try_take_run(60, 0).is_none(), "59 and 6 are left, in two words");
        assert_eq!(arena.try_take_run(59, 0).unwrap().slots(), 5..64);
        run.fill(9);
        let mut front = run.cut(4096 + 512);
        front.fill(1);
        let middle = run.cut(0);
        assert_eq!((front.slots(), run.slots(), middle.len()), (1..3, 2..5, 0));
        assert!(front.iter().all(|byte| *byte == 1) && run.iter().all(|byte| *byte == 9));
        let mut back = run.cut(4096);
        let rest = run;
        drop(back.join(front).expect("what lies before does not join"));
        drop(middle);
        assert!(back.join(rest).is_none());
        assert_eq!((back.len(), arena.free_slots()), (4 * 4096 - 4096 - 512, 65));
        let run = back;
        drop(run);
        assert_eq!(arena.free_slots(), 69);
        drop(single);
        assert_eq!(arena.try_take_run(64, 0).unwrap().slots(), 0..64);
    }

    #[test]
    fn runs_are_found_where_bits_are() {
        for (bits, count, expected) in [
            (0b1011_0111, 1, Some(0)),
            (0b1011_0111, 3, Some(0)),
            (0b1111_0110, 4, Some(4)),
            (0b0111_0110, 4, None),
            (u64::MAX, 64, Some(0)),
            (u64::MAX << 1, 64, None),
            (u64::MAX << 1, 63, Some(1)),
            (0, 1, None),
        ] {
            assert_eq!(first_run(bits, count), expected, "{count} of {bits:b}");
        }
    }

    #[test]
    fn threads_never_share_a_byte() {
        let arena = arena(12);
        std::thread::scope(|scope| {
            for id in 1..5_u8 {
                let arena = &arena;
                scope.spawn(move || {
                    for round in 0..4000_usize {
                        let Some(mut run) = arena.try_take_run(1 + round % 5, 0) else { continue };
                        let mut front = run.cut(1000);
                        front.fill(id);
                        run.fill(id);
                        let (first, second) = if round % 2 == 0 { (front, run) } else { (run, front) };
                        assert!(first.iter().all(|byte| *byte == id));
                        drop(first);
                        assert!(second.iter().all(|byte| *byte == id));
                    }
                });
            }
        });
        assert_eq!(arena.free_slots(), 12);
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
