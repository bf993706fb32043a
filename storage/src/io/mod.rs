//! How bytes move: one operation owns its file and buffer until it completes, whatever engine carries it out.
//!
//! [`IoEngine`] is the narrow waist: `psync` is the portable reference, `uring` the fast one; [`ladder`] chooses and
//! says why; [`IoService`] puts one engine on a thread of its own with queues by lane and priority, and turns short
//! reads and interruptions into whole transfers or errors. Knows nothing of blocks, tiers or ciphers.

mod config;
mod driver;
pub mod ladder;
mod mailbox;
mod mmap;
mod op;
mod psync;
mod queue;
mod service;
mod uring;

pub use config::{Lane, LaneLimits, MergeLimits, Priority, ServiceConfig};
pub use driver::IoDriver;
pub(crate) use driver::closed;
pub use ladder::{EngineChoice, EngineReport};
pub use op::{Completion, Done, Op, OpKind, Request};
pub use service::IoService;

pub use mmap::MmapEngine;
pub use psync::PsyncEngine;
pub use uring::UringEngine;

use std::fmt;
use std::sync::Arc;

use crate::error::Result;

/// Carries out operations. Not `Send`: an engine lives and dies on the thread that made it.
pub trait IoEngine: fmt::Debug {
    /// Takes an operation and owns it, its file and its buffer until it comes back from [`IoEngine::wait`]. Nothing is
    /// done yet, or everything: the caller cannot know.
    ///
    /// # Panics
    /// When [`IoEngine::room`] is zero: the caller bounds its depth.
    fn submit(&mut self, op: Op);

    /// How many more operations it takes now.
    fn room(&self) -> usize;

    /// Operations taken and not yet given back.
    fn in_flight(&self) -> usize;

    /// Starts what was submitted and waits until an operation completes or a [`Waker`] of this engine wakes it, then
    /// moves everything that completed to `completed`.
    ///
    /// # Errors
    /// When the engine itself is broken; operations keep their buffers and come back or are given up on drop.
    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()>;

    /// Wakes this engine from another thread.
    fn waker(&self) -> Arc<dyn Waker>;

    /// What it is, for `doctor` and reports.
    fn report(&self) -> EngineReport;
}

/// Ends the wait of an [`IoEngine`] from another thread.
pub trait Waker: Send + Sync + fmt::Debug {
    /// Makes the current wait, or the next one, return soon.
    fn wake(&self);
}

#[cfg(test)]
mod tests;
