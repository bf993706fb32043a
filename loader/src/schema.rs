//! What a sample looks like: its fields with name, element type and shape, and where they lie in its record
//! (docs/specs/format.md, section 7).
//!
//! A record with one field is that field's bytes. With several it is a table of their lengths and then the fields, each
//! at a multiple of 8 bytes. Where every field has one length the places follow from the schema, and the table is not
//! read.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::dtype::Dtype;

/// Fields of a sample; more are a mistake, and every batch has one array for each.
const FIELDS_MAX: usize = 256;
/// A sample is in memory as a whole: one longer than this is a mistake.
const SAMPLE_BYTES_MAX: usize = 1 << 40;
/// Fields start at multiples of this in their record, so that elements are aligned there as well.
const FIELD_ALIGN: usize = 8;
/// Bytes of an entry of the table of lengths.
const LENGTH_BYTES: usize = 4;

/// A field of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape, row major; one dimension may be -1: its length follows from the sample's.
    pub shape: Vec<i64>,
}

impl Field {
    /// A field whose samples all have `shape`.
    #[must_use]
    pub fn fixed(name: &str, dtype: Dtype, shape: &[i64]) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    /// A field of one dimension whose length varies.
    #[must_use]
    pub fn ragged(name: &str, dtype: Dtype) -> Self {
        Self { name: name.to_owned(), dtype, shape: vec![-1] }
    }

    /// Whether samples differ in length.
    #[must_use]
    pub fn is_ragged(&self) -> bool {
        self.shape.contains(&-1)
    }

    /// Bytes of the known dimensions: of a whole sample of fixed shape, else of one step along the dimension that
    /// varies.
    fn step_bytes(&self) -> Result<usize> {
        let misuse = |why: String| Error::new(ErrorKind::Misuse, "read schema", why);
        let (name, shape) = (&self.name, &self.shape);
        if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
            let why = "a field's name has 1 to 256 bytes and no control characters";
            return Err(misuse(format!("{why}, found `{}`", name.escape_debug())));
        }
        let ragged = shape.iter().filter(|length| **length == -1).count();
        if ragged > 1 || shape.iter().any(|length| *length == 0 || *length < -1) {
            return Err(misuse(format!(
                "field `{name}` has shape {shape:?}: at most one dimension is -1, the others are positive"
            )));
        }
        let known = shape.iter().filter(|length| **length > 0);
        known
            .copied()
            .try_fold(self.dtype.bytes(), |bytes, length| bytes.checked_mul(usize::try_from(length).ok()?))
            .filter(|bytes| *bytes <= SAMPLE_BYTES_MAX)
            .ok_or_else(|| misuse(format!("field `{name}` of shape {shape:?} is beyond memory")))
    }
}

#[derive(Serialize, Deserialize)]
struct SchemaJson {
    fields: Vec<Field>,
}

/// What a sample of a data set looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    fields: Vec<Field>,
    // Of each field, as `Field::step_bytes` says.
    steps: Vec<usize>,
    // Where each field lies in a record, if that is the same for all.
    places: Option<Vec<Range<usize>>>,
}

impl Schema {
    /// The schema of samples with one field.
    ///
    /// # Errors
    /// As [`Schema::of`].
    pub fn new(field: Field) -> Result<Self> {
        Self::of(vec![field])
    }

