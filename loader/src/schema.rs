//! What a sample looks like: its field's name, element type and shape (docs/specs/format.md, section 7).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tierstream_storage::units::to_usize;
use tierstream_storage::{Error, ErrorKind, Result};

/// An element type, stored little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Unsigned 8 bits: bytes, byte tokens, pixels.
    U8,
    /// Signed 8 bits.
    I8,
    /// Unsigned 16 bits: tokens of a vocabulary up to 65536.
    U16,
    /// Signed 16 bits.
    I16,
    /// Unsigned 32 bits.
    U32,
    /// Signed 32 bits.
    I32,
    /// Unsigned 64 bits.
    U64,
    /// Signed 64 bits.
    I64,
    /// IEEE half precision.
    F16,
    /// Brain float: the upper half of an `F32`.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    const ALL: [Self; 12] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
    ];

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.to_string() == text).ok_or_else(|| {
            let known: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            Error::new(
                ErrorKind::Misuse,
                "parse",
                format!("unknown dtype `{text}`, expected one of {}", known.join(" ")),
            )
        })
    }
}

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

#[derive(Serialize, Deserialize)]
struct SchemaJson {
    fields: Vec<Field>,
}

/// What a sample of a data set looks like. Today a sample has one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    field: Field,
    // Elements of the known dimensions, in bytes.
    step_bytes: usize,
    ragged: bool,
}

impl Schema {
    /// The schema of samples with one field.
    ///
    /// # Errors
    /// `Misuse` for an empty name, more than one -1, a dimension of zero or below -1, or a size beyond memory.
    pub fn new(field: Field) -> Result<Self> {
        let misuse = |why: String| Error::new(ErrorKind::Misuse, "read schema", why);
        if field.name.is_empty() {
            return Err(misuse("a field has no name".to_owned()));
        }
        let ragged = field.shape.iter().filter(|length| **length == -1).count();
        if ragged > 1 || field.shape.iter().any(|length| *length == 0 || *length < -1) {
            return Err(misuse(format!(
                "shape {:?}: at most one dimension is -1, the others are positive",
                field.shape
            )));
        }
        let step_bytes = field
            .shape
            .iter()
            .filter(|length| **length > 0)
            .try_fold(field.dtype.bytes(), |bytes, length| bytes.checked_mul(usize::try_from(*length).ok()?))
            .ok_or_else(|| misuse(format!("shape {:?} is beyond memory", field.shape)))?;
        Ok(Self { field, step_bytes, ragged: ragged == 1 })
    }

    /// Reads the schema of a data set.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed, `Unsupported` for samples of several fields.
    pub fn from_json(json: &serde_json::Value) -> Result<Self> {
        let parsed = SchemaJson::deserialize(json)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "read schema", format!("schema: {error}")))?;
        let Ok([field]) = <[Field; 1]>::try_from(parsed.fields) else {
            let why = "samples of several fields are not supported by this version";
            return Err(Error::new(ErrorKind::Unsupported, "read schema", why));
        };
        Self::new(field)
    }

    /// The JSON for a manifest and a shard's index.
    ///
    /// # Panics
    /// Never: names, types and numbers always become JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(SchemaJson { fields: vec![self.field.clone()] }).expect("plain data")
    }

    /// The field.
    #[must_use]
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Whether samples differ in length.
    #[must_use]
    pub fn is_ragged(&self) -> bool {
        self.ragged
    }

    /// Bytes of every sample, if all have the same.
    #[must_use]
    pub fn sample_bytes(&self) -> Option<usize> {
        (!self.ragged).then_some(self.step_bytes)
    }

    /// Whether a sample may have `bytes` bytes.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        if self.ragged {
            to_usize(bytes).is_multiple_of(self.step_bytes)
        } else {
            to_usize(bytes) == self.step_bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(dtype: Dtype, shape: &[i64]) -> Field {
        Field { name: "x".to_owned(), dtype, shape: shape.to_vec() }
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
    }

    #[test]
    fn bad_schemas_are_refused() {
        for shape in [&[-1, -1][..], &[0], &[-2], &[i64::MAX, i64::MAX]] {
            assert_eq!(
                Schema::new(field(Dtype::U8, shape)).unwrap_err().kind(),
                ErrorKind::Misuse,
                "{shape:?}"
            );
        }
        let two = serde_json::json!({"fields": [field(Dtype::U8, &[1]), field(Dtype::U8, &[1])]});
        assert_eq!(Schema::from_json(&two).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(
            Schema::from_json(&serde_json::json!({"fields": 3})).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert!("u9".parse::<Dtype>().unwrap_err().to_string().contains("bf16"));
        for dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
    }
}
