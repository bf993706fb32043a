#![expect(unsafe_code, reason = "a global allocator that remembers the largest request")]
//! Watches what the whole test program asks the allocator for, and bounds what it may map.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest request so far, in bytes.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// More than any part of the hostile files and their readers, far less than what their fields claim: each file has
/// less than 64 KiB, a store of these tests about a megabyte.
const LARGEST_ALLOWED: usize = 4 << 20;
/// Address space for the program: arenas and indexes are mappings, which the allocator does not see.
const ADDRESS_SPACE: u64 = 4 << 30;

struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: hands every call on to the system's allocator, whose contract it is; the counter beside it allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` through this allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LARGEST.fetch_max(new_size, Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` through this allocator, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Forbids the program to map more than it needs; a reader that tries gets an error, which the tests do not accept.
pub(crate) fn bound() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
        setrlimit(Resource::As, limit).unwrap();
    });
}

/// Fails when anything so far asked for more than a hostile file justifies.
pub(crate) fn check(what: &str) {
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= LARGEST_ALLOWED, "{what}: {largest} bytes were asked for at once");
}
