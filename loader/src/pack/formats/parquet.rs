//! Parquet files: a row a sample, a row group a part. Numbers and booleans become typed fields, texts and binaries bytes,
//! lists of numbers ragged fields of their type. The first row tells the types of lists.
//!
//! The parser is the parquet crate's: what it makes of a damaged file is caught here, panics included.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field as Cell, Row};
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::PlainFile;
use super::{Each, Format, Sample, corrupt};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// Parquet files.
#[derive(Debug)]
pub(super) struct Parquet {
    files: Vec<PathBuf>,
    // File and row group of each part.
    pieces: Vec<(usize, usize)>,
    parts: Vec<u64>,
    // A field has the name of its column.
    schema: Schema,
}

impl Parquet {
    pub(super) fn open(files: Vec<PathBuf>, wanted: Option<&[String]>) -> Result<Self> {
        let (mut pieces, mut parts) = (Vec::new(), Vec::new());
        let mut schema = None;
        for (number, path) in files.iter().enumerate() {
            let file = PlainFile::open(path)?;
            guarded(&file, || {
                let reader = reader(&file)?;
                for (group, metadata) in reader.metadata().row_groups().iter().enumerate() {
                    pieces.push((number, group));
                    parts.push(u64::try_from(metadata.total_byte_size()).unwrap_or(0));
                }
                if schema.is_none()
                    && let Some(row) = reader.get_row_iter(None).map_err(|error| bad(&file, &error))?.next()
                {
                    let row = row.map_err(|error| bad(&file, &error))?;
                    let names: Vec<String> = row.get_column_iter().map(|(name, _)| name.clone()).collect();
                    let chosen = super::choose(&names, wanted, path)?;
                    let fields = chosen.iter().map(|at| {
                        let (name, cell) = row.get_column_iter().nth(*at).unwrap_or((&names[0], &Cell::Null));
                        field(name, cell).map_err(|why| corrupt(path, (0, file.bytes()), why).hint(HINT))
                    });
                    schema = Some(Schema::of(fields.collect::<Result<_>>()?)?);
                }
                Ok(())
            })?;
        }
        let schema =
            schema.ok_or_else(|| Error::new(ErrorKind::Misuse, "read input", "the files have no rows"))?;
        Ok(Self { files, pieces, parts, schema })
    }

    /// Encodes a row into a buffer a field.
    fn encode(&self, row: &Row, buffers: &mut [Vec<u8>]) -> std::result::Result<(), String> {
        for (field, to) in self.schema.fields().iter().zip(buffers) {
            to.clear();
            let cell = row.get_column_iter().find(|(name, _)| **name == field.name);
            let (_, cell) = cell.ok_or_else(|| format!("a row has no column `{}`", field.name))?;
            encode(cell, field, to)?;
        }
        Ok(())
    }
}

const HINT: &str = "choose columns of numbers, texts or lists of numbers, without nulls, with --fields";

fn reader(file: &PlainFile) -> Result<SerializedFileReader<std::fs::File>> {
    SerializedFileReader::new(file.reopen()?).map_err(|error| bad(file, &error))
}

fn bad(file: &PlainFile, error: &ParquetError) -> Error {
    corrupt(file.path(), (0, file.bytes()), format!("parquet: {error}"))
}

/// What the parser promises to be impossible is an error of the file here.
fn guarded<T>(file: &PlainFile, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(corrupt(file.path(), (0, file.bytes()), "the parquet parser gave up on it")))
}

/// Type of a number, and its bytes.
fn number(cell: &Cell) -> Option<(Dtype, Vec<u8>)> {
    Some(match cell {
        Cell::Bool(value) => (Dtype::U8, vec![u8::from(*value)]),
        Cell::Byte(value) => (Dtype::I8, value.to_le_bytes().to_vec()),
        Cell::Short(value) => (Dtype::I16, value.to_le_bytes().to_vec()),
        Cell::Int(value) | Cell::Date(value) | Cell::TimeMillis(value) => {
            (Dtype::I32, value.to_le_bytes().to_vec())
        }
        Cell::Long(value)
        | Cell::TimeMicros(value)
        | Cell::TimestampMillis(value)
        | Cell::TimestampMicros(value) => (Dtype::I64, value.to_le_bytes().to_vec()),
        Cell::UByte(value) => (Dtype::U8, vec![*value]),
        Cell::UShort(value) => (Dtype::U16, value.to_le_bytes().to_vec()),
        Cell::UInt(value) => (Dtype::U32, value.to_le_bytes().to_vec()),
        Cell::ULong(value) => (Dtype::U64, value.to_le_bytes().to_vec()),
        Cell::Float16(value) => (Dtype::F16, value.to_le_bytes().to_vec()),
        Cell::Float(value) => (Dtype::F32, value.to_le_bytes().to_vec()),
        Cell::Double(value) => (Dtype::F64, value.to_le_bytes().to_vec()),
        _ => return None,
    })
}

fn field(name: &str, cell: &Cell) -> std::result::Result<Field, String> {
    if let Some((dtype, _)) = number(cell) {
        return Ok(Field::fixed(name, dtype, &[]));
    }
    match cell {
        Cell::Str(_) | Cell::Bytes(_) => Ok(Field::ragged(name, Dtype::U8)),
        Cell::ListInternal(list) => match list.elements().first().and_then(number) {
            Some((dtype, _)) => Ok(Field::ragged(name, dtype)),
            None => Err(format!("column `{name}` has an empty list, or one of no numbers, in the first row")),
        },
        _ => Err(format!("column `{name}` is {cell} in the first row")),
    }
}

fn encode(cell: &Cell, field: &Field, to: &mut Vec<u8>) -> std::result::Result<(), String> {
    let unlike = || format!("column `{}` has {cell}, unlike the first row", field.name);
    match cell {
        Cell::Str(text) if field.is_ragged() && field.dtype == Dtype::U8 => {
            to.extend_from_slice(text.as_bytes())
        }
        Cell::Bytes(bytes) if field.is_ragged() && field.dtype == Dtype::U8 => {
            to.extend_from_slice(bytes.data())
        }
        Cell::ListInternal(list) if field.is_ragged() => {
            for element in list.elements() {
                let (_, bytes) =
                    number(element).filter(|(dtype, _)| *dtype == field.dtype).ok_or_else(unlike)?;
                to.extend_from_slice(&bytes);
            }
        }
        cell => {
            let fits = |found: &(Dtype, Vec<u8>)| found.0 == field.dtype && !field.is_ragged();
            to.extend_from_slice(&number(cell).filter(fits).ok_or_else(unlike)?.1);
        }
    }
    Ok(())
}

impl Format for Parquet {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let (number, group) = self.pieces[part];
        let file = PlainFile::open(&self.files[number])?;
        let mut buffers = vec![Vec::new(); self.schema.fields().len()];
        guarded(&file, || {
            let reader = reader(&file)?;
            let group = reader.get_row_group(group).map_err(|error| bad(&file, &error))?;
            for row in group.get_row_iter(None).map_err(|error| bad(&file, &error))? {
                let row = row.map_err(|error| bad(&file, &error))?;
                self.encode(&row, &mut buffers)
                    .map_err(|why| corrupt(file.path(), (0, file.bytes()), why).hint(HINT))?;
                let values: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
                let input_bytes =
                    values.iter().map(|value| tierstream_storage::units::to_u64(value.len())).sum();
                each(Sample { name: None, values: &values, input_bytes })?;
            }
            Ok(())
        })
    }
}
