//! Arrays with a first dimension in common: row `i` of all of them is sample `i`. Shared by npy, npz and safetensors.

use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::{PlainFile, Stream};
use super::{Each, Format, PART_BYTES, SAMPLE_BYTES_MAX, Sample};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// One array of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Where its bytes begin.
    pub(super) offset: u64,
}

/// The arrays of one file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) file: PlainFile,
    pub(super) columns: Vec<Column>,
}

/// Arrays of one or more files, one behind the other.
#[derive(Debug)]
pub(super) struct Columns {
    tables: Vec<Table>,
    // Table and rows of each part.
    pieces: Vec<(usize, std::ops::Range<u64>)>,
    parts: Vec<u64>,
    schema: Schema,
}

impl Columns {
    pub(super) fn new(mut tables: Vec<Table>, wanted: Option<&[String]>) -> Result<Self> {
        let misuse = |table: &Table, why: String, hint: &str| {
            Err(Error::new(ErrorKind::Misuse, "read input", why).at(table.file.path()).hint(hint))
        };
        for table in &mut tables {
            let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
            let chosen = super::choose(&names, wanted, table.file.path())?;
            table.columns = chosen.iter().map(|at| table.columns[*at].clone()).collect();
        }
        let Some(first) = tables.first() else {
            return Err(Error::new(ErrorKind::Misuse, "read input", "no files"));
        };
        let schema = Schema::of(fields(&first.columns))?;
        let row_bytes = schema.sample_bytes().map_or(0, to_u64);
        if row_bytes > SAMPLE_BYTES_MAX {
            return misuse(
                first,
                format!("samples of {row_bytes} bytes"),
                "is the first dimension that of samples?",
            );
        }
        let (mut pieces, mut parts) = (Vec::new(), Vec::new());
        for (number, table) in tables.iter().enumerate() {
            if fields(&table.columns) != schema.fields() {
                let why =
                    "its arrays have other names, types or shapes than those of the first file".to_owned();
                return misuse(table, why, "pack files of one kind at a time, or choose --fields");
            }
            let rows = table.columns.first().and_then(|column| column.shape.first()).copied();
            let lens: Vec<_> =
                table.columns.iter().map(|column| (&column.name, column.shape.first())).collect();
            let Some(rows) = rows.filter(|rows| lens.iter().all(|(_, len)| *len == Some(rows))) else {
                let why = format!("its arrays have no first dimension in common: {lens:?}");
                let hint = "choose arrays of one length with --fields; weights belong into `tierstream tensors import`";
                return misuse(table, why, hint);
            };
            let step = (PART_BYTES / row_bytes.max(1)).max(1);
            for start in (0..rows).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let end = rows.min(start + step);
                pieces.push((number, start..end));
                parts.push((end - start) * row_bytes);
            }
        }
        Ok(Self { tables, pieces, parts, schema })
    }
}

fn fields(columns: &[Column]) -> Vec<Field> {
    let shape = |column: &Column| -> Vec<i64> {
        column.shape.iter().skip(1).map(|length| i64::try_from(*length).unwrap_or(0)).collect()
    };
    columns.iter().map(|column| Field::fixed(&column.name, column.dtype, &shape(column))).collect()
}

impl Format for Columns {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let (table, rows) = &self.pieces[part];
        let Table { file, columns } = &self.tables[*table];
        let bytes: Vec<u64> =
            (0..columns.len()).map(|number| to_u64(self.schema.step_bytes(number))).collect();
        let stream = |(column, bytes): (&Column, &u64)| {
            file.stream(column.offset + rows.start * bytes, column.offset + rows.end * bytes)
        };
        let mut streams: Vec<Stream<'_>> = columns.iter().zip(&bytes).map(stream).collect();
        let input_bytes = bytes.iter().sum();
        for _ in rows.clone() {
            let values = streams.iter_mut().zip(&bytes).map(|(stream, bytes)| stream.take(*bytes));
            let values = values.collect::<Result<Vec<&[u8]>>>()?;
            each(Sample { name: None, values: &values, input_bytes })?;
        }
        Ok(())
    }
}