    /// The schema of samples with these fields.
    ///
    /// # Errors
    /// `Misuse` without fields, or for an empty or repeated name, more than one -1, a dimension of zero or below -1, or
    /// a size beyond memory.
    pub fn of(fields: Vec<Field>) -> Result<Self> {
        let misuse = |why: String| Err(Error::new(ErrorKind::Misuse, "read schema", why));
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            return misuse(format!("{} fields, expected 1 to {FIELDS_MAX}", fields.len()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(&field.name)) {
            return misuse(format!("two fields have the name `{}`", twice.name));
        }
        let steps = fields.iter().map(Field::step_bytes).collect::<Result<Vec<_>>>()?;
        let fixed = !fields.iter().any(Field::is_ragged);
        let places = if fixed { places(&steps) } else { None };
        if fixed && places.is_none() {
            return misuse("a sample of these fields is beyond memory".to_owned());
        }
        Ok(Self { fields, steps, places })
    }

    /// Reads the schema of a data set.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed, else as [`Schema::of`].
    pub fn from_json(json: &serde_json::Value) -> Result<Self> {
        let parsed = SchemaJson::deserialize(json)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "read schema", format!("schema: {error}")))?;
        Self::of(parsed.fields)
    }

    /// The JSON for a manifest and a shard's index.
    ///
    /// # Panics
    /// Never: names, types and numbers always become JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(SchemaJson { fields: self.fields.clone() }).expect("plain data")
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The first field: the only one, in many data sets.
    #[must_use]
    pub fn field(&self) -> &Field {
        &self.fields[0]
    }

    /// The number of the field of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Whether samples differ in length.
    #[must_use]
    pub fn is_ragged(&self) -> bool {
        self.places.is_none()
    }

    /// Bytes of field `number` in every sample; where it is ragged, of one step along the dimension that varies.
    #[must_use]
    pub fn step_bytes(&self, number: usize) -> usize {
        self.steps[number]
    }

    /// Bytes of every record, if all have the same.
    #[must_use]
    pub fn sample_bytes(&self) -> Option<usize> {
        self.places.as_ref().and_then(|places| places.last()).map(|last| last.end)
    }

    /// Where each field lies in a record, if that is the same for all.
    #[must_use]
    pub fn places(&self) -> Option<&[Range<usize>]> {
        self.places.as_deref()
    }

    /// Whether a record may have `bytes` bytes.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        match (self.sample_bytes(), &self.fields[..]) {
            (Some(all), _) => to_usize(bytes) == all,
            (None, [_]) => to_usize(bytes).is_multiple_of(self.steps[0]),
            (None, fields) => to_usize(bytes) >= fields.len() * LENGTH_BYTES,
        }
    }

    /// Bytes at the start of a record that tell where its fields lie; none where the schema tells it.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        if self.fields.len() == 1 { 0 } else { self.fields.len() * LENGTH_BYTES }
    }

    /// Where each field of a record of `record_bytes` lies, given the first [`Schema::table_bytes`] of it.
    ///
    /// # Errors
    /// `Corrupt` when the table contradicts the schema or the record's length.
    pub fn split(&self, table: &[u8], record_bytes: usize) -> Result<Vec<Range<usize>>> {
        let corrupt = |why: String| Error::new(ErrorKind::Corrupt, "read sample", why);
        if self.fields.len() == 1 {
            return Ok(std::iter::once(0..record_bytes).collect());
        }
        let lens: Vec<usize> = table
            .chunks_exact(LENGTH_BYTES)
            .filter_map(|bytes| Some(to_usize(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))))
            .collect();
        let places = Some(lens).filter(|lens| lens.len() == self.fields.len()).and_then(|lens| places(&lens));
        let places = places.ok_or_else(|| corrupt("the table of fields is cut short".to_owned()))?;
        for ((place, field), step) in places.iter().zip(&self.fields).zip(&self.steps) {
            let fits =
                if field.is_ragged() { place.len().is_multiple_of(*step) } else { place.len() == *step };
            if !fits {
                let (name, len) = (&field.name, place.len());
                return Err(corrupt(format!("field `{name}` has {len} bytes, expected steps of {step}")));
            }
        }
        let end = places.last().map_or(0, |last| last.end);
        if end != record_bytes {
            return Err(corrupt(format!("a sample's fields end at {end}, its record at {record_bytes}")));
        }
        Ok(places)
    }

    /// Appends the record of a sample with these field values to `record`.
    ///
    /// # Errors
    /// `Misuse` when there are more or fewer values than fields, or one has a length its field cannot have.
    pub fn encode(&self, values: &[&[u8]], record: &mut Vec<u8>) -> Result<()> {
        let misuse = |why: String| Error::new(ErrorKind::Misuse, "write sample", why);
        if values.len() != self.fields.len() {
            return Err(misuse(format!("{} values, expected {}", values.len(), self.fields.len())));
        }
        for ((value, field), step) in values.iter().zip(&self.fields).zip(&self.steps) {
            let fits =
                if field.is_ragged() { value.len().is_multiple_of(*step) } else { value.len() == *step };
            if !fits {
                let what = if field.is_ragged() { "a multiple of " } else { "" };
                let (name, len) = (&field.name, value.len());
                return Err(misuse(format!("field `{name}` has {len} bytes, expected {what}{step}")));
            }
        }
        if let [value] = values {
            record.extend_from_slice(value);
            return Ok(());
        }
        let start = record.len();
        for value in values {
            let len = u32::try_from(value.len())
                .map_err(|_| misuse(format!("a field of {} bytes, at most 4 GiB", value.len())))?;
            record.extend_from_slice(&len.to_le_bytes());
        }
        for value in values {
            let used = record.len() - start;
            record.resize(start + used.next_multiple_of(FIELD_ALIGN), 0);
            record.extend_from_slice(value);
        }
        Ok(())
    }

    /// Elements of field `number` in a sample of `bytes` bytes.
    #[must_use]
    pub fn elements(&self, number: usize, bytes: usize) -> u64 {
        to_u64(bytes / self.fields[number].dtype.bytes())
    }
}

