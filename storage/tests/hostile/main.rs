//! Files as an attacker makes them, on disk and opened through the store: cut, reordered, spliced, rolled back by one
//! without the key; malformed in every field by one who has it. Nothing panics, nothing takes memory that the file does
//! not justify, and what opens is what was written.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod allocations;
mod attacks;
mod blocks;
mod forge;
mod headers;
mod indexes;
mod manifests;
