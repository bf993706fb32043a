//! The tensors of an object: names, types, shapes, in the order of their data.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::Dtype;
use super::header::{HEADER_BYTES_MAX, LEN_BYTES, METADATA, RawHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ByteRange, to_u64, to_usize};

/// Most axes of a tensor.
const AXES_MAX: usize = 64;

/// One tensor of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, unique in the table.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its lengths, the leading axis first; none for a scalar.
    pub shape: Vec<u64>,
    /// Its bytes in the data of a safetensors file.
    pub data: ByteRange,
}

impl TensorInfo {
    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.data.end - self.data.start
    }
}

/// The tensors of an object and the safetensors header that describes them. Their data follow each other without a
/// gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorTable {
    header: Vec<u8>,
    metadata: BTreeMap<String, String>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl TensorTable {
    /// Reads the length that a safetensors file begins with.
    ///
    /// # Errors
    /// `Corrupt` when it is over the limit, or more than a file of `file_bytes` can hold.
    pub fn header_bytes(prefix: [u8; LEN_BYTES], file_bytes: u64) -> Result<usize> {
        let len = u64::from_le_bytes(prefix);
        let room = file_bytes.saturating_sub(to_u64(LEN_BYTES));
        if len > HEADER_BYTES_MAX || len > room {
            let most = HEADER_BYTES_MAX.min(room);
            return Err(corrupt(format!("header of {len} bytes, at most {most} are possible"))
                .hint("is this a safetensors file, and is it whole?"));
        }
        Ok(to_usize(len))
    }

    /// Parses a header (without the length before it) and checks it: names once, known types, lengths that are those of
    /// the shapes, data without overlap or gap from 0 on.
    ///
    /// # Errors
    /// `Corrupt` with the first breach, `Unsupported` for an unknown type.
    pub fn parse(header: Vec<u8>) -> Result<Self> {
        if to_u64(header.len()) > HEADER_BYTES_MAX || header.first() != Some(&b'{') {
            return Err(corrupt("the header is no JSON object, or over 100 MB".to_owned()));
        }
        let raw: RawHeader =
            serde_json::from_slice(&header).map_err(|error| corrupt(format!("header: {error}")))?;
        let mut tensors = Vec::with_capacity(raw.tensors.len());
        for (name, tensor) in raw.tensors {
            let dtype: Dtype = tensor.dtype.parse().map_err(|error: Error| {
                Error::new(error.kind(), "parse", format!("tensor `{}`: {error}", shown(&name)))
            })?;
            let [start, end] = tensor.data_offsets;
            let expected = dtype.bytes_of(&tensor.shape).filter(|_| tensor.shape.len() <= AXES_MAX);
            if expected.is_none() || expected != end.checked_sub(start) {
                let why = format!(
                    "tensor `{}`, {dtype} {:?}: its data are at {start}..{end}, expected {} bytes",
                    shown(&name),
                    &tensor.shape[..tensor.shape.len().min(AXES_MAX)],
                    expected.map_or("a whole number of".to_owned(), |bytes| bytes.to_string())
                );
                return Err(corrupt(why));
            }
            tensors.push(TensorInfo { name, dtype, shape: tensor.shape, data: start..end });
        }
        tensors.sort_by_key(|tensor| (tensor.data.start, tensor.data.end));
        let mut end = 0;
        for tensor in &tensors {
            if tensor.data.start != end {
                let what = if tensor.data.start < end { "overlap those of another" } else { "follow a gap" };
                let why = format!("tensor `{}`: its data at {:?} {what}", shown(&tensor.name), tensor.data);
                return Err(corrupt(why));
            }
            end = tensor.data.end;
        }
        Ok(Self::of(header, raw.metadata.unwrap_or_default(), tensors))
    }

    /// The table of `tensors` and `metadata`, laid out as the reference implementation does: wide types first, then by
    /// name.
    ///
    /// # Errors
    /// `Misuse` for a name that stands twice or is reserved, a shape without a whole number of bytes, or too much.
    pub fn build(
        tensors: impl IntoIterator<Item = (String, Dtype, Vec<u64>)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let misuse = |why: String| Error::new(ErrorKind::Misuse, "put", why);
        let mut infos = Vec::new();
        for (name, dtype, shape) in tensors {
            let bytes = dtype.bytes_of(&shape).filter(|_| name != METADATA && shape.len() <= AXES_MAX);
            let bytes =
                bytes.ok_or_else(|| misuse(format!("no tensor: `{}` {dtype} {shape:?}", shown(&name))))?;
            infos.push(TensorInfo { name, dtype, shape, data: 0..bytes });
        }
        infos.sort_by(|one, other| other.dtype.cmp(&one.dtype).then_with(|| one.name.cmp(&other.name)));
        let mut end = 0_u64;
        for tensor in &mut infos {
            let start = end;
            end = end.checked_add(tensor.data.end).ok_or_else(|| misuse("too many bytes".to_owned()))?;
            tensor.data = start..end;
        }
        let mut header = encode(&infos, &metadata)?;
        header.resize(header.len().next_multiple_of(LEN_BYTES), b' ');
        let table = Self::of(header, metadata, infos);
        if table.by_name.len() < table.tensors.len() {
            return Err(misuse("two tensors have the same name".to_owned()));
        }
        if to_u64(table.header.len()) > HEADER_BYTES_MAX {
            return Err(misuse(format!(
                "a table of {} bytes, at most {HEADER_BYTES_MAX}",
                table.header.len()
            )));
        }
        Ok(table)
    }

    fn of(header: Vec<u8>, metadata: BTreeMap<String, String>, tensors: Vec<TensorInfo>) -> Self {
        let by_name =
            tensors.iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        Self { header, metadata, tensors, by_name }
    }

    /// The header, byte for byte as it was given or made.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// What a safetensors file of this table begins with.
    #[must_use]
    pub fn file_prefix(&self) -> Vec<u8> {
        [&to_u64(self.header.len()).to_le_bytes()[..], &self.header].concat()
    }

    /// The header's `__metadata__`.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensors, in the order of their data.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The number of the tensor of that name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.tensors.last().map_or(0, |tensor| tensor.data.end)
    }

    /// Where each tensor lies in the payload of an object whose blocks hold `capacity` bytes.
    #[must_use]
    pub fn places(&self, capacity: u64) -> Vec<Range<u64>> {
        super::layout::places(self.tensors.iter().map(TensorInfo::bytes), capacity)
    }
}

fn encode(tensors: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::new(ErrorKind::Misuse, "put", format!("table: {error}"));
    let mut json = b"{".to_vec();
    let mut entry = |name: &str, value: &serde_json::Value| {
        if json.len() > 1 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, name).map_err(failed)?;
        json.push(b':');
        serde_json::to_writer(&mut json, value).map_err(failed)
    };
    if !metadata.is_empty() {
        entry(METADATA, &serde_json::json!(metadata))?;
    }
    for tensor in tensors {
        let value = serde_json::json!({
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "data_offsets": [tensor.data.start, tensor.data.end],
        });
        entry(&tensor.name, &value)?;
    }
    json.push(b'}');
    Ok(json)
}

/// A name of any length from anywhere, fit for a message.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

fn corrupt(why: String) -> Error {
    Error::new(ErrorKind::Corrupt, "parse", why)
}
