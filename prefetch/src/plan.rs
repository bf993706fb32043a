//! An announced order of reads.

use tierstream_storage::units::ByteRange;

/// One read of a plan: the sample of a shuffle, say, without saying so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRead {
    /// Number of the shard in its data set.
    pub shard: usize,
    /// Bytes of the shard's payload.
    pub range: ByteRange,
}

/// The reads of a job in the order in which it will make them, expanded as they are needed: a shuffle of a billion
/// samples is a few integers until its next element is asked for.
pub type Plan = Box<dyn Iterator<Item = PlannedRead> + Send>;
