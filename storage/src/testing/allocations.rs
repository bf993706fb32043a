#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one counts and hands on")]
//! An allocator that counts, for tests of what is allocated where nothing should be, and of how much memory things take.
//! A test program makes it its global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    // Without a destructor, so that it can be used while a thread ends.
    static OF_THIS_THREAD: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator with counts.
#[derive(Debug)]
pub struct Allocations {
    live_bytes: AtomicUsize,
    largest: AtomicUsize,
}

impl Allocations {
    /// An allocator that has given nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made once, in a static")]
    pub const fn new() -> Self {
        Self { live_bytes: AtomicUsize::new(0), largest: AtomicUsize::new(0) }
    }

    /// Bytes given and not taken back.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::SeqCst)
    }

    /// The most that was asked for at once, in bytes.
    pub fn largest(&self) -> usize {
        self.largest.load(Ordering::SeqCst)
    }

    /// How often this thread has asked for memory.
    pub fn of_this_thread(&self) -> usize {
        OF_THIS_THREAD.with(Cell::get)
    }

    fn count(&self, bytes: usize) {
        self.live_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.largest.fetch_max(bytes, Ordering::SeqCst);
        OF_THIS_THREAD.with(|count| count.set(count.get() + 1));
    }
}

// SAFETY: every call is handed on to the system's allocator with the caller's own arguments, whose promises are its.
unsafe impl GlobalAlloc for Allocations {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: the caller's promises for `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: the caller's promises for `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.live_bytes.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises for `dealloc`: it came from this allocator, which took it from the system.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count(new_size);
        self.live_bytes.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises for `realloc`.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}
