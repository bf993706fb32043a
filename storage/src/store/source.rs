//! Where readers get byte ranges from: a store in this process, or a daemon's client. The reader does not care.

use std::fmt;
use std::sync::Arc;

use super::{DataSetInfo, Section};
use crate::error::Result;
use crate::format::SectionType;
use crate::metrics::Snapshot;
use crate::units::ByteRange;

/// One range to read, and where to put it.
#[derive(Debug)]
pub struct RangeRead<'a> {
    /// Number of the shard in its data set.
    pub shard: usize,
    /// Bytes of the shard's payload.
    pub range: ByteRange,
    /// As long as the range.
    pub to: &'a mut [u8],
}

/// Gives authenticated byte ranges of data sets.
pub trait RangeSource: Send + Sync + fmt::Debug {
    /// Opens the data set at `location`: a directory, or what the source makes of the text.
    ///
    /// # Errors
    /// `Missing`, `Denied`, `Corrupt`, with the place.
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>>;

    /// A section of a shard's index, if it has one.
    ///
    /// # Errors
    /// As the device and the authentication say.
    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>>;

    /// Fills all `reads`, in whatever order is fastest. On error the destinations hold some of the data.
    ///
    /// # Errors
    /// The first that was met: `Misuse` for a range outside its shard, else as the device and the authentication say.
    fn read(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()>;

    /// What was counted so far.
    fn metrics(&self) -> Snapshot;
}
