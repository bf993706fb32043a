//! A data set as samples: number to byte range; and views of it: a range, a split, what a filter keeps.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tierstream_prefetch::PlannedRead;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::index::ShardIndex;
use crate::schema::Schema;
use crate::selection::Selection;

/// A packed data set, open for reading samples. Cheap to clone.
#[derive(Clone)]
pub struct Dataset {
    inner: Arc<Inner>,
    selection: Selection,
}

struct Inner {
    source: Arc<dyn RangeSource>,
    info: Arc<DataSetInfo>,
    schema: Arc<Schema>,
    // Number of the first sample of each shard.
    first: Vec<u64>,
    // Read when a shard is first needed, by one thread at a time.
    indexes: Vec<(OnceLock<ShardIndex>, Mutex<()>)>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.inner.info;
        let (name, shards) = (&info.name, info.shards.len());
        write!(f, "Dataset(`{name}`, {} of {} samples, {shards} shards)", self.len(), info.records)
    }
}

impl Dataset {
    /// Opens the data set at `location` of `source`: for a store in this process, the directory that `pack` wrote.
    ///
    /// # Errors
    /// As [`RangeSource::open_data_set`]; `Corrupt` or `Misuse` for its schema.
    pub fn open(source: Arc<dyn RangeSource>, location: &str) -> Result<Self> {
        let info = source.open_data_set(location)?;
        let schema = Arc::new(Schema::from_json(&info.schema)?);
        let first = info
            .shards
            .iter()
            .scan(0_u64, |next, shard| {
                let first = *next;
                *next += shard.records;
                Some(first)
            })
            .collect();
        let indexes = info.shards.iter().map(|_| Default::default()).collect();
        let selection = Selection::all(info.records);
        Ok(Self { inner: Arc::new(Inner { source, info, schema, first, indexes }), selection })
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.selection.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a sample looks like.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.inner.schema
    }

    pub(crate) fn shared_schema(&self) -> &Arc<Schema> {
        &self.inner.schema
    }

    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What the source says of it.
    #[must_use]
    pub fn info(&self) -> &Arc<DataSetInfo> {
        &self.inner.info
    }

