//! Moves blocks up the tiers ahead of need.
//!
//! A job announces the order in which it will read ([`Plan`]); the [`Prefetcher`] keeps the next blocks of that order in
//! L1, as far ahead as its share of memory allows, and lets go of each after its last announced use. Seeded shuffles are
//! known in advance, so that this is exact: a job that keeps to its plan waits only when a device is slower than it is.
//!
//! Reads that nobody announces are learned: [`Prefetcher::predict`] watches what is read, and fetches what is likely to
//! follow, with a model that learns from what became of its candidates ([`learned`]).
//!
//! Guarantees: what is held ahead never exceeds the byte budget that all plans share; a read somebody waits for goes
//! before every announced one; dropping an [`Announcement`] ends its thread and lets go of all it held. A plan is advice:
//! nothing breaks, and no other byte is read, when a job departs from it.
//!
//! Deliberately knows no samples: a plan is an order of byte ranges.

mod budget;
pub mod learned;
mod plan;
mod prediction;
mod scheduler;
mod stats;
mod window;

pub use budget::{Budget, Permit};
pub use plan::{Plan, PlannedRead};
pub use prediction::Prediction;
pub use scheduler::{Announcement, Prefetcher};
pub use stats::PrefetchStats;
