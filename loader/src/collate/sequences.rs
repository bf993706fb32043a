//! Token sequences of many lengths as arrays of one shape: padded, one a row, or packed, several a row.

use std::ops::Range;
use std::sync::Arc;

use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::layout::{Layout, Place, Placement, field};
use crate::batch::Room;
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// What happens to a sequence that is longer than a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// The batch fails and names the lengths.
    #[default]
    Error,
    /// It is cut, and counted: see `Loader::truncated_samples`.
    Cut,
}

/// How sequences become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    field: String,
    // None: as long as the longest of its batch.
    length: Option<u64>,
    pad_value: i64,
    packed: bool,
    overlong: Overlong,
}

impl Sequences {
    /// One sequence of the ragged field `field` a row, filled up with `pad_value`. A batch has the field `FIELD_length`
    /// (u32) beside it. Rows are as long as the longest sequence of their batch.
    #[must_use]
    pub fn padded(field: &str, pad_value: i64) -> Self {
        Self { field: field.to_owned(), length: None, pad_value, packed: false, overlong: Overlong::Error }
    }

    /// Several whole sequences of the ragged field `field` a row of `length` steps, each put into the first row of its
    /// batch that has room. `batch_size` counts sequences, so that the number of rows varies. A batch has the fields
    /// `FIELD_segment` (i32: 1, 2, ... for the sequences of a row, 0 where it is padding) and `FIELD_position` (i32: the
    /// place in its sequence) beside it, as attention masks and position embeddings need them.
    #[must_use]
    pub fn packed(field: &str, length: u64, pad_value: i64) -> Self {
        let length = Some(length);
        Self { field: field.to_owned(), length, pad_value, packed: true, overlong: Overlong::Error }
    }

    /// All rows have `length` steps.
    #[must_use]
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// What happens to a sequence that is longer than a row. Default: the batch fails.
    #[must_use]
    pub fn overlong(mut self, overlong: Overlong) -> Self {
        self.overlong = overlong;
        self
    }

    /// Checks that samples of `schema` can be padded or packed so.
    ///
    /// # Errors
    /// `Misuse` when there is no such ragged field, or the padding has no place in its type.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        let misuse =
            |why: String, hint: &str| Err(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint));
        let field = schema.position(&self.field).map(|number| &schema.fields()[number]);
        let Some(field) = field.filter(|field| field.shape.first() == Some(&-1)) else {
            let why = format!("no field `{}` whose first dimension varies", self.field);
            return misuse(why, "`tierstream inspect` shows the fields of a data set");
        };
        if self.packed && schema.fields().len() > 1 {
            let why = "samples of several fields cannot be packed into rows".to_owned();
            return misuse(why, "pad them, or pack a data set with the sequences alone");
        }
        if self.length == Some(0) {
            return misuse("rows of no steps".to_owned(), "use a length of 1 or more");
        }
        if encode(self.pad_value, field.dtype).is_none() {
            let why = format!("padding of {} does not fit {}", self.pad_value, field.dtype);
            return misuse(why, "use a value of the field's type");
        }
        Ok(())
    }

    pub(super) fn layout(&self, schema: &Schema, fields: &[Range<usize>]) -> Result<Layout> {
        let number = schema.position(&self.field).unwrap_or(0);
        let (count, step) = (schema.fields().len(), schema.step_bytes(number));
        let mut lens: Vec<usize> =
            fields.iter().skip(number).step_by(count).map(|place| place.len() / step).collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        let row = self.length.map_or(longest.max(1), |length| usize::try_from(length).unwrap_or(usize::MAX));
        if longest > row && self.overlong == Overlong::Error {
            let why = format!("a sequence of {longest} steps, expected at most {row}");
            let hint = "use a larger length, or cut what is longer (overlong = cut)";
            return Err(Error::new(ErrorKind::Misuse, "load batch", why).hint(hint));
        }
        let truncated = to_u64(lens.iter().filter(|len| **len > row).count());
        lens.iter_mut().for_each(|len| *len = row.min(*len));
        // Row and first step of each sequence.
        let starts: Vec<(usize, usize)> =
            if self.packed { first_fit(&lens, row) } else { (0..lens.len()).map(|row| (row, 0)).collect() };
        let rows = starts.iter().map(|(row, _)| row + 1).max().unwrap_or(0);

        let mut out: Vec<Field> = schema.fields().to_vec();
        let dtype = out[number].dtype;
        out[number].shape[0] = i64::try_from(row).unwrap_or(i64::MAX);
        let name = |what: &str| format!("{}_{what}", self.field);
        let long = i64::try_from(row).unwrap_or(i64::MAX);
        let computed = if self.packed {
            out.push(Field::fixed(&name("segment"), Dtype::I32, &[long]));
            out.push(Field::fixed(&name("position"), Dtype::I32, &[long]));
            segments(&lens, &starts, rows, row)
        } else {
            out.push(Field::fixed(&name("length"), Dtype::U32, &[]));
            let length = |len: &usize| u32::try_from(*len).unwrap_or(u32::MAX).to_le_bytes();
            vec![lens.iter().flat_map(length).collect()]
        };
        let (mut rooms, mut placements): (Vec<Room>, Vec<Placement>) =
            (0..count).map(|number| field(schema, fields, number)).unzip();
        let mut places: Vec<Place> = starts
            .iter()
            .zip(&lens)
            .enumerate()
            .map(|(sample, ((at, first), len))| Place {
                sample,
                at: (at * row + first) * step,
                len: len * step,
            })
            .collect();
        places.sort_unstable_by_key(|place| (place.at, place.len));
        rooms[number] = Room { bytes: rows * row * step, rows, offsets: None };
        placements[number] = Placement { places, gap: encode(self.pad_value, dtype).unwrap_or_default() };
        rooms.extend(computed.iter().map(|bytes| Room { bytes: bytes.len(), rows, offsets: None }));
        Ok(Layout { schema: Some(Arc::new(Schema::of(out)?)), rooms, placements, computed, truncated })
    }
}

