//! A data set as samples: number to byte range.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tierstream_prefetch::PlannedRead;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::index::ShardIndex;
use crate::schema::Schema;

/// A packed data set, open for reading samples. Cheap to clone.
#[derive(Clone)]
pub struct Dataset(Arc<Inner>);

struct Inner {
    source: Arc<dyn RangeSource>,
    info: Arc<DataSetInfo>,
    schema: Schema,
    // Number of the first sample of each shard.
    first: Vec<u64>,
    // Read when a shard is first needed.
    indexes: Vec<Mutex<Option<Arc<ShardIndex>>>>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.0.info;
        write!(f, "Dataset(`{}`, {} samples, {} shards)", info.name, info.records, info.shards.len())
    }
}

impl Dataset {
    /// Opens the data set at `location` of `source`: for a store in this process, the directory that `pack` wrote.
    ///
    /// # Errors
    /// As [`RangeSource::open_data_set`]; `Corrupt` or `Unsupported` for its schema.
    pub fn open(source: Arc<dyn RangeSource>, location: &str) -> Result<Self> {
        let info = source.open_data_set(location)?;
        let schema = Schema::from_json(&info.schema)?;
        let first = info
            .shards
            .iter()
            .scan(0_u64, |next, shard| {
                let first = *next;
                *next += shard.records;
                Some(first)
            })
            .collect();
        let indexes = info.shards.iter().map(|_| Mutex::default()).collect();
        Ok(Self(Arc::new(Inner { source, info, schema, first, indexes })))
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.info.records
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a sample looks like.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.0.schema
    }

    /// What the source says of it.
    #[must_use]
    pub fn info(&self) -> &Arc<DataSetInfo> {
        &self.0.info
    }

    /// Where its bytes come from.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn RangeSource> {
        &self.0.source
    }

    /// Where a sample lies.
    ///
    /// # Errors
    /// `Misuse` when there is no such sample, `Corrupt` when the index is wrong, else as the source says.
    pub fn locate(&self, sample: u64) -> Result<PlannedRead> {
        let inner = &*self.0;
        if sample >= self.len() {
            return Err(Error::new(ErrorKind::Misuse, "read", format!("sample {sample} of {}", self.len())));
        }
        let shard = inner.first.partition_point(|first| *first <= sample) - 1;
        let number = sample - inner.first[shard];
        let range =
            self.index(shard)?.range(number).filter(|range| inner.schema.fits(range.end - range.start));
        let range = range.ok_or_else(|| {
            let why = format!("the index gives sample {sample} a place or length that it cannot have");
            Error::new(ErrorKind::Corrupt, "read", why)
                .at(std::path::Path::new(&inner.info.shards[shard].file))
        })?;
        Ok(PlannedRead { shard, range })
    }

    fn index(&self, shard: usize) -> Result<Arc<ShardIndex>> {
        let mut slot = self.0.indexes[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*slot {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(ShardIndex::read(&*self.0.source, &self.0.info, shard)?);
        *slot = Some(Arc::clone(&index));
        Ok(index)
    }

    /// Reads byte ranges that [`Dataset::locate`] gave.
    ///
    /// # Errors
    /// As the source says.
    pub fn read(&self, reads: &mut [RangeRead<'_>]) -> Result<()> {
        self.0.source.read(&self.0.info, reads)
    }
}

#[cfg(test)]
mod tests;
