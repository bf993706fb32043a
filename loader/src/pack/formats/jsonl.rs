//! JSON lines: one object a line. Texts become UTF-8 bytes, whole numbers i64, others f64, booleans u8; what is nested
//! is kept as its JSON. The first line tells the fields and their types. Large files are read in parts, each from the
//! first line that begins in it.

use std::path::PathBuf;

use serde_json::Value;
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::PlainFile;
use super::{Each, Format, PART_BYTES, Sample, corrupt};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// Files of JSON lines.
#[derive(Debug)]
pub(super) struct JsonLines {
    files: Vec<PlainFile>,
    pieces: Vec<(usize, std::ops::Range<u64>)>,
    parts: Vec<u64>,
    schema: Schema,
}

impl JsonLines {
    pub(super) fn open(paths: &[PathBuf], wanted: Option<&[String]>) -> Result<Self> {
        let files = paths.iter().map(|path| PlainFile::open(path)).collect::<Result<Vec<_>>>()?;
        let Some(file) = files.first() else {
            return Err(Error::new(ErrorKind::Misuse, "read input", "no files"));
        };
        let mut stream = file.stream(0, file.bytes());
        let first = stream.line()?.map(<[u8]>::to_vec).unwrap_or_default();
        let Ok(Value::Object(object)) = serde_json::from_slice(&first) else {
            let why = "the first line is no JSON object";
            return Err(corrupt(file.path(), (0, to_u64(first.len())), why));
        };
        let names: Vec<String> = object.keys().cloned().collect();
        let chosen = super::choose(&names, wanted, file.path())?;
        let fields = chosen.iter().map(|at| field(&names[*at], &object[&names[*at]])).collect();
        let schema = Schema::of(fields)?;
        let (mut pieces, mut parts) = (Vec::new(), Vec::new());
        for (number, file) in files.iter().enumerate() {
            for start in (0..file.bytes()).step_by(usize::try_from(PART_BYTES).unwrap_or(usize::MAX)) {
                let end = file.bytes().min(start + PART_BYTES);
                pieces.push((number, start..end));
                parts.push(end - start);
            }
        }
        Ok(Self { files, pieces, parts, schema })
    }
}

fn field(name: &str, value: &Value) -> Field {
    match value {
        Value::Number(number) if number.is_i64() => Field::fixed(name, Dtype::I64, &[]),
        Value::Number(_) => Field::fixed(name, Dtype::F64, &[]),
        Value::Bool(_) => Field::fixed(name, Dtype::U8, &[]),
        _ => Field::ragged(name, Dtype::U8),
    }
}

/// The bytes of a value for a field of this type.
fn encode(value: &Value, field: &Field, to: &mut Vec<u8>) -> std::result::Result<(), String> {
    match (field.dtype, field.is_ragged(), value) {
        (Dtype::U8, true, Value::String(text)) => to.extend_from_slice(text.as_bytes()),
        (Dtype::U8, true, nested @ (Value::Array(_) | Value::Object(_) | Value::Null)) => {
            to.extend_from_slice(nested.to_string().as_bytes());
        }
        (Dtype::I64, false, Value::Number(number)) if number.is_i64() => {
            to.extend_from_slice(&number.as_i64().unwrap_or(0).to_le_bytes());
        }
        (Dtype::F64, false, Value::Number(number)) => {
            to.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
        }
        (Dtype::U8, false, Value::Bool(value)) => to.push(u8::from(*value)),
        (dtype, ragged, _) => {
            let expected = if ragged { "text".to_owned() } else { dtype.to_string() };
            let mut found = value.to_string();
            found.truncate(found.floor_char_boundary(40));
            return Err(format!(
                "field `{}` is {found}, expected {expected} as in the first line",
                field.name
            ));
        }
    }
    Ok(())
}

impl Format for JsonLines {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let (number, bytes) = &self.pieces[part];
        let file = &self.files[*number];
        // A line that began before this part is of that one: from the byte before, the first end of a line is passed.
        let mut stream = file.stream(bytes.start.saturating_sub(1), file.bytes());
        if bytes.start > 0 {
            stream.line()?;
        }
        let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); self.schema.fields().len()];
        loop {
            let at = stream.offset();
            if at >= bytes.end {
                return Ok(());
            }
            let Some(line) = stream.line()? else { return Ok(()) };
            let len = to_u64(line.len()) + 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let bad = |why: String| corrupt(file.path(), (at, len), why);
            let object: serde_json::Map<String, Value> = serde_json::from_slice(line)
                .map_err(|error| bad(format!("a line is no JSON object: {error}")))?;
            for (field, to) in self.schema.fields().iter().zip(&mut buffers) {
                to.clear();
                let value = object.get(&field.name);
                let value = value.ok_or_else(|| bad(format!("a line has no field `{}`", field.name)))?;
                encode(value, field, to).map_err(bad)?;
            }
            let values: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
            each(Sample { name: None, values: &values, input_bytes: len })?;
        }
    }
}
