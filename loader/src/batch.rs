//! A batch: samples as named, typed, shaped arrays, side by side in one aligned buffer.
//!
//! ```text
//! buffer  | field 0: every sample's value, one after the other | zeros to 64 | field 1 ... |
//! fixed     an array [samples, ...shape], row major
//! ragged    values of all samples end to end, and offsets in steps of the known dimensions (samples + 1 of them)
//! ```
//!
//! The buffer belongs to the batch as long as it lives, and goes back to the loader's pool when it is dropped: whoever
//! hands out views keeps the batch.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tierstream_storage::Result;
use tierstream_storage::buf::HostMemory;
use tierstream_storage::units::{to_u64, to_usize};

use crate::pool::BufferPool;
use crate::schema::{Field, Schema};

/// Fields start at multiples of this in their buffer: a cache line, and what vector units and DLPack ask for.
const FIELD_ALIGN: usize = 64;

/// Room for one field of a batch.
#[derive(Debug)]
pub(crate) struct Room {
    /// Its bytes.
    pub(crate) bytes: usize,
    /// First index of its array.
    pub(crate) rows: usize,
    /// Where samples begin, in steps, and where the last one ends; for ragged fields.
    pub(crate) offsets: Option<Vec<u64>>,
}

/// What a batch is of.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) sample_ids: Vec<u64>,
    /// Number of each sample's data set among those that are mixed; empty where there is one.
    pub(crate) sources: Vec<u32>,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Part {
    place: Range<usize>,
    rows: usize,
    offsets: Option<Vec<u64>>,
}

/// Samples as arrays. Its buffer goes back to the loader when it is dropped.
pub struct Batch {
    pool: Arc<BufferPool>,
    // None only while dropping.
    memory: Option<HostMemory>,
    parts: Vec<Part>,
    schema: Arc<Schema>,
    of: Identity,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are somebody's plaintext.
        let (number, epoch) = (self.of.number, self.of.epoch);
        write!(f, "Batch({number} of epoch {epoch}: {} samples, {} bytes)", self.len(), self.buffer().len())
    }
}

/// One field of a batch.
#[derive(Clone, Copy)]
pub struct FieldView<'a> {
    field: &'a Field,
    bytes: &'a [u8],
    rows: usize,
    step: usize,
    offsets: Option<&'a [u64]>,
}

impl fmt::Debug for FieldView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldView(`{}`, {} {:?})", self.field.name, self.field.dtype, self.shape())
    }
}

impl<'a> FieldView<'a> {
    /// Name, element type and the shape of one sample.
    #[must_use]
    pub fn field(&self) -> &'a Field {
        self.field
    }

    /// All values, one sample after the other: 64-byte aligned, contiguous, little endian.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The shape of the array of all values. Fixed: `[samples, ...shape]`. Ragged: `[steps, ...known dimensions]`, to be
    /// cut by [`FieldView::offsets`].
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        let known = self.field.shape.iter().filter_map(|length| usize::try_from(*length).ok());
        std::iter::once(self.rows).chain(known).collect()
    }

    /// For ragged fields: where each sample begins in the array of values, as an index along its first dimension, and
    /// where the last one ends.
    #[must_use]
    pub fn offsets(&self) -> Option<&'a [u64]> {
        self.offsets
    }

    /// The bytes of sample `index`; of row `index`, where samples are packed into rows.
    ///
    /// # Panics
    /// When there is no such sample.
    #[must_use]
    pub fn sample(&self, index: usize) -> &'a [u8] {
        let place = match self.offsets {
            Some(offsets) => to_usize(offsets[index]) * self.step..to_usize(offsets[index + 1]) * self.step,
            None => index * self.step..(index + 1) * self.step,
        };
        &self.bytes[place]
    }
}

impl Batch {
    /// A batch with `rooms` for the fields of `schema`, to be filled by [`Batch::regions`].
    pub(crate) fn with_room(
        pool: &Arc<BufferPool>,
        schema: &Arc<Schema>,
        rooms: Vec<Room>,
        of: Identity,
    ) -> Result<Self> {
        let mut end: usize = 0;
        let parts: Vec<Part> = rooms
            .into_iter()
            .map(|Room { bytes, rows, offsets }| {
                let start = end.next_multiple_of(FIELD_ALIGN);
                end = start + bytes;
                Part { place: start..end, rows, offsets }
            })
            .collect();
        let memory = Some(pool.take(end)?);
        Ok(Self { pool: Arc::clone(pool), memory, parts, schema: Arc::clone(schema), of })
    }

    /// The room of each field, in order.
    pub(crate) fn regions(&mut self) -> Vec<&mut [u8]> {
        let mut rest = self.memory.as_mut().expect("present until drop").as_mut_slice();
        let mut at = 0;
        let mut regions = Vec::with_capacity(self.parts.len());
        for Part { place, .. } in &self.parts {
            // Taken out, so that what is left does not stay borrowed.
            let (before, later) = std::mem::take(&mut rest).split_at_mut(place.end - at);
            regions.push(&mut before[place.start - at..]);
            (rest, at) = (later, place.end);
        }
        regions
    }

    /// The first byte of its buffer, in which all fields lie: for those who hand out arrays that may be written to, while
    /// they keep the batch.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut().expect("present until drop").as_mut_slice().as_mut_ptr()
    }

    /// Samples in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.sample_ids.len()
    }

    /// Never: a batch has at least one sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.sample_ids.is_empty()
    }

    /// What each sample looks like.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The buffer of all fields, for whoever copies it whole (to a device). Each field lies in it.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        let end = self.parts.last().map_or(0, |part| part.place.end);
        &self.memory.as_ref().expect("present until drop").as_slice()[..end]
    }

    /// Field `number` of the schema.
    ///
    /// # Panics
    /// When there is no such field.
    #[must_use]
    pub fn field_at(&self, number: usize) -> FieldView<'_> {
        let part = &self.parts[number];
        FieldView {
            field: &self.schema.fields()[number],
            bytes: &self.buffer()[part.place.clone()],
            rows: part.rows,
            step: self.schema.step_bytes(number),
            offsets: part.offsets.as_deref(),
        }
    }

    /// The field of this name, if there is one.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<FieldView<'_>> {
        Some(self.field_at(self.schema.position(name)?))
    }

    /// All fields, in the schema's order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = FieldView<'_>> {
        (0..self.parts.len()).map(|number| self.field_at(number))
    }

    /// All values of the first field: the only one, in many data sets.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.field_at(0).bytes()
    }

    /// The first field's bytes of sample `index` of the batch.
    ///
    /// # Panics
    /// When there is no such sample.
    #[must_use]
    pub fn sample(&self, index: usize) -> &[u8] {
        self.field_at(0).sample(index)
    }

    /// Numbers of the samples in their data set, in order.
    #[must_use]
    pub fn sample_ids(&self) -> &[u64] {
        &self.of.sample_ids
    }

    /// The number of each sample's data set among those that are mixed; empty where there is one.
    #[must_use]
    pub fn sources(&self) -> &[u32] {
        &self.of.sources
    }

    /// The epoch it belongs to, from 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.of.epoch
    }

    /// Its number in the epoch, from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.of.number
    }

    /// Bytes of all fields.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.parts.iter().map(|part| to_u64(part.place.len())).sum()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.put(memory);
        }
    }
}
