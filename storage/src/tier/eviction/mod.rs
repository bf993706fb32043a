//! Who leaves a full L1. One trait, so that policies can be compared and chosen.
//!
//! A hit takes no lock: it raises a small count beside the frame, and a policy looks at these counts when it has to
//! choose; of hits themselves it is told later, in batches. So a policy speaks of frames by number, and keeps fixed
//! tables: nothing is allocated after the start.

mod auto;
mod ghosts;
mod lirs;
mod list;
mod lru;
mod pin;
mod s3fifo;
mod shadow;

#[cfg(test)]
mod tests;

use std::fmt;

use super::BlockKey;

pub use auto::Auto;
pub use lirs::Lirs;
pub use lru::Lru;
pub use pin::Pin;
pub use s3fifo::S3Fifo;

/// What a policy may ask of the frames, and do to them.
pub trait Residents {
    /// Reads of the frame's block since the count was last set, at most 3.
    fn reads(&self, frame: u32) -> u8;

    /// Sets the count.
    fn set_reads(&mut self, frame: u32, reads: u8);

    /// The block in the frame.
    fn key(&self, frame: u32) -> BlockKey;

    /// Takes the block out of the frame, unless somebody has a view of it.
    fn take_out(&mut self, frame: u32) -> bool;
}

/// Decides who leaves. Told of every block that comes in; asked for a victim when room is needed.
pub trait EvictionPolicy: Send + fmt::Debug {
    /// Block `key` came into `frame`; its count of reads is zero.
    fn inserted(&mut self, frame: u32, key: BlockKey);

    /// As [`EvictionPolicy::inserted`], for a block that was here already and comes from another policy, those that this
    /// one would let go first coming first.
    fn adopted(&mut self, frame: u32, key: BlockKey) {
        self.inserted(frame, key);
    }

    /// A block that is here was read. Told late, in batches, and not of every read: a policy that needs to know each one
    /// is only approximated.
    fn hit(&mut self, _frame: u32) {}

    /// Chooses a block that can be taken out, takes it out and forgets its frame; returns that.
    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32>;
}

/// The policies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionMode {
    /// The block that was not read for longest leaves.
    Lru,
    /// Newcomers pass a small queue first: scans do not push out what is read again.
    S3Fifo,
    /// As [`EvictionMode::S3Fifo`], for blocks that were read twice there.
    S3FifoTwice,
    /// By the distance between a block's last two reads: for loops larger than memory.
    Lirs,
    /// What came first stays: for uniform passes over more than memory.
    Pin,
}

impl EvictionMode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Lru, Self::S3Fifo, Self::S3FifoTwice, Self::Lirs, Self::Pin];

    /// Its name in metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::S3Fifo => "s3fifo",
            Self::S3FifoTwice => "s3fifo2",
            Self::Lirs => "lirs",
            Self::Pin => "pin",
        }
    }

    /// A policy of this mode for frames `0..frames`.
    #[must_use]
    pub fn policy(self, frames: usize) -> Box<dyn EvictionPolicy> {
        match self {
            Self::Lru => Box::new(Lru::new(frames)),
            Self::S3Fifo => Box::new(S3Fifo::new(frames)),
            Self::S3FifoTwice => Box::new(S3Fifo::promoting_at(frames, 2)),
            Self::Lirs => Box::new(Lirs::new(frames)),
            Self::Pin => Box::new(Pin::new(frames)),
        }
    }
}
