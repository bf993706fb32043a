//! For tests of this crate and of those above it: conformance suites that every implementation of a trait must pass,
//! and an engine that injects faults by seed.
//!
//! Behind the feature `testing`; never in a shipped binary.

mod allocations;
mod bucket;
pub mod conformance;
mod faults;
mod image;
mod random;
mod say;
pub mod sim;

pub use allocations::Allocations;
pub use bucket::Bucket;
pub use faults::{Deaths, FaultEngine, FaultPlan};
pub use image::{ImageBlock, SealedImage};
pub use random::Random;
pub use say::{announce_seed, skip, tell};