/// Row and first step of each sequence: the first row with room for all of it.
fn first_fit(lens: &[usize], row: usize) -> Vec<(usize, usize)> {
    let mut used: Vec<usize> = Vec::new();
    lens.iter()
        .map(|len| {
            let at = used.iter().position(|used| row - used >= *len).unwrap_or_else(|| {
                used.push(0);
                used.len() - 1
            });
            used[at] += len;
            (at, used[at] - len)
        })
        .collect()
}

/// For each step of each row: the number of its sequence in the row, and its place in the sequence.
fn segments(lens: &[usize], starts: &[(usize, usize)], rows: usize, row: usize) -> Vec<Vec<u8>> {
    let (mut segment, mut position) = (vec![0_i32; rows * row], vec![0_i32; rows * row]);
    let mut in_row = vec![0_i32; rows];
    for ((at, first), len) in starts.iter().zip(lens).filter(|(_, len)| **len > 0) {
        in_row[*at] += 1;
        let place = at * row + first..at * row + first + len;
        segment[place.clone()].fill(in_row[*at]);
        position[place].iter_mut().zip(0..).for_each(|(to, step)| *to = step);
    }
    let bytes = |values: Vec<i32>| values.into_iter().flat_map(i32::to_le_bytes).collect();
    vec![bytes(segment), bytes(position)]
}

/// `value` as an element of `dtype`; none when it has no place there.
fn encode(value: i64, dtype: Dtype) -> Option<Vec<u8>> {
    let (single, double) = (value as f32, value as f64);
    let exact = |back: bool, bytes: &[u8]| back.then(|| bytes.to_vec());
    match dtype {
        Dtype::U8 => u8::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::I8 => i8::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::U16 => u16::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::I16 => i16::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::U32 => u32::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::I32 => i32::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::U64 => u64::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()),
        Dtype::I64 => Some(value.to_le_bytes().to_vec()),
        // Zero is the one padding that half precision is used with here.
        Dtype::F16 => exact(value == 0, &[0; 2]),
        Dtype::Bf16 => exact(value.abs() <= 256, &single.to_le_bytes()[2..]),
        Dtype::F32 => exact(value.abs() <= 1 << 24, &single.to_le_bytes()),
        Dtype::F64 => exact(value.abs() <= 1 << 53, &double.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_into_the_first_row_with_room() {
        assert_eq!(first_fit(&[3, 6, 2, 4, 0, 5], 7), [(0, 0), (1, 0), (0, 3), (2, 0), (0, 5), (3, 0)]);
        let lens = [3, 2, 2];
        let starts = first_fit(&lens, 5);
        let [segment, position] = &segments(&lens, &starts, 2, 5)[..] else { panic!("two arrays") };
        let read = |bytes: &[u8]| -> Vec<i32> {
            bytes.chunks_exact(4).map(|four| i32::from_le_bytes(four.try_into().unwrap())).collect()
        };
        assert_eq!(read(segment), [1, 1, 1, 2, 2, 1, 1, 0, 0, 0]);
        assert_eq!(read(position), [0, 1, 2, 0, 1, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn padding_has_the_type_of_its_field() {
        assert_eq!(encode(-100, Dtype::I64), Some((-100_i64).to_le_bytes().to_vec()));
        assert_eq!(encode(-1, Dtype::U16), None);
        assert_eq!(encode(3, Dtype::F32), Some(3.0_f32.to_le_bytes().to_vec()));
        assert_eq!(encode(1, Dtype::Bf16), Some(vec![0x80, 0x3f]));
        assert_eq!((encode(1, Dtype::F16), encode(1 << 25, Dtype::F32)), (None, None));
    }

    #[test]
    fn settings_without_sense_are_refused() {
        let ragged = Schema::new(Field::ragged("tokens", Dtype::U16)).unwrap();
        let fixed = Schema::new(Field::fixed("tokens", Dtype::U16, &[4])).unwrap();
        assert!(Sequences::padded("tokens", 0).check(&ragged).is_ok());
        assert!(Sequences::padded("other", 0).check(&ragged).is_err());
        assert!(Sequences::padded("tokens", 0).check(&fixed).is_err());
        assert!(Sequences::padded("tokens", -1).check(&ragged).is_err());
        assert!(Sequences::packed("tokens", 0, 0).check(&ragged).is_err());
    }
}