/// Where fields of these lengths lie in their record; none when it would be beyond memory.
fn places(lens: &[usize]) -> Option<Vec<Range<usize>>> {
    if let [len] = lens {
        return Some(std::iter::once(0..*len).collect());
    }
    let mut end = lens.len() * LENGTH_BYTES;
    lens.iter()
        .map(|len| {
            let start = end.checked_next_multiple_of(FIELD_ALIGN)?;
            end = start.checked_add(*len).filter(|end| *end <= 2 * SAMPLE_BYTES_MAX)?;
            Some(start..end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(dtype: Dtype, shape: &[i64]) -> Field {
        Field::fixed("x", dtype, shape)
    }

    #[test]
    fn sizes_follow_from_type_and_shape() {
        let fixed = Schema::new(field(Dtype::Bf16, &[3, 5])).unwrap();
        assert_eq!((fixed.sample_bytes(), fixed.is_ragged()), (Some(30), false));
        assert!(fixed.fits(30) && !fixed.fits(29));
        let ragged = Schema::new(field(Dtype::U16, &[-1, 4])).unwrap();
        assert_eq!((ragged.sample_bytes(), ragged.is_ragged()), (None, true));
        assert!(ragged.fits(0) && ragged.fits(16) && !ragged.fits(12));
        let scalar = Schema::new(field(Dtype::F64, &[])).unwrap();
        assert_eq!(scalar.sample_bytes(), Some(8));
        assert_eq!(Schema::from_json(&ragged.to_json()).unwrap(), ragged);
        let two =
            Schema::of(vec![Field::fixed("image", Dtype::U8, &[3]), Field::fixed("label", Dtype::I64, &[])]);
        let two = two.unwrap();
        assert_eq!(two.places().unwrap(), [8..11, 16..24]);
        assert_eq!((two.sample_bytes(), two.position("label")), (Some(24), Some(1)));
    }

    #[test]
    fn bad_schemas_are_refused() {
        for shape in [&[-1, -1][..], &[0], &[-2], &[i64::MAX, i64::MAX], &[i64::MAX]] {
            assert_eq!(
                Schema::new(field(Dtype::U8, shape)).unwrap_err().kind(),
                ErrorKind::Misuse,
                "{shape:?}"
            );
        }
        let twice = serde_json::json!({"fields": [field(Dtype::U8, &[1]), field(Dtype::U8, &[1])]});
        assert!(Schema::from_json(&twice).unwrap_err().to_string().contains("two fields"));
        assert!(Schema::of(Vec::new()).is_err());
        assert!(Schema::new(Field::ragged("", Dtype::U8)).is_err());
        assert_eq!(
            Schema::from_json(&serde_json::json!({"fields": 3})).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }

    proptest! {
        #[test]
        fn fields_come_back_from_their_record(lens in prop::collection::vec(0_usize..40, 1..6), label: u32) {
            let mut fields: Vec<Field> =
                (0..lens.len()).map(|n| Field::ragged(&format!("f{n}"), Dtype::U8)).collect();
            fields.push(Field::fixed("label", Dtype::U32, &[]));
            let schema = Schema::of(fields).unwrap();
            let data: Vec<Vec<u8>> = lens.iter().map(|len| vec![7; *len]).collect();
            let label = label.to_le_bytes();
            let values: Vec<&[u8]> = data.iter().map(|v| &v[..]).chain([&label[..]]).collect();
            let mut record = b"before".to_vec();
            schema.encode(&values, &mut record).unwrap();
            let record = &record[6..];
            prop_assert!(schema.fits(to_u64(record.len())));
            let places = schema.split(&record[..schema.table_bytes()], record.len()).unwrap();
            for (place, value) in places.iter().zip(&values) {
                prop_assert!(&record[place.clone()] == *value && place.start % 8 == 0);
            }
            prop_assert!(schema.split(&record[..schema.table_bytes()], record.len() + 1).is_err());
        }

        #[test]
        fn hostile_tables_are_errors(table in prop::collection::vec(any::<u8>(), 0..24), len in 0_usize..100) {
            let schema = Schema::of(vec![Field::ragged("a", Dtype::U16), Field::fixed("b", Dtype::U8, &[9])]).unwrap();
            if let Ok(places) = schema.split(&table, len) {
                prop_assert_eq!(places.last().unwrap().end, len);
            }
        }
    }
}