    /// Where its bytes come from.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn RangeSource> {
        &self.inner.source
    }

    fn view(&self, selection: Selection) -> Self {
        Self { inner: Arc::clone(&self.inner), selection }
    }

    /// Samples `range` of these, as a data set of their own.
    ///
    /// # Errors
    /// `Misuse` when there are not so many.
    pub fn subset(&self, range: std::ops::Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > self.len() {
            let why = format!("samples {range:?} of {}", self.len());
            return Err(Error::new(ErrorKind::Misuse, "select", why).hint("give a range within the data set"));
        }
        Ok(self.view(self.selection.range(range)))
    }

    /// Samples at these places of these, in this order; 8 bytes of memory each.
    ///
    /// # Errors
    /// `Misuse` when one is not there.
    pub fn select(&self, indexes: Vec<u64>) -> Result<Self> {
        if let Some(beyond) = indexes.iter().find(|index| **index >= self.len()) {
            let why = format!("sample {beyond} of {}", self.len());
            return Err(Error::new(ErrorKind::Misuse, "select", why).hint("samples count from 0"));
        }
        Ok(self.view(self.selection.ids(indexes)))
    }

    /// The samples that `keep` keeps, given each one's number and bytes. Looks at the index alone; 8 bytes of memory for
    /// each that is kept.
    ///
    /// # Errors
    /// As [`Dataset::locate`].
    pub fn filter(&self, mut keep: impl FnMut(u64, u64) -> bool) -> Result<Self> {
        let mut kept = Vec::new();
        for index in 0..self.len() {
            let sample = self.selection.get(index);
            let range = self.locate(sample)?.range;
            if keep(sample, range.end - range.start) {
                kept.push(index);
            }
        }
        Ok(self.view(self.selection.ids(kept)))
    }

    /// Random parts in proportion to `ratios`, which every sample is in one of: the same for the same seed.
    ///
    /// # Errors
    /// `Misuse` for ratios that are not above 0.
    pub fn split(&self, ratios: &[f64], seed: u64) -> Result<Vec<Self>> {
        let sum: f64 = ratios.iter().sum();
        if ratios.is_empty() || !sum.is_finite() || ratios.iter().any(|ratio| *ratio <= 0.0) {
            let why = format!("ratios {ratios:?}");
            return Err(Error::new(ErrorKind::Misuse, "split", why).hint("give each part a ratio above 0"));
        }
        let mut share = 0.0;
        let mut start = 0;
        let last = ratios.len() - 1;
        let parts = ratios.iter().enumerate().map(|(number, ratio)| {
            share += ratio / sum;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a part of the length"
            )]
            let end = (self.len() as f64 * share).round() as u64;
            let end = if number == last { self.len() } else { end.clamp(start, self.len()) };
            let part = self.view(self.selection.share(seed, start..end));
            start = end;
            part
        });
        Ok(parts.collect())
    }

    /// Where the sample of this number lies.
    ///
    /// # Errors
    /// `Misuse` when there is no such sample, `Corrupt` when the index is wrong, else as the source says.
    pub fn locate(&self, sample: u64) -> Result<PlannedRead> {
        let inner = &*self.inner;
        if sample >= inner.info.records {
            let why = format!("sample {sample} of {}", inner.info.records);
            return Err(Error::new(ErrorKind::Misuse, "read", why));
        }
        let (shard, number) = self.shard_of(sample);
        let range =
            self.index(shard)?.range(number).filter(|range| inner.schema.fits(range.end - range.start));
        let range = range.ok_or_else(|| {
            let why = format!("the index gives sample {sample} a place or length that it cannot have");
            Error::new(ErrorKind::Corrupt, "read", why).at(Path::new(&inner.info.shards[shard].file))
        })?;
        Ok(PlannedRead { shard, range })
    }

    /// The shard of the sample of this number, which there is, and its number there.
    pub(crate) fn shard_of(&self, sample: u64) -> (usize, u64) {
        let shard = self.inner.first.partition_point(|first| *first <= sample) - 1;
        (shard, sample - self.inner.first[shard])
    }

    fn index(&self, shard: usize) -> Result<&ShardIndex> {
        let (slot, reading) = &self.inner.indexes[shard];
        if let Some(index) = slot.get() {
            return Ok(index);
        }
        // Whoever waited finds it; an error is the next one's to meet again.
        let _reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.get() {
            Some(index) => Ok(index),
            None => {
                let index = ShardIndex::read(&*self.inner.source, &self.inner.info, shard)?;
                Ok(slot.get_or_init(|| index))
            }
        }
    }

    /// The same error, met in a sample that lies at `read`.
    pub(crate) fn at(&self, error: Error, read: &PlannedRead) -> Error {
        let range = &read.range;
        let shard = Path::new(&self.inner.info.shards[read.shard].file);
        error.at(shard).at_offset(range.start, range.end - range.start)
    }

    /// Reads byte ranges that [`Dataset::locate`] gave.
    ///
    /// # Errors
    /// As the source says.
    pub fn read(&self, reads: &mut [RangeRead<'_>]) -> Result<()> {
        self.inner.source.read(&self.inner.info, reads)
    }

    /// The values of each field of one sample: for looking at samples one by one; a loader reads many faster.
    ///
    /// # Errors
    /// As [`Dataset::locate`] and the source; `Corrupt` when the record is not one of the schema.
    pub fn sample(&self, sample: u64) -> Result<Vec<Vec<u8>>> {
        let read = self.locate(sample)?;
        let (shard, range) = (read.shard, read.range.clone());
        let mut record = vec![0; tierstream_storage::units::to_usize(range.end - range.start)];
        self.read(&mut [RangeRead { shard, range, to: &mut record }])?;
        let schema = &self.inner.schema;
        let table = record.get(..schema.table_bytes()).unwrap_or_default();
        let places = schema.split(table, record.len()).map_err(|error| self.at(error, &read))?;
        Ok(places.into_iter().map(|place| record[place].to_vec()).collect())
    }
}

#[cfg(test)]
mod tests;
