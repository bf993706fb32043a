//! MosaicML MDS: a directory with `index.json` and shards of samples. Each shard is a part.
//!
//! A shard file is `u32 n`, `u32 offset` of each of the `n` samples and of the end, JSON, samples. A sample is the
//! lengths of its columns that vary (u32 each), then its columns. Scalars and arrays of one type and shape become typed
//! fields; everything else (text, images, pickles, arrays of many shapes) is bytes as they are stored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::PlainFile;
use super::{Each, Format, SAMPLE_BYTES_MAX, Sample, corrupt};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// An index of a million shards is 300 MB; this is one that memory holds.
const INDEX_BYTES_MAX: u64 = 256 << 20;

#[derive(Deserialize)]
struct Index {
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, Deserialize)]
struct Shard {
    column_names: Vec<String>,
    column_encodings: Vec<String>,
    column_sizes: Vec<Option<u64>>,
    compression: Option<String>,
    format: String,
    raw_data: Data,
    samples: u64,
    zip_data: Option<Data>,
}

#[derive(Clone, Debug, Deserialize)]
struct Data {
    basename: String,
    bytes: u64,
}

/// An MDS directory.
#[derive(Debug)]
pub(super) struct Mds {
    root: PathBuf,
    shards: Vec<Shard>,
    parts: Vec<u64>,
    // Column of each field.
    chosen: Vec<usize>,
    schema: Schema,
}

impl Mds {
    pub(super) fn open(root: &Path, fields: Option<&[String]>) -> Result<Self> {
        let path = root.join("index.json");
        let file = PlainFile::open(&path)?;
        let bad = |why: String| corrupt(&path, (0, file.bytes()), why);
        if file.bytes() > INDEX_BYTES_MAX {
            return Err(bad(format!("an index of {} bytes", file.bytes())));
        }
        let text = file.read(0, file.bytes())?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|error| bad(format!("no MDS index: {error}")))?;
        let first = index.shards.first().ok_or_else(|| bad("it lists no shards".to_owned()))?.clone();
        for (number, shard) in index.shards.iter().enumerate() {
            let columns = shard.column_names.len();
            if shard.format != "mds" {
                return Err(bad(format!("shard {number} is of format `{}`, expected mds", shard.format)));
            }
            if shard.column_encodings.len() != columns || shard.column_sizes.len() != columns {
                return Err(bad(format!(
                    "shard {number} has {columns} columns and other numbers of encodings or sizes"
                )));
            }
            if (&shard.column_names, &shard.column_encodings)
                != (&first.column_names, &first.column_encodings)
            {
                return Err(bad(format!("shard {number} has other columns than the first")));
            }
            for data in std::iter::once(&shard.raw_data).chain(&shard.zip_data) {
                let plain = !data.basename.is_empty()
                    && !data.basename.contains(['/', '\0'])
                    && data.basename != "..";
                if !plain {
                    return Err(bad(format!(
                        "shard {number} has the file name `{}`",
                        data.basename.escape_debug()
                    )));
                }
            }
        }
        let chosen = super::choose(&first.column_names, fields, &path)?;
        let of = |at: &usize| {
            field(&first.column_names[*at], &first.column_encodings[*at], first.column_sizes[*at])
        };
        let schema = Schema::of(chosen.iter().map(of).collect())?;
        let parts = index.shards.iter().map(|shard| shard.raw_data.bytes).collect();
        Ok(Self { root: root.to_owned(), shards: index.shards, parts, chosen, schema })
    }

    /// The bytes of a shard: its file, or what is unpacked from it.
    fn shard(&self, shard: &Shard) -> Result<Bytes> {
        let path = self.root.join(&shard.raw_data.basename);
        let Some(zipped) = shard.zip_data.as_ref().filter(|_| !path.exists()) else {
            return Ok(Bytes::File(PlainFile::open(&path)?));
        };
        let path = self.root.join(&zipped.basename);
        let compression = shard.compression.as_deref().unwrap_or_default();
        if compression.split(':').next() != Some("zstd") {
            let why = format!("a shard compressed with `{compression}`, expected zstd or none");
            return Err(Error::new(ErrorKind::Unsupported, "read input", why)
                .at(&path)
                .hint("unpack the shards first: StreamingDataset does so into its local directory"));
        }
        let file = PlainFile::open(&path)?;
        if shard.raw_data.bytes > SAMPLE_BYTES_MAX {
            return Err(corrupt(
                &path,
                (0, file.bytes()),
                format!("a shard of {} bytes", shard.raw_data.bytes),
            ));
        }
        let bytes = file.read(0, file.bytes())?;
        let plain = zstd::bulk::decompress(&bytes, to_usize(shard.raw_data.bytes));
        let plain = plain.map_err(|error| corrupt(&path, (0, file.bytes()), format!("zstd: {error}")))?;
        Ok(Bytes::Memory(path, plain))
    }
}

