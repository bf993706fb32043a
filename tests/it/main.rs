//! The stack as its users meet it, in one binary.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod bad_input;
mod bench;
mod commands;
mod keys;
mod layering;
mod objects;
mod tidy;
mod tiers;
