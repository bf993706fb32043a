//! One batch out of its elements: samples are located, room is made for them, and their bytes are read to where they
//! belong. Nothing is copied twice, and nothing is allocated per sample.

mod layout;
mod sequences;

pub use sequences::{Overlong, Sequences};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tierstream_prefetch::PlannedRead;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{ErrorKind, RangeRead, Result};

use crate::batch::{Batch, Identity};
use crate::dataset::Dataset;
use crate::order::{BatchPlan, Cursor, Element};
use crate::pool::BufferPool;
use crate::schema::Schema;
use layout::Layout;

/// What happens when a sample's bytes do not authenticate on any tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCorrupt {
    /// The loader ends with the error.
    #[default]
    Error,
    /// The sample is left out, logged with its place, and counted: see `Loader::skipped_samples`.
    Skip,
}

/// What was left out or cut so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) skipped: AtomicU64,
    pub(crate) truncated: AtomicU64,
}

/// Makes batches.
#[derive(Debug)]
pub(crate) struct Collate {
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) sequences: Option<Sequences>,
    pub(crate) on_corrupt: OnCorrupt,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) counts: Counts,
}

/// Samples of a batch and where their fields lie.
struct Located {
    elements: Vec<Element>,
    reads: Vec<PlannedRead>,
    // Of each sample, of each field, in its record.
    fields: Vec<std::ops::Range<usize>>,
}

impl Collate {
    /// The batch of `plan`. None when all its samples were left out.
    pub(crate) fn batch(&self, plan: BatchPlan, cursor: &mut Cursor) -> Result<Option<Batch>> {
        let elements: Vec<Element> = plan.elements(cursor).collect();
        match self.read(elements.clone(), plan) {
            Err(error) if error.kind() == ErrorKind::Corrupt && self.on_corrupt == OnCorrupt::Skip => {
                let whole: Vec<Element> =
                    elements.into_iter().filter_map(|element| self.keep(element)).collect::<Result<_>>()?;
                if whole.is_empty() { Ok(None) } else { self.read(whole, plan).map(Some) }
            }
            read => read.map(Some),
        }
    }

    /// The element, unless its sample is corrupt.
    fn keep(&self, element: Element) -> Option<Result<Element>> {
        let one = || -> Result<()> {
            let dataset = self.dataset(element);
            let PlannedRead { shard, range } = dataset.locate(element.sample)?;
            let mut record = vec![0; to_usize(range.end - range.start)];
            dataset.read(&mut [RangeRead { shard, range, to: &mut record }])?;
            let table = record.get(..self.schema.table_bytes()).unwrap_or(&record);
            self.schema.split(table, record.len()).map(drop)
        };
        match one() {
            Ok(()) => Some(Ok(element)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, sample = element.sample, "a corrupt sample is left out");
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn dataset(&self, element: Element) -> &Dataset {
        &self.datasets[to_usize(u64::from(element.source))]
    }

    fn read(&self, elements: Vec<Element>, plan: BatchPlan) -> Result<Batch> {
        let located = self.locate(elements)?;
        let layout = match &self.sequences {
            None => Layout::plain(&self.schema, &located.fields),
            Some(sequences) => {
                let layout = sequences.layout(&self.schema, &located.fields)?;
                self.counts.truncated.fetch_add(layout.truncated, Ordering::Relaxed);
                layout
            }
        };
        let of = Identity {
            sample_ids: located.elements.iter().map(|element| element.sample).collect(),
            sources: match &self.datasets[..] {
                [_] => Vec::new(),
                _ => located.elements.iter().map(|element| element.source).collect(),
            },
            epoch: plan.epoch,
            number: plan.number,
        };
        let Layout { schema, rooms, placements, computed, .. } = layout;
        let mut batch = Batch::with_room(&self.pool, schema.as_ref().unwrap_or(&self.schema), rooms, of)?;
        let mut regions = batch.regions();
        for (region, bytes) in regions.iter_mut().rev().zip(computed.iter().rev()) {
            region.copy_from_slice(bytes);
        }
        let mut reads: Vec<Vec<RangeRead<'_>>> = self.datasets.iter().map(|_| Vec::new()).collect();
        if let [reads] = &mut reads[..] {
            reads.reserve_exact(located.fields.len());
        }
        let fields = self.schema.fields().len();
        for ((number, region), placement) in regions.into_iter().enumerate().zip(&placements) {
            let mut rest = region;
            let mut at = 0;
            for place in &placement.places {
                let (gap, later) = rest.split_at_mut(place.at - at);
                placement.pad(gap, at);
                let (to, later) = later.split_at_mut(place.len);
                (rest, at) = (later, place.at + place.len);
                let PlannedRead { shard, range } = &located.reads[place.sample];
                let start = range.start + to_u64(located.fields[place.sample * fields + number].start);
                let range = start..start + to_u64(place.len);
                let source = to_usize(u64::from(located.elements[place.sample].source));
                reads[source].push(RangeRead { shard: *shard, range, to });
            }
            placement.pad(rest, at);
        }
        for (dataset, reads) in self.datasets.iter().zip(&mut reads).filter(|(_, reads)| !reads.is_empty()) {
            dataset.read(reads)?;
        }
        Ok(batch)
    }

    /// Where the samples and their fields lie. Where a record's table says so, all tables are read at once.
    fn locate(&self, elements: Vec<Element>) -> Result<Located> {
        let mut reads = Vec::with_capacity(elements.len());
        for element in &elements {
            reads.push(self.dataset(*element).locate(element.sample)?);
        }
        let len = |read: &PlannedRead| to_usize(read.range.end - read.range.start);
        let count = self.schema.fields().len();
        let mut fields = Vec::with_capacity(elements.len() * count);
        if let Some(places) = self.schema.places() {
            reads.iter().for_each(|_| fields.extend_from_slice(places));
        } else if count == 1 {
            fields.extend(reads.iter().map(|read| 0..len(read)));
        } else {
            let table_bytes = self.schema.table_bytes();
            let mut tables = vec![0; elements.len() * table_bytes];
            let mut of: Vec<Vec<RangeRead<'_>>> = self.datasets.iter().map(|_| Vec::new()).collect();
            for ((element, read), to) in elements.iter().zip(&reads).zip(tables.chunks_exact_mut(table_bytes))
            {
                let range = read.range.start..read.range.start + to_u64(table_bytes);
                of[to_usize(u64::from(element.source))].push(RangeRead { shard: read.shard, range, to });
            }
            for (dataset, reads) in self.datasets.iter().zip(&mut of).filter(|(_, reads)| !reads.is_empty()) {
                dataset.read(reads)?;
            }
            for ((element, read), table) in elements.iter().zip(&reads).zip(tables.chunks_exact(table_bytes))
            {
                let split = self.schema.split(table, len(read));
                fields.extend(split.map_err(|error| self.dataset(*element).at(error, read))?);
            }
        }
        Ok(Located { elements, reads, fields })
    }
}