enum Bytes {
    File(PlainFile),
    Memory(PathBuf, Vec<u8>),
}

impl Bytes {
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => file.path(),
            Self::Memory(path, _) => path,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.bytes(),
            Self::Memory(_, bytes) => to_u64(bytes.len()),
        }
    }

    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        match self {
            Self::File(file) => file.read(offset, len),
            Self::Memory(path, bytes) => {
                let end = offset.checked_add(len).filter(|end| *end <= to_u64(bytes.len()));
                let end = end.ok_or_else(|| corrupt(path, (offset, len), "it is cut short"))?;
                Ok(bytes[to_usize(offset)..to_usize(end)].to_vec())
            }
        }
    }
}

impl Format for Mds {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let shard = &self.shards[part];
        let bytes = self.shard(shard)?;
        let bad = |at: u64, len: u64, why: String| corrupt(bytes.path(), (at, len), why);
        let count = bytes.read(0, 4)?;
        let count = count.try_into().map(u32::from_le_bytes).map_or(0, u64::from);
        if count != shard.samples {
            return Err(bad(0, 4, format!("{count} samples, expected {} as the index says", shard.samples)));
        }
        let table = bytes.read(4, 4 * (count + 1))?;
        let offsets: Vec<u64> = table
            .chunks_exact(4)
            .map(|four| four.try_into().map(u32::from_le_bytes).map_or(0, u64::from))
            .collect();
        let mut places = vec![0..0; shard.column_names.len()];
        for pair in offsets.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            if start > end || end > bytes.len() || start < 4 * (count + 2) {
                return Err(bad(
                    start,
                    end.saturating_sub(start),
                    "a sample lies outside of its shard".to_owned(),
                ));
            }
            let sample = bytes.read(start, end - start)?;
            columns(&sample, &shard.column_sizes, &mut places).map_err(|why| bad(start, end - start, why))?;
            let values: Vec<&[u8]> = self.chosen.iter().map(|at| &sample[places[*at].clone()]).collect();
            each(Sample { name: None, values: &values, input_bytes: end - start })?;
        }
        Ok(())
    }
}

/// Where the columns of a sample lie.
fn columns(
    sample: &[u8],
    sizes: &[Option<u64>],
    places: &mut [std::ops::Range<usize>],
) -> std::result::Result<(), String> {
    let mut lengths = sample.chunks_exact(4);
    // A size of zero means, as none does, that the sample tells it.
    let fixed = |size: &Option<u64>| size.filter(|size| *size > 0);
    let varying = sizes.iter().filter(|size| fixed(size).is_none()).count();
    let mut at = to_u64(varying * 4);
    for (size, place) in sizes.iter().zip(places) {
        let size = match fixed(size) {
            Some(size) => size,
            None => {
                let four = lengths.next().and_then(|four| four.try_into().ok());
                u64::from(u32::from_le_bytes(
                    four.ok_or("a sample is too short for the lengths of its columns")?,
                ))
            }
        };
        let end = at.checked_add(size).filter(|end| *end <= to_u64(sample.len()));
        let end =
            end.ok_or_else(|| format!("a column of {size} bytes at {at} of a sample of {}", sample.len()))?;
        *place = to_usize(at)..to_usize(end);
        at = end;
    }
    if at != to_u64(sample.len()) {
        return Err(format!("the columns of a sample end at {at}, the sample at {}", sample.len()));
    }
    Ok(())
}

/// The field of a column: typed where every value has one type and shape.
fn field(name: &str, encoding: &str, size: Option<u64>) -> Field {
    let dtype = |name: &str| {
        let known = [
            ("int", Dtype::I64),
            ("uint8", Dtype::U8),
            ("int8", Dtype::I8),
            ("uint16", Dtype::U16),
            ("int16", Dtype::I16),
            ("float16", Dtype::F16),
            ("uint32", Dtype::U32),
            ("int32", Dtype::I32),
            ("float32", Dtype::F32),
            ("uint64", Dtype::U64),
            ("int64", Dtype::I64),
            ("float64", Dtype::F64),
        ];
        known.into_iter().find(|(known, _)| *known == name).map(|(_, dtype)| dtype)
    };
    let parts: Vec<&str> = encoding.split(':').collect();
    let typed = match parts[..] {
        [scalar] => dtype(scalar).map(|dtype| Field::fixed(name, dtype, &[])),
        ["ndarray", of, shape] => shape
            .split(',')
            .map(|length| length.parse::<i64>().ok().filter(|length| *length > 0))
            .collect::<Option<Vec<_>>>()
            .and_then(|shape| Some(Field::fixed(name, dtype(of)?, &shape))),
        _ => None,
    };
    let fits = |field: &Field| {
        Schema::new(field.clone()).ok().and_then(|schema| schema.sample_bytes()).map(to_u64) == size
    };
    typed.filter(fits).unwrap_or_else(|| Field::ragged(name, Dtype::U8))
}
