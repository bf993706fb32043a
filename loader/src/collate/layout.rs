//! Where each sample's bytes go in a batch, before there is a buffer.

use std::ops::Range;
use std::sync::Arc;

use tierstream_storage::units::to_u64;

use crate::batch::Room;
use crate::schema::Schema;

/// A batch that is still to be filled.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the batch holds, where that is not what the samples hold.
    pub(super) schema: Option<Arc<Schema>>,
    /// Room for each field of the batch.
    pub(super) rooms: Vec<Room>,
    /// Where samples go, for the fields that are read: the first ones.
    pub(super) placements: Vec<Placement>,
    /// What the other fields hold.
    pub(super) computed: Vec<Vec<u8>>,
    /// Samples that were cut.
    pub(super) truncated: u64,
}

/// Where samples go in a field of the batch.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// In ascending order, without overlap.
    pub(super) places: Vec<Place>,
    /// The element that fills the gaps.
    pub(super) gap: Vec<u8>,
}

/// `len` bytes of a sample's field, from its start, at `at` of the batch's field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) sample: usize,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Placement {
    /// Fills a gap that begins at `at`.
    pub(super) fn pad(&self, gap: &mut [u8], at: usize) {
        debug_assert!(self.gap.is_empty() || at.is_multiple_of(self.gap.len()), "a gap at {at}");
        match &self.gap[..] {
            [] => gap.fill(0),
            [byte] => gap.fill(*byte),
            element => gap.chunks_exact_mut(element.len()).for_each(|to| to.copy_from_slice(element)),
        }
    }
}

impl Layout {
    /// Samples side by side. `fields` has the place of each sample's fields in its record.
    pub(super) fn plain(schema: &Schema, fields: &[Range<usize>]) -> Self {
        let count = schema.fields().len();
        let (rooms, placements) = (0..count).map(|number| field(schema, fields, number)).unzip();
        Self { schema: None, rooms, placements, computed: Vec::new(), truncated: 0 }
    }
}

/// Samples of one field side by side.
pub(super) fn field(schema: &Schema, fields: &[Range<usize>], number: usize) -> (Room, Placement) {
    let (count, step) = (schema.fields().len(), schema.step_bytes(number));
    let samples = fields.len() / count;
    let mut places = Vec::with_capacity(samples);
    let mut offsets = schema.fields()[number].is_ragged().then(|| Vec::with_capacity(samples + 1));
    let mut at = 0;
    for (sample, place) in fields.iter().skip(number).step_by(count).enumerate() {
        places.push(Place { sample, at, len: place.len() });
        offsets.iter_mut().for_each(|offsets| offsets.push(to_u64(at / step)));
        at += place.len();
    }
    offsets.iter_mut().for_each(|offsets| offsets.push(to_u64(at / step)));
    (Room { bytes: at, rows: at / step, offsets }, Placement { places, gap: Vec::new() })
}
