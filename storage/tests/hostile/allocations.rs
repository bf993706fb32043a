//! Watches what the whole test program asks the allocator for, and bounds what it may map.

use std::sync::Once;

use tierstream_storage::testing::Allocations;

/// More than any part of the hostile files and their readers, far less than what their fields claim: each file has
/// less than 64 KiB, a store of these tests about a megabyte.
const LARGEST_ALLOWED: usize = 4 << 20;
/// Address space for the program: arenas and indexes are mappings, which the allocator does not see.
const ADDRESS_SPACE: u64 = 4 << 30;

#[global_allocator]
static ALLOCATOR: Allocations = Allocations::new();

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
    let largest = ALLOCATOR.largest();
    assert!(largest <= LARGEST_ALLOWED, "{what}: {largest} bytes were asked for at once");
}
